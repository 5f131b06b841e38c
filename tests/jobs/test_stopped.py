"""Trainings that a signal stops, or whose clock saves them, within an epoch: they go on as if nothing had been."""

import csv
import json
import logging
import signal

import pytest
import torch
import yaml

from medseg.cli import command_line
from medseg.jobs.train import train
from medseg.system.running.progress_file import ProgressFile
from medseg.system.running.signals import Interrupted, heeded
from medseg.training.callbacks import checkpoints
from medseg.training.data.loader import PatchLoader
from medseg.training.segmentation import SegmentationModule

EPOCHS, BATCHES = 3, 6
SETTINGS = (f"trainer.max_epochs={EPOCHS}", f"trainer.steps_per_epoch={BATCHES}", "trainer.validation_interval=1")
VARIANTS = {
    "averaged": (),
    "accumulated": ("trainer.accumulate=2", "model.norm=batch"),
}
TIMES = {"seconds", "step_seconds", "data_share"}


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def result_of(run):
    return json.loads((run / "result.json").read_text())


def state_of(run, name="last.ckpt"):
    return torch.load(run / "checkpoints" / name, weights_only=True)


def equal(one, other):
    """Whether two checkpoints hold the same, but for what a clock has measured."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return all(equal(one[key], other[key]) for key in one if "seconds" not in str(key) and key != "validated_at")
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    return one == other


def go_on(run):
    saved = yaml.safe_load((run / "config.yaml").read_text())
    return train.run(saved | {"resume": str(run), "run_dir": str(run)})


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def whole(small, tmp_path_factory, request):
    """The config of a training, and the directory in which it has gone through undisturbed."""
    config, run = small(2, *SETTINGS, *request.param), tmp_path_factory.mktemp("whole")
    train.run(config | {"run_dir": str(run)})
    return config, run


@pytest.fixture(autouse=True)
def logged(caplog):
    """The log, as the command line would set it up."""
    caplog.set_level(logging.INFO, "medseg")


@pytest.fixture
def at_call(monkeypatch):
    """``at_call(owner, name, n, do)``: do something at the ``n``-th call of a method, before what it does; but once."""

    def set_up(owner, name, n, do):
        method, calls = getattr(owner, name), []

        def called(*arguments, **options):
            calls.append(1)
            if len(calls) == n:
                do()
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, called)

    return set_up


def asked(*numbers):
    return lambda: [signal.raise_signal(number) for number in numbers]


def killed():
    raise ArithmeticError("killed")


def stop(config, run, match=None):
    with heeded(), pytest.raises(Interrupted, match=match) as stopped:
        train.run(config | {"run_dir": str(run)})
    return stopped.value


def check_same(run, undisturbed):
    assert rows_of(run) == rows_of(undisturbed)
    assert result_of(run)["status"] == "done"
    assert "is_trained" not in result_of(run)
    for what in ("selection", "score", "test_score"):
        assert result_of(run)[what] == result_of(undisturbed)[what]
    assert equal(state_of(run), state_of(undisturbed))
    best, expected = state_of(run, "best.ckpt"), state_of(undisturbed, "best.ckpt")
    # Lightning counts a validation that is made again twice; nothing goes on from the counters in best.ckpt.
    assert equal({**best, "loops": None}, {**expected, "loops": None})


def test_a_signal_ends_a_training_after_the_step_and_it_goes_on_with_the_next(whole, at_call, tmp_path):
    config, undisturbed = whole
    at_call(SegmentationModule, "training_step", 9, asked(signal.SIGTERM))
    stopped = stop(config, tmp_path)
    steps = 5 if config["trainer"]["accumulate"] == 2 else 9
    said = f"interrupted by SIGTERM after step {steps}; to go on: medseg train resume={tmp_path}"
    assert (str(stopped), stopped.number) == (said, signal.SIGTERM)
    assert (result_of(tmp_path)["status"], result_of(tmp_path)["reason"]) == ("interrupted", said)
    assert (tmp_path / "train.log").read_text().splitlines()[-1].endswith(said)
    assert (state_of(tmp_path)["global_step"], len(rows_of(tmp_path))) == (steps, 1)
    at_call(SegmentationModule, "training_step", 2, asked(signal.SIGUSR1))  # in the same epoch again
    with pytest.raises(Interrupted, match="SIGUSR1"):
        go_on(tmp_path)
    go_on(tmp_path)
    check_same(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("method", "call", "epochs"),
    [
        ("validation_step", 3, 1),  # the second case of the second epoch
        ("training_step", 12, 1),  # the last batch of the second epoch, which is validated
        ("on_validation_epoch_end", 2, 2),
    ],
)
def test_a_signal_ends_a_validation_which_is_made_again(whole, method, call, epochs, at_call, tmp_path):
    config, undisturbed = whole
    assert len(json.loads((undisturbed / "splits.json").read_text())["val"]) == 2
    at_call(SegmentationModule, method, call, asked(signal.SIGINT))
    stop(config, tmp_path, "Ctrl-C")
    rows, result = rows_of(tmp_path), result_of(tmp_path)
    assert len(rows) == epochs
    if method == "validation_step":  # one epoch is validated, whose weights are the best so far
        assert (result["score"], result["is_trained"]) == (pytest.approx(float(rows[0]["val_dice"]), abs=1e-4), False)
    go_on(tmp_path)
    check_same(tmp_path, undisturbed)


def test_a_signal_at_the_end_of_an_epoch_that_is_not_validated(small, at_call, tmp_path):
    config = small(2, *SETTINGS, "trainer.validation_interval=3", "split.test=0")
    train.run(config | {"run_dir": str(tmp_path / "whole")})
    at_call(SegmentationModule, "training_step", BATCHES, asked(signal.SIGTERM))
    stop(config, tmp_path / "stopped", f"after step {BATCHES}")
    go_on(tmp_path / "stopped")
    check_same(tmp_path / "stopped", tmp_path / "whole")


def test_a_state_within_an_epoch_is_saved_by_the_clock(whole, at_call, monkeypatch, tmp_path):
    config, undisturbed = whole
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "INTERVAL", 0.0)
        patch.setattr(checkpoints.CheckpointFiles, "is_writing", False)
        at_call(SegmentationModule, "training_step", 5, killed)
        with pytest.raises(ArithmeticError):
            train.run(config | {"run_dir": str(tmp_path)})
    assert state_of(tmp_path)["global_step"] == (2 if config["trainer"]["accumulate"] == 2 else 4)
    assert not (tmp_path / "metrics.csv").exists()
    go_on(tmp_path)
    check_same(tmp_path, undisturbed)


def test_a_further_ctrl_c_ends_a_training_at_once(small, at_call, tmp_path):
    at_call(SegmentationModule, "training_step", 9, asked(signal.SIGTERM, signal.SIGTERM, signal.SIGINT))
    stop(small(2, *SETTINGS), tmp_path)
    assert state_of(tmp_path)["global_step"] == BATCHES, "the end of the first epoch"


def test_before_the_first_step_a_signal_ends_a_training_that_can_be_begun_again(small, at_call, tmp_path):
    config = small(2, *SETTINGS)
    at_call(PatchLoader, "__iter__", 1, asked(signal.SIGTERM))
    stop(config, tmp_path, f"before a state was saved; the same command with run_dir={tmp_path} begins it again")
    assert result_of(tmp_path)["status"] == "interrupted"
    assert train.run(config | {"run_dir": str(tmp_path)})["status"] == "done"


def test_a_test_that_a_signal_ends_is_made_when_the_run_is_resumed(small, at_call, tmp_path):
    at_call(train, "evaluate_cases", 1, asked(signal.SIGUSR1))
    stop(small(2, *SETTINGS), tmp_path, f"SIGUSR1; to go on: medseg train resume={tmp_path}")
    result = go_on(tmp_path)
    assert (result["status"], result["reason"]) == ("done", "max_epochs reached")
    assert (tmp_path / "test" / "metrics.json").is_file()


def test_a_training_tells_where_it_is(small, monkeypatch, tmp_path):
    told, written = [], []
    monkeypatch.setattr(ProgressFile, "is_due", lambda self, state: True)
    for owner, name in ((SegmentationModule, "validation_step"), (train, "evaluate_cases")):
        method = getattr(owner, name)

        def called(*arguments, method=method, **options):
            told.append(json.loads((tmp_path / "progress.json").read_text()))
            if (tmp_path / "result.json").is_file():
                written.append((result_of(tmp_path)["status"], result_of(tmp_path)["reason"]))
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, called)
    train.run(small(2, *SETTINGS) | {"run_dir": str(tmp_path)})
    *training, testing = told
    [(status, reason)] = written
    assert (status, reason) == ("testing", "max_epochs reached")
    assert [each["epoch"] for each in training] == [1, 1, 2, 2, 3, 3]
    assert [each["score"] is None for each in training] == [True] * 2 + [False] * 4
    assert training[-1]["seconds_left"] is not None
    selection = result_of(tmp_path)["selection"]
    assert (testing["state"], testing["epoch"], testing["epochs"], testing["device"]) == ("testing", 3, 3, "cpu")
    assert (round(testing["score"], 6), round(testing["best"], 6)) == tuple(
        selection[each]["dice"] for each in ("last", "best")
    )
    assert not (tmp_path / "progress.json").exists()


def test_an_epoch_that_is_under_way_keeps_its_length(small, at_call, tmp_path, capsys):
    at_call(SegmentationModule, "training_step", 3, asked(signal.SIGTERM))
    stop(small(2, *SETTINGS), tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    assert command_line.main(["train", f"resume={tmp_path}", "trainer.steps_per_epoch=4"]) == 1
    assert "stopped within an epoch of 6 batches" in capsys.readouterr().err
    assert (tmp_path / "result.json").read_bytes() == before
