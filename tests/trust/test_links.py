"""Links in exchanged runs, sweeps and folders of masks: nothing is written, emptied or appended to where they lead."""

import json
import os
import shutil

import pytest
import torch
from small_run import PREDICT, TRAIN

from medseg.cli import command_line

RESUME = ("train", "resume=run", "trainer.max_epochs=2")
EVAL = ("eval", "checkpoint=run", "device=cpu", "run_dir=evaluation")
TUNE = ("eval", "tune=postprocess", "checkpoint=run", "device=cpu", "run_dir=tuning", "dataset=phantom")
SWEEP = ("train", "-m", *TRAIN[1:], "loss=dice_ce,ce", "run_dir=sweep")


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "work")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious.txt").write_text("precious")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def refused(place, capsys, *arguments, saying):
    """Run a command line that must end with one message, and leave everything outside as it was."""
    outside = place.parent / "outside"
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert command_line.main(list(arguments)) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("medseg: ") == 1
    assert saying in said, said
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("command", "name"),
    [(RESUME, "run/.lock"), (RESUME, "run/train.log"), (EVAL, "evaluation/.lock"), (SWEEP, "sweep/.lock")],
)
def test_a_log_or_a_lock_that_is_a_link_is_not_followed(place, capsys, command, name):
    path = place / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(place.parent / "outside" / "precious.txt")
    refused(place, capsys, *command, saying=f"{path.name} cannot be written" if path.name == ".lock" else "a link")


def test_a_pipe_in_the_place_of_a_log_is_not_waited_for(place, capsys):
    (place / "run" / "train.log").unlink()
    os.mkfifo(place / "run" / "train.log")
    refused(place, capsys, *RESUME, saying="train.log")


@pytest.mark.parametrize("name", ["checkpoints", "test"])
def test_a_run_is_not_resumed_into_other_folders(place, capsys, name):
    (place / "run" / name).rename(place.parent / "outside" / name)
    (place / "run" / name).symlink_to(place.parent / "outside" / name)
    refused(place, capsys, *RESUME, saying=f"run/{name} leads to")


def test_a_link_within_a_run_is_followed(place):
    (place / "run" / "test").rename(place / "run" / "report")
    (place / "run" / "test").symlink_to("report")
    assert command_line.main(list(RESUME)) == 0


@pytest.mark.parametrize("name", ["overlays", ".predictions-1"])
def test_an_evaluation_that_was_broken_off_is_not_repeated_into_other_folders(place, capsys, name):
    (place / "evaluation").mkdir()
    (place / "evaluation" / "config.yaml").write_text("command: eval\n")
    (place / "evaluation" / name).symlink_to(place.parent / "outside")
    refused(place, capsys, *EVAL, saying=f"evaluation/{name} leads to")


def test_a_sweep_does_not_go_on_in_other_folders(place, capsys):
    (place / "sweep").mkdir()
    (place / "sweep" / "sweep.json").write_text(json.dumps({"settings": []}))
    (place / "sweep" / "0").symlink_to(place.parent / "outside")
    refused(place, capsys, *SWEEP, saying="sweep/0 leads to")


@pytest.mark.parametrize("name", [".medseg", "to_correct", "case_000_probabilities"])
def test_masks_are_not_written_into_other_folders(place, capsys, name):
    (place / "masks").mkdir()
    (place / "masks" / name).symlink_to(place.parent / "outside")
    refused(place, capsys, *PREDICT, "worst=1", "save_probabilities=true", saying=f"masks/{name} leads to")


@pytest.mark.parametrize("command", [TUNE, ("eval", "tune=undo", "checkpoint=run")])
def test_tuning_writes_no_checkpoint_that_a_run_only_links_to(place, capsys, command):
    best, other = place / "run" / "checkpoints" / "best.ckpt", place.parent / "outside" / "best.ckpt"
    best.rename(other)
    best.symlink_to(other)
    refused(place, capsys, *command, saying="a link in this directory leads to")


def test_what_a_checkpoint_had_before_tuning_is_checked(place, capsys):
    path = place / "run" / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    for tuned in (
        "x",
        {"before": {"model": {"_target_": "os.mkdir"}}},
        {"before": {"inference": 3, "postprocess": {}}},
    ):
        torch.save({**content, "medseg": {**content["medseg"], "tuned": tuned}}, path)
        refused(place, capsys, "eval", "tune=undo", "checkpoint=run", saying="tuned")
