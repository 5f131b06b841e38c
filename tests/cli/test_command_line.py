"""The command line end to end, with a stub in the job's place."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from datetime import datetime
from io import StringIO
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from medseg.cli import command_line, job
from medseg.cli.quoting import quoted
from medseg.config import extras
from medseg.config.check import resolve
from medseg.config.schema import CONF
from medseg.errors import MedsegError
from medseg.jobs.rundir import logged_to, read_result
from medseg.system import terminal
from medseg.system.relaunch import single_job

NASTY = [
    "/data/Müller (1)/scan=3",
    "a,b",
    "[x]",
    "it's",
    "~/home",
    "a&b",
    "${oc.env:HOME}/x",
    r"\${y}",
    "back\\",
    r"C:\scans\new",
    "患者 一",
    "{a: b}",
    "  spaces  ",
    "100%",
    "#1",
    '"half',
    "+-*:?@!|<>",
    "1.50",
    "true",
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "dataset=folder", "dataset.root=nowhere"], "dataset.root=nowhere: no such file or folder."),
        (["train", "dataset=folder", "dataset.root=hear"], "Did you mean 'heart'?"),
        (["train", "dataset=folder", "dataset.root=heart/mrs"], f"Did you mean '{Path('heart/mr')}'?"),
        (["train", "dataset=folder", "dataset.root=haert/mr"], f"Did you mean '{Path('heart/mr')}'?"),
        (["train", "dataset=folder", "dataset.root=haert/ct"], "Did you mean 'heart'?"),
        (["predict", "checkpoint=heart/m", "input=heart", "output=x"], f"Did you mean '{Path('heart/mr')}'?"),
        (["train", "dataset=folder", "dataset.root=~/x"], "write the folder in full"),
        (["train", "split.file=splits.json"], "split.file=splits.json: no such file"),
        (["predict", "checkpoint=gone", "input=gone too", "output=x"], "input=gone too: no such file"),
    ],
)
def test_paths_that_are_not_there_are_named_before_torch(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heart" / "mr").mkdir(parents=True)
    assert command_line.main(arguments) == 1
    assert message in capsys.readouterr().err


def raising(error):
    def outcome(config):
        raise error

    return outcome


def test_both_mistakes_are_named_at_once(jobs, capsys):
    assert command_line.main(["train", "model.dept=4", "trainer.max_epochs=ten"]) == 1
    error = capsys.readouterr().err
    assert "model.dept: unknown key. Did you mean 'model.depth'?" in error
    assert "trainer.max_epochs='ten': must be a whole number in [1, inf)" in error
    assert "Traceback" not in error
    assert jobs.configs == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'. Did you mean 'train'?"),
        (
            ["train", "dataset=foldr"],
            "dataset=foldr: no such option. Did you mean 'folder'? Options: brats, decathlon, folder",
        ),
        (["train", "dataset=foldr", "dataset.images=x", "loss=cee"], "loss=cee: no such option. Did you mean 'ce'?"),
        (["train", "dataset=folder"], "dataset.root: missing. Give dataset.root=..."),
        (["predict"], "- output: missing."),
        (["train", "depth=3"], "Did you mean 'model.depth'?"),
        (["train", "trainer.batch_size=2"], "Did you mean 'plan.batch_size' or 'inference.batch_size'?"),
        (["train", "learning_rate=0.001"], "Did you mean 'optimizer.lr'?"),
        (["train", "lr=0.001"], "Did you mean 'optimizer.lr'?"),
        (["train", "epochs=3"], "Did you mean 'trainer.max_epochs'?"),
        (["train", "max_time=3"], "Did you mean 'trainer.max_time'?"),
        (["train", "zzz=3"], "zzz: unknown key. medseg train --help lists all."),
        (["train", "split=0.2"], "split is no single value but holds split.val, split.test"),
        (["train", "split={vall:0.2}"], "vall"),
        (["train", "seed"], "'seed': settings are written key=value"),
        (["train", "seed", "=", "1"], "'=': settings are written key=value, without spaces around the ="),
        (["train", "seed", "=1"], "'=1': settings are written key=value, without spaces around the ="),
        (["train", "seed=(1"], "cannot be read"),
        (["train", "dataset.labels={background:", "0,", "cell:", "1}"], "the shell has split it at a space"),
        (["train", "'dataset.labels={background:", "0}'"], "its quotes are no quotes for this shell"),
        (["train", "'loss=(dice'"], "its quotes are no quotes for this shell"),
        (["train", 'dataset.segments={"GTV": a}'], 'dataset.segments={"GTV": a}: cannot be read. A mapping is written'),
        (["train", "seed=1,2"], "needs -m"),
        (["train", "+model.width=3"], "model.width: unknown key"),
        (["train", "~model.depth"], "~model.depth: cannot be removed"),
        (["train", "~loss"], "a group cannot be removed"),
        (["train", "+seed=3"], "+seed: is there already"),
        (["train", "optimizer.amsgrad=true"], "needs a plus: +optimizer.amsgrad="),
        (["train", "trainer.max_time=60"], "Quote it"),
        (["train", "trainer.max_time='10'"], "Ten minutes are 00:00:10:00"),
        (["train", "logger=null"], "logger=null: no such option. Options: csv, mlflow, none, tensorboard, wandb"),
        (["train", "logger=[csv,wandbb]"], "logger=wandbb: no such option. Did you mean 'wandb'?"),
        (["train", "logger=[csv,tensorboard]", "logger.csv.nme=a"], "needs a plus"),
        (["train", "model=null"], "model=null: no such option"),
        (["train", "experiment=null"], "experiment=null: no such option. Options: accurate, cascade, fast"),
        (["train", "postprocess.classes=3"], "postprocess.classes=3: must be a mapping"),
        (["train", "postprocess.clases.core.largest=true"], "Did you mean 'postprocess.largest'?"),
        (["train", "--config-dir"], "--config-dir/-cd: expected one argument"),
        (["train", "--cfg", "jobs"], "invalid choice: 'jobs'"),
        (["train", "--nope"], "unknown option '--nope'"),
        (["train", "--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
        (["train", "--config-name", "nowhere"], "nowhere"),
        (["train", "--cfg", "job", "-m"], "leave out -m"),
        (["train", "resume=nowhere"], "resume=nowhere: no config.yaml"),
        (["seed=3"], "name a command first: train, pretrain, eval, predict"),
        (["train", "-m", "model.dept=2,3"], "Did you mean 'model.depth'?"),
        (["train", "-m", "model.depth=2,3", "seed=x"], "seed='x': must be"),
        (["train", "-m", "model.depth=[2,3]"], "A sweep over these values is written model.depth=2,3."),
        (["train", "loss=[dice,ce]"], "loss=[dice,ce]: of loss one option is taken. A sweep"),
        (["train", "-m", "model=unet,[unet,segresnet]"], "written -m model=unet,segresnet."),
        (["train", "-m", "dataset=[folder,nnunet]", "dataset.root=."], "written -m dataset=folder,nnunet."),
        (["train", "-m", "model.depth=2,", "3,", "4"], "split it at a space. Write it without: model.depth=2,3,4"),
        (["train", "-m", "model.depth=2,", "seed=1"], "Several values are written without spaces: model.depth=a,b"),
        (["train", "-m", "loss=dice_ce,ce", "loss.weights.dice=2"], "loss.weights.dice: unknown key"),
        (["train", "-m", "dataset=phantom,folder"], "dataset.root: missing"),
        (
            ["eval", "-m", "checkpoint=a,b"],
            "A sweep over paths needs quotes, for the shell too: \"checkpoint='a','b'\"",
        ),
    ],
)
def test_mistakes_are_explained(arguments, message, jobs, capsys):
    assert command_line.main(arguments) == 1
    out, error = capsys.readouterr()
    assert message in error
    assert error.startswith("medseg: ")
    assert "Traceback" not in error
    assert out == ""
    assert jobs.configs == []
    assert not Path("outputs").exists()


def test_a_list_of_options_where_one_is_taken_is_one_problem(jobs, capsys):
    assert command_line.main(["train", "-m", "loss=[dice,ce]"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_log_lines_have_the_same_kind_of_time_on_terminals_in_pipes_and_in_files(monkeypatch, tmp_path):
    record = logging.makeLogRecord({"msg": "learned", "levelname": "INFO", "levelno": logging.INFO})
    time = f"{datetime.fromtimestamp(record.created):%Y-%m-%d %H:%M:%S}"
    assert job.log_handler().format(record) == f"{time} INFO learned"
    with logged_to(tmp_path / "train.log") as handler:
        handler.handle(record)
    assert (tmp_path / "train.log").read_text() == f"{time} INFO learned\n"
    shown = StringIO()
    monkeypatch.setattr(terminal, "interactive_terminal", lambda: terminal.Terminal(file=shown, width=80))
    job.log_handler().handle(record)
    assert shown.getvalue().split("learned")[0].strip() == time


def test_packages_of_trackers_are_missed_before_anything_is_read(jobs, monkeypatch, capsys):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in ("mlflow", "wandb") else object())
    assert command_line.main(["train", "-m", "logger=[tensorboard,mlflow],wandb"]) == 1
    error = capsys.readouterr().err
    assert "logger=mlflow: not installed (mlflow). Do: pip install 'medseg[mlflow]'." in error
    assert "logger=wandb: not installed (wandb). Do: pip install 'medseg[wandb]'." in error
    assert jobs.configs == []


@pytest.mark.parametrize(
    ("choice", "names"),
    [("tensorboard", ["tensorboard"]), ("[tensorboard,csv]", ["tensorboard", "csv"]), ("none", []), ("[none]", [])],
)
def test_several_loggers_stand_side_by_side(choice, names, jobs):
    more = ["logger.csv.name=table"] if "csv" in names else []
    assert command_line.main(["train", f"logger={choice}", *more]) == 0
    [config] = jobs.configs
    assert [*config["logger"]] == names
    assert not more or config["logger"]["csv"]["name"] == "table"


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (lambda config: {"status": "done"}, 0, ""),
        (lambda config: {"status": "failed"}, 1, ""),
        (lambda config: {"status": "some_failed"}, 3, ""),
        (raising(MedsegError("no images under x")), 1, "medseg: no images under x\n"),
        (raising(KeyError("bug")), 2, "Traceback (most recent call last)"),
        (raising(KeyboardInterrupt()), 130, "medseg: interrupted\n"),
    ],
)
def test_exit_statuses(outcome, status, message, jobs, capsys):
    jobs.outcome = outcome
    assert command_line.main(["train"]) == status
    error = capsys.readouterr().err
    assert message in error
    assert ("Traceback" in error) == (status == 2)


@pytest.mark.parametrize("path", NASTY)
def test_quoting_survives_hydra_and_omegaconf(path):
    value = OverridesParser.create().parse_override(quoted(f"input={path}")).value()
    assert resolve({"input": value})["input"] == path


@pytest.mark.parametrize("number", range(3))
def test_paths_pass_exactly(number, jobs):
    checkpoint, source, target = NASTY[number::3][:3]
    if checkpoint == "[x]":  # brackets make a list where there is no such path
        Path(checkpoint).mkdir()
    assert command_line.main(["predict", f"checkpoint={checkpoint}", f"input={source}", f"output={target}"]) == 0
    assert [jobs.configs[0][key] for key in ("checkpoint", "input", "output")] == [checkpoint, source, target]


def test_brackets_make_a_list_of_checkpoints(jobs):
    for given in ("checkpoint=[a (1),b=2, c]", "checkpoint=['a (1)','b=2','c']"):
        assert command_line.main(["predict", given, "input=i", "output=o"]) == 0
    assert [config["checkpoint"] for config in jobs.configs] == [["a (1)", "b=2", "c"]] * 2
    assert command_line.main(["predict", "checkpoint=[]", "input=i", "output=o"]) == 1


def test_paths_pass_exactly_through_a_sweep(jobs):
    path = "Müller (1)=3, [it's] ~&患\"{a: ${b} \\\\${c}\\"
    Path(path).mkdir()
    assert (
        command_line.main(["train", "-m", "dataset=folder", f"dataset.root={path}", "seed=1,2", f"run_dir=out {path}"])
        == 0
    )
    assert [config["dataset"]["root"] for config in jobs.configs] == [path] * 2
    assert [config["run_dir"] for config in jobs.configs] == [f"out {path}/{job}" for job in (0, 1)]


def test_what_is_quoted_already_stays(jobs):
    assert command_line.main(["predict", "checkpoint='a,b'", 'input="x=(1)"', "output=null"]) == 1
    assert command_line.main(["predict", "checkpoint='a,b'", 'input="x=(1)"', "output=o"]) == 0
    assert (jobs.configs[0]["checkpoint"], jobs.configs[0]["input"]) == ("a,b", "x=(1)")
    assert command_line.main(["predict", "-m", "checkpoint='a,b','c'", "input=i", "output=o"]) == 0
    assert [config["checkpoint"] for config in jobs.configs[1:]] == ["a,b", "c"]


def test_regular_expressions_need_no_quotes(jobs):
    pattern = r"^(.+?)-IM-\d{2,3}[a-z]'$"
    assert command_line.main(["train", "dataset=folder", "dataset.root=x", f"dataset.group={pattern}"]) == 0
    assert jobs.configs[0]["dataset"]["group"] == pattern


def test_arguments_of_other_packages_can_be_added_and_removed(jobs):
    arguments = ["+optimizer.amsgrad=true", "~optimizer.weight_decay", "++optimizer.lr=0.1", "hydra.verbose=false"]
    assert command_line.main(["train", *arguments]) == 0
    assert jobs.configs[0]["optimizer"] == {"_target_": "torch.optim.AdamW", "lr": 0.1, "amsgrad": True}


def test_flags_may_stand_anywhere(jobs):
    assert command_line.main(["-m", "train", "seed=1,2", "--config-dir=.", "model.depth=3"]) == 0
    assert [config["seed"] for config in jobs.configs] == [1, 2]


def test_config_dir_brings_groups_and_code(jobs, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text("_target_: my_nets.Tiny\nwidth: 3\n")
    assert command_line.main(["train", "--config-dir", "mine", "model=tiny", "model.width=5"]) == 0
    assert jobs.configs[0]["model"] == {"_target_": "my_nets.Tiny", "width": 5}
    assert str(tmp_path / "mine") in sys.path
    assert command_line.main(["train", "model=tiny"]) == 1


def test_a_full_run_directory_is_refused_before_the_job_begins(jobs, tmp_path, monkeypatch, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious.txt").write_text("mine")
    assert command_line.main(["train", "run_dir=full"]) == 1
    assert "run_dir=full: this directory is not empty. Give another" in capsys.readouterr().err
    assert jobs.configs == []
    monkeypatch.setenv("WORLD_SIZE", "2")  # the first process of several may have begun to write
    assert command_line.main(["train", "run_dir=full"]) == 0
    assert len(jobs.configs) == 1


def test_single_runs_leave_nothing_of_hydra_s_behind(jobs, tmp_path):
    assert command_line.main(["train"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run_dir(jobs, tmp_path):
    """A run directory with the config that a job saves."""

    def save(config):
        folder = tmp_path / "run (ü)=1"
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"run_dir": str(folder)}, sort_keys=False))
        return {"status": "done"}

    jobs.outcome, former = save, jobs.outcome
    assert command_line.main(["train", "loss=ce", "seed=7", "trainer.max_time=12:00:00:00"]) == 0
    jobs.outcome = former
    return tmp_path / "run (ü)=1"


def test_resume_takes_the_saved_config(jobs, run_dir):
    assert command_line.main(["train", f"resume={run_dir}", "trainer.max_epochs=9"]) == 0
    first, second = jobs.configs
    assert second["resume"] == second["run_dir"] == str(run_dir)
    assert second["trainer"]["max_epochs"] == 9
    same = [key for key in first if key not in ("resume", "run_dir", "trainer", "logger", "explicit_keys")]
    assert {key: second[key] for key in same} == {key: first[key] for key in same}
    assert second["trainer"]["max_time"] == "12:00:00:00"
    assert second["explicit_keys"] == [*first["explicit_keys"], "trainer.max_epochs"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss=dice", "goes on with the run's own loss"),
        ("run_dir=x", "leave out -m and run_dir"),
        ("trainer.max_epoch=3", "Did you mean 'trainer.max_epochs'?"),
        ("trainer.max_epochs=x", "trainer.max_epochs='x': must be"),
        ("seed=1", "seed cannot change in a run that has begun"),
        ("split.test=0.3", "split.test cannot change"),
        ("model.depth=3", "model.depth cannot change"),
    ],
)
def test_resume_refuses_what_it_cannot_do(setting, message, run_dir, capsys):
    assert command_line.main(["train", f"resume={run_dir}", setting]) == 1
    assert message in capsys.readouterr().err


def test_resume_null_starts_anew(jobs):
    assert command_line.main(["train", "resume=null"]) == 0
    assert jobs.configs[0]["resume"] is None


def test_a_job_sees_the_user_s_command_line_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["medseg", "--config-name", "train"])
    with single_job(["train", "seed=1"]):
        assert sys.argv == ["medseg", "train", "seed=1"]
        sys.argv[1:] = ["something"]
        os.environ["LOCAL_RANK"] = "0"
    assert sys.argv == ["medseg", "--config-name", "train"]
    assert "LOCAL_RANK" not in os.environ


def test_what_stands_for_a_checkpoint_is_not_offered(jobs, capsys):
    assert command_line.main(["train", "dataset=deathlon"]) == 1
    shown = capsys.readouterr().err
    assert "Did you mean 'decathlon'?" in shown
    assert "saved" not in shown


def test_cfg_shows_the_config_even_with_values_missing(jobs, capsys):
    assert command_line.main(["train", "dataset=folder", "model.depth=3", "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["model"]["depth"], shown["dataset"]["root"]) == (3, "???")
    assert jobs.configs == []


@pytest.mark.parametrize(
    ("line", "expected", "unexpected"),
    [
        ("medseg tr", {"train"}, {"eval"}),
        ("medseg ", {"train", "eval", "predict"}, set()),
        ("medseg train loss=", {"loss=ce", "loss=dice_ce"}, {"help"}),
        ("medseg train dataset=", {"dataset=folder", "dataset=brats"}, {"dataset=saved"}),
        ("medseg predict ", {"checkpoint=", "inference."}, {"help"}),
        ("medseg train ", {"model=", "seed="}, {"common=", "command="}),
    ],
)
def test_completion(line, expected, unexpected, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)
    assert command_line.main(["-sc", "query=bash"]) == 0
    words = set(capsys.readouterr().out.split())
    assert expected <= words
    assert not unexpected & words


def test_completion_can_be_installed(monkeypatch, capsys):
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert command_line.main(["-sc", "install=bash"]) == 0
    assert "complete " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "--help"], ["eval", "-h"], ["predict", "--help"]])
def test_help_is_pre_rendered(arguments, capsys):
    assert command_line.main(arguments) == 0
    name = arguments[0] if arguments and arguments[0] in command_line.JOBS else "medseg"
    assert capsys.readouterr().out == (CONF / "help" / f"{name}.txt").read_text("utf-8")


def test_help_is_up_to_date():
    path = Path(__file__).parents[2] / "scripts" / "render_help.py"
    spec = importlib.util.spec_from_file_location("render_help", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    on_disk = {file.name: file.read_text("utf-8") for file in (CONF / "help").iterdir()}
    assert on_disk == script.texts(), "run scripts/render_help.py"


def test_version(capsys):
    assert command_line.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("medseg 0.")


@pytest.mark.parametrize(
    ("arguments", "status", "unwanted"),
    [
        (["train", "--help"], 0, {"hydra", "omegaconf", "rich", "numpy"}),
        (["train", "model.dept=4"], 1, {"torch", "lightning", "monai", "numpy", "scipy"}),
    ],
)
def test_answers_without_heavy_imports(arguments, status, unwanted):
    code = f"import sys; from medseg.cli.command_line import main; print(main({arguments}), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer, *modules = done.stdout.splitlines()[-1].split()
    assert int(answer) == status
    assert not unwanted & set(modules)


def test_as_a_module(tmp_path):
    command = [sys.executable, "-m", "medseg", "train", "seed=x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("medseg: seed='x': must be")


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ([], []),
        (["model.norm=instance", "preprocessing.crop=true"], ["model.norm", "preprocessing.crop"]),
        (["model.depth=null"], ["model.depth"]),
        (["model=resenc_m"], ["model._target_", "model.norm", "model.residual", "plan.budget"]),
        (["model=unet"], ["model._target_", "model.norm"]),
        (["experiment=nnunet"], ["model._target_", "model.base_channels", "model.norm", "plan.mirror"]),
    ],
)
def test_what_the_command_line_chooses_is_told_apart_from_defaults(jobs, settings, keys):
    assert command_line.main(["train", *settings]) == 0
    [config] = jobs.configs
    chosen = config["explicit_keys"]
    assert chosen == [] if not settings else set(keys) <= set(chosen)
    assert "model.depth" not in chosen or "model.depth=null" in settings


def test_each_job_of_a_sweep_knows_its_own_choices(jobs):
    assert command_line.main(["train", "-m", "model=unet,resenc_m", "model.depth=3"]) == 0
    first, second = (set(config["explicit_keys"]) for config in jobs.configs)
    assert {"model._target_", "model.depth"} <= first & second
    assert "plan.budget" in second - first


def test_a_resumed_run_still_knows_what_was_chosen_when_it_began(jobs, tmp_path):
    assert command_line.main(["train", "model.norm=instance", "experiment=nnunet", "run_dir=run"]) == 0
    [config] = jobs.configs
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=1000"]) == 0
    chosen = config["explicit_keys"]
    assert jobs.configs[1]["explicit_keys"][: len(chosen)] == chosen
    assert jobs.configs[1]["explicit_keys"][len(chosen) :] == ["trainer.max_epochs"]
    assert command_line.main(["train", "resume=run", "explicit_keys=[]"]) == 1


@pytest.mark.parametrize("setting", ["++model.depth=3", "split={val: 0.3}", "~plan.context", "++loss._target_=a.B"])
def test_what_a_run_has_settled_cannot_be_changed_by_another_spelling(jobs, tmp_path, setting, capsys):
    assert command_line.main(["train"]) == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(jobs.configs[0]))
    assert command_line.main(["train", "resume=run", setting]) == 1
    assert "resume" in capsys.readouterr().err
    assert len(jobs.configs) == 1


def test_help_lists_only_groups_that_a_user_chooses_from():
    for command in command_line.JOBS:
        text = command_line.help_text(command)
        assert "@" not in text.partition("Settings with their defaults")[0], command


@pytest.mark.parametrize("command", ["train", "predict"])
@pytest.mark.parametrize(
    "settings", [["postprocess.classes={core: {largest: true}}"], ["postprocess.classes.core.largest=true"]]
)
def test_entries_of_a_mapping_are_the_users(jobs, command, settings):
    needed = {"train": [], "predict": ["checkpoint=a", "input=b", "output=c"]}[command]
    assert command_line.main([command, *needed, *settings, "inference.thresholds={WT: 0.4}"]) == 0
    [config] = jobs.configs
    assert config["postprocess"]["classes"] == {"core": {"largest": True}}
    assert config["inference"]["thresholds"] == {"WT": 0.4}


def test_entries_of_a_mapping_may_be_swept(jobs):
    assert command_line.main(["train", "-m", "inference.thresholds.WT=0.3,0.4", "run_dir=sweep"]) == 0
    assert [config["inference"]["thresholds"] for config in jobs.configs] == [{"WT": 0.3}, {"WT": 0.4}]


def test_results_of_older_trainings_had_the_test_score_in_the_place_of_the_validations(tmp_path):
    old = {"status": "done", "reason": "", "score": 0.7, "seconds": 1.0, "selection": {"best": {"dice": 0.8}}}
    (tmp_path / "result.json").write_text(json.dumps(old))
    result = read_result(tmp_path / "result.json")
    assert (result["score"], result["test_score"]) == (0.8, 0.7)
