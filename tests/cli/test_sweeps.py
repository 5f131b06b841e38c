"""Sweeps from the command line, with a stub in the job's place."""

import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from medseg.cli import command_line
from medseg.cli.overrides import is_plain
from medseg.errors import MedsegError
from medseg.io.warnings import warn


def leave_split(config, *validated, others=("t",)):
    """Write what a training leaves of its config and its split, with hashes of the cases that it was validated on."""
    folder = Path(config["run_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    split = {"train": list(others), "val": list(validated), "test": []}
    hashes = {name: f"hash of {name}" for name in (*others, *validated)}
    (folder / "splits.json").write_text(json.dumps({"format": 1, **split, "hashes": hashes}))


def rows_of(out):
    """Return the cells of the lines of all tables in what was printed: job, which is empty in some, overrides, …"""
    tables = re.findall(r"^ job  overrides.*\n ─+ *\n((?:.*\S.*\n)*)", out, re.MULTILINE)
    lines = [re.split(" {2,}", line.strip()) for table in tables for line in table.splitlines()]
    return [cells if cells[0].isdecimal() else ["", *cells] for cells in lines]


def test_a_sweep_runs_all_jobs_into_one_folder(jobs, capsys):
    def outcome(config):
        depth = config["model"]["depth"]
        if depth == 4:
            raise ValueError("a bug")
        if depth == 5:
            raise MedsegError("model.depth=5: too deep for these cases.")
        leave_split(config, "v")
        return {"status": "done", "reason": "", "score": depth / 10, "test_score": 0.5, "seconds": 1.0}

    jobs.outcome = outcome
    settings = ["model.depth=2,5,4,3", "loss.dice.batch=false"]
    assert command_line.main(["train", "-m", *settings]) == 3
    (folder,) = Path("outputs/sweeps/phantom").iterdir()
    results = [json.loads((folder / str(job) / "result.json").read_text()) for job in range(4)]
    assert [result["status"] for result in results] == ["done", "failed", "failed", "done"]
    assert results[0]["overrides"] == ["model.depth=2", "loss.dice.batch=False"]
    assert results[1]["reason"] == "model.depth=5: too deep for these cases."
    assert results[2]["reason"] == "ValueError: a bug"
    assert [config["run_dir"] for config in jobs.configs] == [str(folder / str(job)) for job in range(4)]
    out = capsys.readouterr().out
    assert [row[0] for row in rows_of(out) if row[0]] == ["3", "0", "1", "2"]
    below = [line.strip() for line in out.splitlines() if line.startswith("job ")]
    assert below == ["job 1: model.depth=5: too deep for these cases.", "job 2: ValueError: a bug"]


def test_why_jobs_failed_stands_below_the_table_in_a_line_each(jobs, capsys):
    reason = "the loss is no longer finite since step 12 of epoch 3.\n" + "A lower optimizer.lr may help. " * 20
    jobs.outcome = lambda config: {"status": "failed", "reason": reason, "score": None, "seconds": 1.0}
    assert command_line.main(["train", "-m", "model.depth=2,3", "run_dir=sweep"]) == 1
    out = capsys.readouterr().out
    below = out[out.index("job 0: ") :]
    assert [row[:2] for row in rows_of(out)] == [["0", "model.depth=2"], ["1", "model.depth=3"]]
    lines = below.strip().splitlines()[:2]
    assert [line[:30] for line in lines] == [f"job {job}: the loss is no longer f" for job in (0, 1)]
    assert all(line.endswith("…") and len(line) <= 80 for line in lines)


def test_folds_are_an_ensemble_and_none_is_the_best(jobs, capsys):
    reported = []

    def outcome(config):
        if config["command"] == "cross_validate":
            reported.append((config["run_dir"], config["device"], config["test"]))
            return {"status": "done", "reason": ""}
        fold = config["split"]["fold"]
        assert fold == 0 or all_overrides() == ["split.fold=0"]
        leave_split(config, f"v{fold}", others=[f"v{1 - fold}"])
        return {"status": "done", "reason": "", "score": 0.5, "seconds": 1.0}

    def all_overrides():
        record = json.loads(Path("folds/sweep.json").read_text())
        return [job["overrides"] for ranking in record["rankings"] for job in ranking["jobs"]]

    jobs.outcome = outcome
    line = ["train", "-m", "split.folds=2", "split.fold=0,1", "sweep.test=none", "run_dir=folds"]
    assert command_line.main(line) == 0
    out = capsys.readouterr().out
    assert "the folds are an ensemble: checkpoint=folds\n" in out
    assert "best:" not in out
    assert all_overrides() == ["split.fold=0", "split.fold=1"]
    assert reported == [("folds", "auto", False)]


def test_tests_are_offered_where_there_are_two_to_compare(jobs, capsys):
    def outcome(config):
        folder = Path(config["run_dir"])
        tests = [folder / "test"]
        if config["command"] == "cross_validate":
            tests.append(folder / "cross_validation")
        else:
            leave_split(config, f"v{config['split']['fold']}", others=[f"v{1 - config['split']['fold']}"])
        for test in tests[: 2 * (config["command"] == "cross_validate" or config["sweep"]["test"] == "all")]:
            test.mkdir(parents=True, exist_ok=True)
            (test / "cases.csv").touch()
        return {"status": "done", "reason": "", "score": 0.5, "seconds": 1.0}

    jobs.outcome = outcome
    line = ["train", "-m", "split.folds=2", "split.fold=0,1", "run_dir=folds"]
    assert command_line.main(line) == 0
    assert "medseg compare" not in capsys.readouterr().out
    line = ["train", "-m", "split.folds=2", "seed=1,2", "sweep.test=all", "run_dir=seeds"]
    assert command_line.main(line) == 0
    assert "for significance tests: medseg compare runs=seeds\n" in capsys.readouterr().out


def test_all_values_of_a_sweep_are_checked_before_its_first_job(jobs, capsys):
    settings = ["model=unet,nonsense,unt", "model.depth=2,99", "seed=range(-1,2)", "inference.thresholds.WT=0.5,2"]
    assert command_line.main(["train", "-m", *settings]) == 1
    error = capsys.readouterr().err
    assert "these 5 settings are wrong" in error
    assert "model=nonsense: no such option." in error
    assert "model=unt: no such option. Did you mean 'unet'?" in error
    assert "model.depth=99: must be" in error
    assert "seed=-1: must be" in error
    assert "inference.thresholds={'WT': 2}: must be" in error
    assert jobs.configs == []
    assert not Path("outputs").exists()
    assert command_line.main(["train", "-m", "split.seed=null,1", "model.depth=choice(2,3)"]) == 0
    assert len(jobs.configs) == 4


def test_a_sweep_keeps_the_job_s_own_result(jobs):
    def outcome(config):
        Path(config["run_dir"]).mkdir(exist_ok=True)
        own = {"status": "some_failed", "reason": "own", "score": 0.1, "seconds": 2.0, "more": 1}
        (Path(config["run_dir"]) / "result.json").write_text(json.dumps(own))
        return own

    jobs.outcome = outcome
    assert command_line.main(["train", "-m", "seed=1,2", "run_dir=sweep"]) == 3
    result = json.loads(Path("sweep/1/result.json").read_text())
    assert (result["reason"], result["more"], result["overrides"]) == ("own", 1, ["seed=2", "run_dir='sweep'"])


def test_a_sweep_that_was_stopped_goes_on(jobs, capsys):
    def outcome(config):
        folder = Path(config["run_dir"])
        if config["seed"] == 2 and not config["resume"]:  # killed with a checkpoint, before the third job
            (folder / "checkpoints").mkdir(parents=True)
            (folder / "checkpoints" / "last.ckpt").touch()
            raise KeyboardInterrupt
        return {"status": "done", "reason": "", "score": config["seed"] / 10, "seconds": 1.0}

    jobs.outcome = outcome
    line = ["train", "-m", "seed=1,2,3", "run_dir=sweep"]
    assert command_line.main(line) == 130
    told = capsys.readouterr().out
    assert [(row[0], row[1], row[3]) for row in rows_of(told)] == [
        ("0", "seed=1", "done"),
        ("1", "seed=2", "interrupted"),
    ]
    assert "\njob 1: interrupted\n" in told
    assert told.endswith("\nto go on: medseg train resume=sweep\n")
    assert command_line.main(["train", "resume=sweep"]) == 0
    assert [config["seed"] for config in jobs.configs] == [1, 2, 2, 3]
    assert [config["resume"] for config in jobs.configs] == [None, None, "sweep/1", None]
    assert command_line.main(line) == 0
    assert len(jobs.configs) == 4
    assert command_line.main(["train", "-m", "seed=1,2", "run_dir=sweep"]) == 1
    assert "started with other settings: with seed=1,2,3, without seed=1,2. Give" in capsys.readouterr().err


def test_how_to_go_on_with_a_sweep_names_the_folder_that_it_was_given(jobs, capsys):
    def outcome(config):
        raise KeyboardInterrupt

    jobs.outcome = outcome
    assert command_line.main(["train", "-m", "model.depth=2,3", "loss=ce"]) == 130
    [*_, line] = capsys.readouterr().out.splitlines()
    jobs.outcome = lambda config: {"status": "done", "reason": "", "score": 0.5, "seconds": 1.0}
    assert command_line.main(shlex.split(line.removeprefix("to go on: medseg "))) == 0
    assert len(list(Path("outputs/sweeps/phantom").iterdir())) == 1


def test_a_sweep_begins_in_no_other_folder(jobs):
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    assert command_line.main(["train", "-m", "seed=1,2", "run_dir=mine"]) == 1
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_a_sweep_in_which_nothing_is_done_is_a_failure(jobs):
    jobs.outcome = lambda config: {"status": "failed", "reason": "", "score": None, "seconds": 1.0}
    assert command_line.main(["train", "-m", "model.depth=2,3"]) == 1
    assert len(jobs.configs) == 2


def test_sweeps_of_one_second_do_not_collide(jobs):
    for _ in range(2):
        assert command_line.main(["train", "-m", "seed=1,2"]) == 0
    assert len(list(Path("outputs/sweeps/phantom").iterdir())) == 2


def test_a_sweep_is_ranked_by_validation_and_shows_the_test_apart(jobs, capsys):
    def outcome(config):
        leave_split(config, "v", "w")
        depth = config["model"]["depth"]
        return {"status": "done", "reason": "", "score": depth / 10, "test_score": 0.9 - depth / 10, "seconds": 1.0}

    jobs.outcome = outcome
    assert command_line.main(["train", "-m", "model.depth=1,2", "run_dir=sweep"]) == 0
    out = capsys.readouterr().out
    assert "mean Dice over 2 validation cases of phantom; higher is better" in " ".join(out.split())
    assert [row[2:4] for row in rows_of(out)] == [["0.2000", "0.7000"], ["0.1000", "0.8000"]]
    assert "best: job 1, checkpoint=sweep/1" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_sweep_may_hold_null_beside_quoted_paths(jobs):
    assert command_line.main(["train", "-m", "finetune.checkpoint=null,\"run (1)\",'b,c'"]) == 0
    assert [config["finetune"]["checkpoint"] for config in jobs.configs] == [None, "run (1)", "b,c"]


def test_each_job_of_a_sweep_logs_what_it_was_warned_of(jobs, caplog):
    def outcome(config):
        warn("an odd file of the sweep")
        return {"status": "done", "reason": "", "score": 0.5, "seconds": 1.0}

    jobs.outcome = outcome
    assert command_line.main(["train", "-m", "seed=0,1", "run_dir=sweep"]) == 0
    assert caplog.messages.count("an odd file of the sweep") == 2


def trained(config, score, *validated):
    """What a training does: it leaves its split and its result, with a test score unless it is a sweep's job."""
    leave_split(config, *validated)
    is_tested = config["sweep"]["test"] == "all"
    result = {"status": "done", "reason": "", "score": score, "test_score": 0.7 if is_tested else None, "seconds": 1.0}
    path = Path(config["run_dir"]) / "result.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | result))
    return result


@pytest.mark.parametrize(("setting", "tested"), [("best", "-7-"), ("all", "777"), ("none", "---")])
def test_the_test_part_is_for_the_best_by_validation(jobs, capsys, setting, tested):
    jobs.outcome = lambda config: trained(config, 0.5 - abs(config["model"]["depth"] - 2) / 10, "v")
    line = ["train", "-m", "model.depth=1,2,3", f"sweep.test={setting}", "run_dir=sweep"]
    assert command_line.main(line) == 0
    results = [json.loads(Path(f"sweep/{job}/result.json").read_text()) for job in range(3)]
    assert [result["test_score"] for result in results] == [0.7 if mark == "7" else None for mark in tested]
    assert len(jobs.configs) == 3 + (setting == "best")
    assert {config["resume"] for config in jobs.configs[3:]} <= {"sweep/1"}
    assert json.loads(Path("sweep/sweep.json").read_text())["best"] == [1]
    assert command_line.main(line) == 0  # again: all is done
    assert len(jobs.configs) == 3 + (setting == "best")


@pytest.mark.parametrize(
    ("settings", "seeds"),
    [
        (["seed=1,2"], [0, 0]),
        (["seed=3", "model.depth=1,2"], [3, 3]),
        (["seed=1,2", "split.seed=7"], [7, 7]),
        (["split.seed=1,2"], [1, 2]),
        (["seed=1,2", "split.seed=null"], [None, None]),
    ],
)
def test_jobs_share_a_split_unless_the_user_divides_them(jobs, settings, seeds, caplog):
    caplog.set_level("INFO", "medseg")
    assert command_line.main(["train", "-m", *settings]) == 0
    assert [config["split"]["seed"] for config in jobs.configs] == seeds
    assert ("all jobs share the split of split.seed=0" in caplog.text) == (seeds == [0, 0])


def test_a_plain_run_is_divided_by_its_own_seed(jobs):
    assert command_line.main(["train", "seed=3"]) == 0
    assert jobs.configs[0]["split"]["seed"] is None


def test_jobs_of_other_validation_cases_have_no_common_order(jobs, capsys):
    jobs.outcome = lambda config: trained(config, config["model"]["depth"] / 10, f"v{config['split']['seed']}")
    line = ["train", "-m", "model.depth=1,2", "split.seed=0,1", "run_dir=sweep"]
    assert command_line.main([*line]) == 0
    out = capsys.readouterr().out
    assert [row[0] for row in rows_of(out) if row[0]] == ["2", "0", "3", "1"]
    assert out.count("mean Dice over 1 validation case of phantom") == 2
    assert "their scores have no common order" in out
    assert json.loads(Path("sweep/sweep.json").read_text())["best"] == [2, 3]
    assert [config["resume"] for config in jobs.configs[4:]] == ["sweep/2", "sweep/3"]


def test_settings_with_the_same_folds_rank_by_their_mean(jobs, capsys):
    jobs.outcome = lambda config: trained(config, config["model"]["depth"] / 10, f"v{config['split']['fold']}")
    line = ["train", "-m", "model.depth=1,2", "split.folds=2", "split.fold=0,1", "run_dir=sweep"]
    assert command_line.main([*line]) == 0
    out = capsys.readouterr().out
    assert [(row[0], row[2]) for row in rows_of(out) if row[2:]] == [
        ("", "0.2000"),
        ("2", "0.2000"),
        ("3", "0.2000"),
        ("", "0.1000"),
        ("0", "0.1000"),
        ("1", "0.1000"),
    ]
    assert "mean Dice over 2 folds, 2 validation cases of phantom" in " ".join(out.split())
    assert "best: job 2, 3, checkpoint=[sweep/2,sweep/3]" in out
    assert json.loads(Path("sweep/sweep.json").read_text())["best"] == [2, 3]
    assert len(jobs.configs) == 4  # folds are tested together


def test_jobs_that_differ_in_the_seed_alone_rank_by_their_mean(jobs, capsys):
    scores = {(1, 0): 0.2, (1, 1): 0.9, (2, 0): 0.6, (2, 1): 0.7}
    jobs.outcome = lambda config: trained(config, scores[config["model"]["depth"], config["seed"]], "v")
    assert command_line.main(["train", "-m", "model.depth=1,2", "seed=0,1", "run_dir=sweep"]) == 0
    out = capsys.readouterr().out
    rows = [row[:3] for row in rows_of(out) if row[2:]]
    assert [(job, score) for job, _, score in rows] == [
        ("", "0.6500"),
        ("3", "0.7000"),
        ("2", "0.6000"),
        ("", "0.5500"),
        ("1", "0.9000"),
        ("0", "0.2000"),
    ]
    assert "2 seeds, 0.6000 to 0.7000" in " ".join(" ".join(row[1] for row in rows_of(out)).split())
    assert "best: job 3, checkpoint=sweep/3" in out
    assert all(len(line) <= 80 for line in out.splitlines())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["optimizer.lr=interval(1e-4,1e-2)"],
            "the basic sweeper takes no intervals. List the values, as in optimizer.lr=",
        ),
        (["seed=1,2", "seed=3"], "seed: given 2 times (seed=1,2, seed=3), of which"),
        (["model=vnet", "model=unet,vnet"], "model: given 2 times"),
        (
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
            "it is not installed: pip install hydra-joblib-launcher",
        ),
        (["hydra/sweeper=ax"], "it is not installed: pip install hydra-ax-sweeper"),
        (
            ["hydra.launcher.jobs_per_devic=2"],
            "no setting of this launcher. Did you mean 'jobs_per_device'? It has: devices, jobs_per_device.\n",
        ),
        (["hydra.sweeper.parms=2"], "hydra.sweeper.parms: no setting of this sweeper. Did you mean 'params'?"),
        (["hydra/sweeper=optna"], "hydra/sweeper=optna: no such option. Here are: "),
        (["model=unet,unetr,vnet", "model.depth=3"], "unknown key of model=unetr, model=vnet; only model=unet has it"),
        (["loss=ce,dice_ce", "loss.weights.dice=2"], "unknown key of loss=ce; only loss=dice_ce has it"),
    ],
)
def test_what_a_sweep_cannot_do_is_said_without_a_traceback(jobs, settings, message, capsys):
    assert command_line.main(["train", "-m", *settings]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert jobs.configs == []
    assert not Path("outputs").exists()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_sweep_is_started_once(jobs, monkeypatch, capsys, name):
    monkeypatch.setenv(name, "2")
    assert command_line.main(["train", "-m", "seed=1,2"]) == 1
    assert f"{name}=2 says that this process is one of several" in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_all_folds_are_a_sweep(jobs, capsys):
    assert command_line.main(["train", "split.folds=3", "split.fold=all"]) == 0
    assert [config["split"]["fold"] for config in jobs.configs] == [0, 1, 2]
    assert command_line.main(["train", "split.fold=all"]) == 1
    assert "split.fold=all: of how many? Give their number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("saved", "given", "message"),
    [
        ("model._target_=os.system", [], "is not taken from a file"),
        ("hydra.launcher.setup=[x]", [], "is not taken from a file"),
        ("trust=[x.Y]", [], "is not taken from a file"),
        ("+logger@hydra.callbacks.x=csv", [], "is not taken from a file"),
        ("dataset.root='${oc.env:HOME}'", [], "is not taken from a file"),
        ("dataset.root=$\\{oc.env:HOME\\}", [], "is not taken from a file"),
        ("cache_dir=/etc/x", [], "is no cache of medseg's"),
        ("cache_dir='/etc/x','/etc/y'", [], "cache_dir: a sweep over it is not taken from a file"),
        ("dataset.root=/etc/x", [], "dataset.root: '/etc/x' lies elsewhere"),
        ("dataset.layout.root=../x", [], "dataset.root: '../x' lies elsewhere"),
        ("dataset.root='/etc/x','/etc/y'", [], "dataset.root: a sweep over it is not taken from a file"),
        ("dataset.layout.root='/etc/x','/etc/y'", [], "dataset.layout.root: a sweep over it is not taken from a file"),
        (f"seed={'9' * 5000}", [], "cannot be read"),
        ("seed=1,2", ["model.depth=3"], "leave out model.depth=3"),
    ],
)
def test_a_sweep_goes_on_with_what_a_file_may_say(jobs, capsys, saved, given, message):
    Path("s").mkdir()
    Path("s/sweep.json").write_text(json.dumps({"settings": ["-m", "--config-name", "train", saved, "loss=ce,dice"]}))
    assert command_line.main(["train", "resume=s", *given]) == 1
    assert message in capsys.readouterr().err
    assert jobs.configs == []


def test_what_is_not_taken_from_a_file_is_given_again(jobs, tmp_path, capsys):
    again = ["plan.batch_size=${model.depth}", f"cache_dir={tmp_path / 'cache'}"]
    assert command_line.main(["train", "-m", again[0], "model.depth=3,2", again[1], "run_dir=elsewhere"]) == 0
    Path("elsewhere").rename("s")
    for job in (0, 1):
        Path(f"s/{job}/result.json").unlink()
    jobs.configs.clear()
    assert command_line.main(["train", "resume=s", again[0]]) == 1
    assert "is no cache of medseg's. Give it again" in capsys.readouterr().err
    assert command_line.main(["train", "resume=s", *again]) == 0
    assert [config["plan"]["batch_size"] for config in jobs.configs] == [3, 2]
    assert command_line.main(["train", "resume=s", *reversed(again)]) == 0
    settings = json.loads(Path("s/sweep.json").read_text())["settings"]
    assert [text for text in settings if text.startswith("run_dir=")] == ["run_dir='s'"]


def test_a_group_that_is_given_again_lets_none_of_its_keys_pass(jobs, capsys):
    own = ["dataset=phantom", "dataset.root=../elsewhere"]
    assert command_line.main(["train", "-m", *own, "model.depth=3,2", "run_dir=s"]) == 0
    Path("s/0/result.json").unlink()
    jobs.configs.clear()
    assert command_line.main(["train", "resume=s", own[0]]) == 1
    assert "dataset.root: " in capsys.readouterr().err
    assert jobs.configs == []
    assert command_line.main(["train", "resume=s", *own]) == 0
    assert len(jobs.configs) == 1


@pytest.mark.parametrize(
    ("settings", "direction"), [([], "maximize"), (["hydra.sweeper.direction=minimize"], "minimize")]
)
def test_search_maximises_unless_told_otherwise(jobs, settings, direction, monkeypatch):
    """A sweeper that is told a direction, as Optuna's is, stands for all that search."""
    plugins = Plugins.instance()
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # which looking for plugins defines anew

    directions = []

    class Searching(BasicSweeper):
        __module__, __qualname__ = "hydra_plugins.searching", "Searching"  # where alone Hydra takes sweepers from

        def __init__(self, direction):
            super().__init__(max_batch_size=None)
            directions.append(direction)

    module = ModuleType(Searching.__module__)
    module.Searching = Searching
    monkeypatch.setitem(sys.modules, "hydra_plugins", ModuleType("hydra_plugins"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    plugins.register(Searching)
    node = {"_target_": f"{Searching.__module__}.Searching", "direction": "minimize"}
    ConfigStore.instance().store(group="hydra/sweeper", name="searching", node=node)
    assert command_line.main(["train", "-m", "hydra/sweeper=searching", "seed=1,2", *settings]) == 0
    assert directions == [direction]


def test_evaluations_stand_in_the_order_of_the_jobs(jobs, capsys):
    jobs.outcome = lambda config: {"status": "done", "test_score": 0.6 if config["examples"] else 0.5, "seconds": 1.0}
    assert command_line.main(["eval", "-m", "checkpoint=x", "examples=0,1", "run_dir=sweep"]) == 0
    out = capsys.readouterr().out
    assert [row[:4] for row in rows_of(out)] == [
        ["0", "examples=0", "-", "0.5000"],
        ["1", "examples=1", "-", "0.6000"],
    ]
    assert "in the order of the jobs" in " ".join(out.split())
    assert "best:" not in out


def test_what_jobs_ask_of_a_cluster_may_be_read_from_a_record_but_nothing_that_runs():
    assert all(map(is_plain, ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]))
    names = ("setup=[x]", "additional_parameters={wrap: x}", "_target_=x", "partition=${oc.env:HOME}")
    assert not any(is_plain(f"hydra.launcher.{name}") for name in names)


def test_a_sweep_of_one_job_says_so(jobs, caplog):
    told = "no setting has several values"
    assert command_line.main(["train", "-m", "model.depth=2,3"]) == 0
    assert command_line.main(["train", "-m", "loss=dice,ce"]) == 0
    assert told not in caplog.text
    assert command_line.main(["train", "-m", "model.depth=2"]) == 0
    assert told in caplog.text
