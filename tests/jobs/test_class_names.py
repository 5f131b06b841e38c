"""Classes that are called like something else: scores stay apart in the table, in TensorBoard and in the report."""

import csv
import logging

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medseg.jobs.train import train

NAMES = ["smoothed", "smoothed_2", "mean", "loss", "epoch", "a/b", "a b", "a_b"]


@pytest.fixture
def run(composed, tmp_path, caplog):
    """A training of three epochs on pictures in which every class is a stripe."""
    for number in range(8):
        mask = np.repeat(np.arange(32, dtype=np.uint8) // 3, 32).reshape(32, 32)
        mask[mask > len(NAMES)] = 0
        image = mask * 20 + np.random.default_rng(number).integers(0, 8, mask.shape)
        for folder, pixels in (("images", image), ("masks", np.roll(mask, number, 1))):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / folder / f"c{number}.png")
    options = ("model.depth=2", "model.base_channels=4", "trainer.max_epochs=4", "trainer.steps_per_epoch=8")
    options += ("trainer.accelerator=cpu", "trainer.precision=fp32", "dataset=folder", "dataset.modality=microscopy")
    config = composed("train", *options, "optimizer.lr=0.01", "trainer.validation_interval=1")
    config["dataset"] |= {
        "root": str(tmp_path / "data"),
        "labels": {"background": 0} | {name: value for value, name in enumerate(NAMES, 1)},
    }
    caplog.set_level(logging.INFO)  # as the command line does
    train.run(config | {"run_dir": str(tmp_path / "run"), "cache_dir": str(tmp_path / "cache")})
    return tmp_path / "run"


def test_no_class_takes_the_place_of_another_score(run):
    with (run / "metrics.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert len(set(header)) == len(header)
    columns = dict(zip(header, np.array(rows, float).T, strict=True))
    assert columns["epoch"].tolist() == [1, 2, 3, 4]
    classes = [name for name in header if name.startswith("val_dice") and name not in ("val_dice", "val_dice_smoothed")]
    assert len(classes) == len(NAMES)
    np.testing.assert_allclose(columns["val_dice"], np.mean([columns[name] for name in classes], 0), rtol=1e-5)
    running = [columns["val_dice"][max(0, last - 2) : last + 1].mean() for last in range(4)]
    np.testing.assert_allclose(columns["val_dice_smoothed"], running, rtol=1e-5)
    assert len({tuple(columns[name]) for name in classes}) > 2  # scores that differ, or nothing is seen by this

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    for column in ("val_dice", "val_dice_smoothed", *classes):
        tag = "val/" + column.removeprefix("val_")
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(columns[column], rel=1e-5), tag

    line = next(line for line in (run / "train.log").read_text().splitlines() if "epoch 4 ·" in line)
    told = line.partition("validation Dice ")[2].partition(": ")[2].split(" · ")[0]
    assert told == ", ".join(f"{name} {columns[column][-1]:.4f}" for name, column in zip(NAMES, classes, strict=True))
