"""Runs that are resumed: what was found good is written down, and nothing before; what has ended is only tested."""

import csv
import json
import shutil

import pytest
import torch
import yaml

from medseg.cli import command_line
from medseg.cli.job import BUG
from medseg.jobs.train import pretrain
from medseg.sweeps.record import validated
from medseg.training.callbacks.progress import drawn_cases
from medseg.training.segmentation import SegmentationModule
from medseg.training.trackers import TensorBoard

FAST = [
    *("dataset.dims=2", "dataset.cases=10", "dataset.size=48", "trainer.max_time=null", "trainer.max_epochs=2"),
    *("trainer.steps_per_epoch=1", "trainer.accelerator=cpu", "model.base_channels=4", "model.depth=2"),
    *("plan.batch_size=2", "logger=tensorboard"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs that has come to its end."""
    folder = tmp_path_factory.mktemp("finished")
    data = [f"dataset.root={folder / 'phantom'}", f"cache_dir={folder / 'cache'}"]
    assert command_line.main(["train", f"run_dir={folder / 'run'}", *FAST, *data]) == 0
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of the finished run, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def epochs(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def change_last_checkpoint(run, change):
    """Rewrite the checkpoint to resume from after ``change`` has been applied to it."""
    path = run / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["+optimizer.foo=1"], "unexpected keyword argument 'foo'"),
        (["++model.depth=3"], "model.depth cannot change"),
        (["plan.patch_size=[512,512]"], "plan.patch_size cannot change"),
        (["loss.ce.class_weights=[1,2,3]"], "class_weights"),
        (["trainer.accelerator=gpu", "trainer.devices=99"], ""),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0"),
    ],
)
def test_settings_that_are_refused_change_nothing_of_the_run(run, settings, says, capsys):
    before = contents(run)
    more = [] if "trainer.max_epochs=0" in settings else ["trainer.max_epochs=3"]
    assert command_line.main(["train", "resume=run", *more, *settings]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert contents(run) == before
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=3"]) == 0
    assert epochs(run) == [1, 2, 3]


def test_weights_that_do_not_fit_are_one_message_and_change_nothing(run, capsys):
    change_last_checkpoint(run, lambda state: state["state_dict"].pop("network.encoder.0.0.0.weight"))
    before = contents(run)
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=3"]) == 1
    error = capsys.readouterr().err
    assert "last.ckpt does not fit these settings" in error
    assert "Traceback" not in error
    assert contents(run) == before


def test_a_failure_in_the_first_step_changes_nothing(run, monkeypatch):
    from medseg.training.segmentation import SegmentationModule

    def fail(self, batch, step, first):
        raise ArithmeticError

    before = contents(run)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "loss_of", fail)
        assert command_line.main(["train", "resume=run", "trainer.max_epochs=3"]) == BUG
    assert contents(run) == before


@pytest.mark.parametrize("settings", [[], ["trainer.max_epochs=1"], ["trainer.max_epochs=2", "optimizer.lr=1"]])
def test_a_run_at_its_end_goes_straight_to_its_test(run, settings, monkeypatch):
    shutil.rmtree(run / "test")
    (run / "result.json").unlink()
    kept = {name: (run / name).read_bytes() for name in ("config.yaml", "metrics.csv", "checkpoints/last.ckpt")}
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", None)
    assert command_line.main(["train", "resume=run", *settings]) == 0
    assert {name: (run / name).read_bytes() for name in kept} == kept
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("done", "max_epochs reached")
    assert result["test_score"] == json.loads((run / "test" / "metrics.json").read_text())["mean"]["dice"]
    assert result["selection"]["last"]["epoch"] == 2


@pytest.mark.parametrize(
    ("setting", "ended", "reason"),
    [
        ("trainer.max_time='00:00:00:10'", {"seconds": 11.0}, "max_time reached"),
        ("trainer.max_time='00:00:00:10'", {"seconds": 8.0, "time_is_up_within": 10}, "max_time reached"),
        ("trainer.max_time='00:00:10:00'", {"seconds": 8.0, "time_is_up_within": 10}, None),
    ],
)
def test_a_time_limit_that_is_used_up_leaves_nothing_to_train(run, setting, ended, reason):
    change_last_checkpoint(run, lambda state: state["callbacks"]["Budget"].update(ended))
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=3", setting]) == 0
    assert epochs(run) == ([1, 2] if reason else [1, 2, 3])
    assert json.loads((run / "result.json").read_text())["reason"] == (reason or "max_epochs reached")


@pytest.mark.parametrize(("patience", "last"), [(1, 2), (5, 3)])
def test_patience_that_has_run_out_leaves_nothing_to_train_unless_it_is_raised(run, patience, last):
    def stopped(state):
        name = "EarlyStopping{'monitor': 'val/dice_smoothed', 'mode': 'max'}"
        state["callbacks"][name] = {
            "wait_count": 1,
            "stopped_epoch": 2,
            "best_score": torch.tensor(2.0),
            "patience": 1,
        }

    change_last_checkpoint(run, stopped)
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=3", f"trainer.patience={patience}"]) == 0
    assert epochs(run) == [1, 2, 3][:last]
    reason = json.loads((run / "result.json").read_text())["reason"]
    assert reason == ("no further gain" if last == 2 else "max_epochs reached")


def test_new_options_of_the_optimizer_count_in_a_resumed_run(run):
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=3", "optimizer.weight_decay=0.5"]) == 0
    [optimizer] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
    assert [group["weight_decay"] for group in optimizer["param_groups"]] == [0.5, 0.5]  # of the head, and of the rest


def test_a_run_with_a_single_logger_goes_on_with_it_by_name(run):
    """As ``config.yaml`` had it before there could be several."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["logger"] = {
        "_target_": "lightning.pytorch.loggers.TensorBoardLogger",
        "save_dir": "${run_dir}/tensorboard",
        "name": "",
        "version": "",
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    before = len([*(run / "tensorboard").glob("events*")])
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=3"]) == 0
    logger = yaml.safe_load((run / "config.yaml").read_text())["logger"]
    assert logger["tensorboard"]["_target_"] == "medseg.training.trackers.TensorBoard"
    assert len([*(run / "tensorboard").glob("events*")]) > before


def test_a_tracker_that_fails_ends_no_training(run, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "log_metrics", full)
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=4"]) == 0
    assert epochs(run) == [1, 2, 3, 4]
    assert (run / "train.log").read_text().count("logger=tensorboard failed: [Errno 28] No space left on device") == 1


def test_a_run_whose_width_was_chosen_by_measured_speed_goes_on(run):
    plan = json.loads((run / "plan.json").read_text())
    plan["measured"]["step_seconds"] = {"8": 0.01, "16": 0.02}
    (run / "plan.json").write_text(json.dumps(plan))
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=3"]) == 0
    assert epochs(run) == [1, 2, 3]


def test_what_a_sweep_noted_in_a_result_stays_and_seconds_add_up(run):
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"overrides": ["loss=ce"], "seconds": 1000.0}))
    assert command_line.main(["train", "resume=run"]) == 0
    resumed = json.loads((run / "result.json").read_text())
    assert resumed["overrides"] == ["loss=ce"]
    assert resumed["seconds"] > 1000


def test_the_log_of_a_resumed_run_begins_with_what_was_said_before_its_first_step(run):
    before = (run / "train.log").read_text()
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=3"]) == 0
    added = (run / "train.log").read_text().removeprefix(before)
    assert added.index("10 cases") < added.index("training on") < added.index("epoch 3")
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 3


def test_a_pretraining_at_its_end_is_left_as_it_is(composed, workplace, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = composed("pretrain", *(setting for setting in FAST if not setting.startswith("logger")))
    config |= {"run_dir": "run", "cache_dir": str(workplace / "cache")}
    config["dataset"]["root"] = str(workplace / "phantom")
    first = pretrain.run(config)
    saved = (tmp_path / "run" / "config.yaml").read_bytes()
    before = contents(tmp_path / "run")
    assert command_line.main(["pretrain", "resume=run", "trainer.max_epochs=3", "+optimizer.foo=1"]) == 1
    assert contents(tmp_path / "run") == before
    assert command_line.main(["pretrain", "resume=run", "trainer.max_epochs=1"]) == 0
    assert (tmp_path / "run" / "config.yaml").read_bytes() == saved
    again = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (again["status"], again["score"], again["reason"]) == ("done", first["score"], "max_epochs reached")
    assert epochs(tmp_path / "run") == [1, 2]


def test_an_interrupted_run_says_once_how_to_go_on(run, monkeypatch, capsys, caplog):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("medseg.jobs.train.train.test", interrupt)
    assert command_line.main(["train", "resume=run"]) == 130
    said = "interrupted; to go on: medseg train resume=run"
    assert (run / "train.log").read_text().count(said) == 1
    assert capsys.readouterr().err.count(said) + caplog.text.count(said) == 1
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("interrupted", said)


def test_an_interrupted_job_leaves_it_to_its_sweep_to_say_how_to_go_on(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("medseg.jobs.train.train.test", interrupt)
    (run.parent / "sweep.json").write_text(json.dumps({"settings": ["seed=0,1"], "has_ended": False}))
    assert command_line.main(["train", "resume=run", "sweep.test=all"]) == 130
    assert "to go on" not in (run / "train.log").read_text()


def test_a_part_of_the_cases_validates_and_is_named_also_in_a_resumed_run(finished, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    data = [f"dataset.root={finished.parent / 'phantom'}", f"cache_dir={finished.parent / 'cache'}"]
    options = [*FAST, *data, "split.val=0.4", "logger=none"]
    taken = []
    measure = SegmentationModule.measure
    monkeypatch.setattr(
        SegmentationModule, "measure", lambda self, *rest: taken.append(rest[1]["index"]) or measure(self, *rest)
    )
    assert command_line.main(["train", "run_dir=run", *options, "trainer.validation_cases=2"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    validation = json.loads((tmp_path / "run" / "splits.json").read_text())["val"]
    assert result["validated_on"] == [validation[index] for index in drawn_cases(4, 2)]
    assert result["selection"]["cases"] == "2 of 4"
    assert set(taken) == {*drawn_cases(4, 2)}
    assert "validation on 2 of 4 cases" in (tmp_path / "run" / "train.log").read_text()
    assert "cases 2 of 4" in (tmp_path / "run" / "test" / "report.html").read_text()
    assert validated(tmp_path / "run", result)["n_cases"] == 2
    whole = {name: value for name, value in result.items() if name != "validated_on"}
    assert validated(tmp_path / "run", whole)["cases"] != validated(tmp_path / "run", result)["cases"]

    for epochs_now in (2, 3):  # nothing is left to train; one more epoch, on the cases of before
        change = ["trainer.validation_cases=3", f"trainer.max_epochs={epochs_now}"]
        assert command_line.main(["train", "resume=run", *change]) == 0
        resumed = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (resumed["validated_on"], resumed["selection"]["cases"]) == (result["validated_on"], "2 of 4")
