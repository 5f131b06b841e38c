"""A training comes out the same in whatever order Lightning is given its callbacks."""

import csv

import pytest
import torch
from lightning.pytorch import Trainer

from medseg.jobs.train import train
from medseg.training import assembly
from medseg.training.callbacks.progress import Progress

TIMES = {"seconds", "step_seconds", "data_share"}


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def contents(node):
    """Return a checkpoint's content for comparison: tensors as lists, without what a clock has measured."""
    if isinstance(node, torch.Tensor):
        return node.tolist()
    if isinstance(node, dict):
        return {key: contents(value) for key, value in node.items() if "seconds" not in str(key)}
    return [contents(each) for each in node] if isinstance(node, list | tuple) else node


@pytest.mark.parametrize(
    "limits",
    [
        ("trainer.max_epochs=4", "trainer.patience=1"),
        ("trainer.max_epochs=null", "trainer.max_time='00:00:00:08'"),  # ends within the third epoch
    ],
)
def test_the_order_of_the_callbacks_makes_no_difference(small, tmp_path, monkeypatch, limits):
    monkeypatch.setattr(Progress, "seconds", property(lambda self: float(self.step)))  # a second a step
    monkeypatch.setattr(Progress, "validated", lambda self, seconds: None)
    runs = [tmp_path / "as it is", tmp_path / "reversed"]
    for run, step in zip(runs, (1, -1), strict=True):

        def make_trainer(*, callbacks, step=step, **options):
            return Trainer(callbacks=callbacks[::step], **options)

        monkeypatch.setattr(assembly, "Trainer", make_trainer)
        train.run(small(2, "trainer.validation_interval=1", "trainer.precision=fp32", *limits) | {"run_dir": str(run)})
    assert rows_of(runs[0]) == rows_of(runs[1])
    assert len(rows_of(runs[0])) >= 2
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (torch.load(run / "checkpoints" / name, weights_only=True) for run in runs)
        assert contents(one) == contents(other)
