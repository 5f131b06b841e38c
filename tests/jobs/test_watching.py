"""What a training on the phantom shows while it goes on: on a terminal and in TensorBoard."""

import csv
import io
import json
import logging
import re
from itertools import pairwise

import pytest
import yaml
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.logging import RichHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medseg.jobs.train import train
from medseg.training.callbacks import display
from medseg.training.callbacks.epoch_log import log
from medseg.training.images import SIDE


def events_of(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    return events.Reload()


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_tensorboard_and_table_tell_the_same(trained):
    events, rows = events_of(trained), rows_of(trained)
    columns = {
        "train/loss": "train_loss",
        "train/lr": "lr",
        "train/grad_norm": "grad_norm",
        "train/step_seconds": "step_seconds",
        "train/data_share": "data_share",
        "val/dice": "val_dice",
        "val/dice_smoothed": "val_dice_smoothed",
        "val/dice_core": "val_dice_core",
    }
    for tag, column in columns.items():
        told = [event.value for event in events.Scalars(tag)]
        assert told == pytest.approx([float(row[column]) for row in rows], rel=1e-6, nan_ok=True), tag
    chosen = json.loads((trained / "result.json").read_text())
    assert events.Scalars("best/val_dice")[-1].value == pytest.approx(chosen["selection"]["best"]["dice"], abs=1e-6)
    assert events.Scalars("best/test_dice")[-1].value == pytest.approx(chosen["test_score"], rel=1e-6)


def test_an_epoch_s_steps_are_measured(trained):
    for row in rows_of(trained):
        assert float(row["grad_norm"]) > 0
        assert 0 < float(row["data_share"]) < 1
        assert 0 < 3 * float(row["step_seconds"]) <= float(row["seconds"]) + 0.1


def test_the_same_cases_are_drawn_at_every_validation_and_the_worst(trained):
    events, names = events_of(trained), json.loads((trained / "splits.json").read_text())["val"]
    assert events.Tags()["images"] == [*(f"cases/{name}" for name in names), "worst case"]
    pictures = {tag: [event.encoded_image_string for event in events.Images(tag)] for tag in events.Tags()["images"]}
    for tag, drawn in pictures.items():
        assert [event.step for event in events.Images(tag)] == [3, 6]
        assert all(max(Image.open(io.BytesIO(each)).size) < 4 * SIDE for each in drawn)
    told = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("worst case/text_summary")]
    for place, (line, row) in enumerate(zip(told, rows_of(trained), strict=True)):
        name, score, epoch = re.fullmatch(r"(.*): Dice (.*) \(epoch (.*)\)", line).groups()
        assert name in names
        assert float(score) <= float(row["val_dice"]) + 1e-4
        assert epoch == row["epoch"]
        assert pictures["worst case"][place] == pictures[f"cases/{name}"][place]


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns that somebody looks at, drawn at every step."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=30, _environ={"TERM": "xterm"})
    monkeypatch.setattr(train, "interactive_terminal", lambda: console)
    monkeypatch.setattr(display, "EVERY", 0.0)
    return console


def screens(console):
    """The states of the display one after the other, each a list of lines."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", console.file.getvalue().replace("\x1b[2K", "\n"))
    lines = [line for line in plain.split("\n") if line]
    first_lines = ("training ━", "training ╸", "validating, ")
    starts = [place for place, line in enumerate(lines) if line.startswith(first_lines)]
    return [lines[first:last] for first, last in pairwise([*starts, len(lines)])]


def test_the_display_tells_where_a_training_is(small, terminal, tmp_path):
    train.run(small(2, "trainer.validation_interval=2", "logger=none") | {"run_dir": str(tmp_path)})
    first, *between, last = screens(terminal)
    assert first[1].startswith("epoch 1 of 2 · step 0 of 6")
    assert "no validation yet" in first
    assert any(screen[0].startswith("validating, 1 of 2") for screen in between)
    row = rows_of(tmp_path)[-1]
    assert "100%" in last[0]
    assert last[1].startswith("epoch 2 of 2 · step 6 of 6")
    assert (
        f"loss {float(row['train_loss']):.4f} (epoch before: {float(rows_of(tmp_path)[0]['train_loss']):.4f})"
        in last[3]
    )
    assert last[4].startswith(f"validation Dice {float(row['val_dice']):.4f} (epoch 2)")
    assert last[5] == f"edema {float(row['val_dice_edema']):.4f} · core {float(row['val_dice_core']):.4f} · " + (
        f"enhancing {float(row['val_dice_enhancing']):.4f}"
    )
    assert all(cell_len(line) <= 80 for screen in [first, *between, last] for line in screen)


def test_the_log_s_epochs_are_for_the_file_while_the_display_stands_for_them(small, terminal, tmp_path):
    stream = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(stream)
    try:
        logging.getLogger("medseg").setLevel(logging.INFO)
        train.run(small(2, "logger=none") | {"run_dir": str(tmp_path)})
        log.info("epochs are told again")
    finally:
        logging.getLogger().removeHandler(stream)
        logging.getLogger("medseg").setLevel(logging.NOTSET)
    told = stream.stream.getvalue()
    assert "epoch 1 ·" not in told
    assert "best.ckpt" in told
    assert "epochs are told again" in told
    assert "epoch 1 · step 3" in (tmp_path / "train.log").read_text()


def test_a_training_that_breaks_down_gives_the_terminal_back(small, terminal, tmp_path, monkeypatch):
    from medseg.training.segmentation import SegmentationModule

    def fails(self, batch, batch_idx):
        raise ValueError("broken")

    monkeypatch.setattr(SegmentationModule, "validation_step", fails)
    handlers = {handler: list(handler.filters) for handler in logging.getLogger().handlers}
    with pytest.raises(ValueError, match="broken"):
        train.run(small(2, "logger=none") | {"run_dir": str(tmp_path)})
    assert terminal.file.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown
    assert {handler: list(handler.filters) for handler in logging.getLogger().handlers} == handlers


def test_a_resumed_run_goes_on_where_its_display_and_pictures_were(small, terminal, tmp_path):
    train.run(small(2) | {"run_dir": str(tmp_path)})
    score = rows_of(tmp_path)[-1]["val_dice"]
    terminal.file = io.StringIO()
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    saved["trainer"] |= {"max_epochs": 4, "validation_interval": 4}
    train.run(saved | {"resume": str(tmp_path), "run_dir": str(tmp_path)})
    first, *_, last = screens(terminal)
    assert first[1].startswith("epoch 3 of 4 · step 6 of 12")
    assert first[4].startswith(f"validation Dice {float(score):.4f} (epoch 2)")
    assert last[4].startswith(f"validation Dice {float(rows_of(tmp_path)[-1]['val_dice']):.4f} (epoch 4)")
    events = events_of(tmp_path)
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [3, 6, 12]


def test_with_a_time_limit_the_display_counts_down(small, terminal, tmp_path, clock):
    limit = ("trainer.max_time='00:00:00:03'", "trainer.max_epochs=null", "logger=none")
    train.run(small(2, *limit) | {"run_dir": str(tmp_path)})
    first, *_, last = screens(terminal)
    assert "0:00:02 left" in first[0]
    assert first[1].startswith("epoch 1 · step 0 · 0:00:00 of 0:00:03")
    assert "100%" in last[0]


def test_a_line_of_the_log_stands_above_the_display(small, terminal, tmp_path, monkeypatch):
    from medseg.training.segmentation import SegmentationModule

    begin = SegmentationModule.on_validation_epoch_start

    def warns(self):
        logging.getLogger("medseg.training").warning("something happened")
        begin(self)

    monkeypatch.setattr(SegmentationModule, "on_validation_epoch_start", warns)
    handler = RichHandler(console=terminal, show_path=False, show_level=False, show_time=False)
    logging.getLogger().addHandler(handler)
    try:
        train.run(small(2, "trainer.max_epochs=1", "logger=none") | {"run_dir": str(tmp_path)})
    finally:
        logging.getLogger().removeHandler(handler)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", terminal.file.getvalue().replace("\x1b[2K", "\n"))
    assert re.search(r"\nsomething happened *\ntraining ━.*\nepoch 1 of 1", plain)  # on a line of its own


def test_a_run_of_an_earlier_version_goes_on(small, tmp_path):
    train.run(small(2, "logger=none") | {"run_dir": str(tmp_path)})
    kept = ("epoch", "step", "seconds", "lr", "train_loss", "val_dice", "val_dice_smoothed")
    old = [{name: row[name] for name in kept} for row in rows_of(tmp_path)]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, kept)
        writer.writeheader()
        writer.writerows(old)
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    saved["trainer"]["max_epochs"] = 3
    train.run(saved | {"resume": str(tmp_path), "run_dir": str(tmp_path)})
    rows = rows_of(tmp_path)
    assert [bool(row["grad_norm"]) for row in rows] == [False, False, True]
    assert [row["train_loss"] for row in rows[:2]] == [row["train_loss"] for row in old]
