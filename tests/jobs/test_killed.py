"""A run that is killed in mid-epoch: nothing is half-written, and resumed it ends like an undisturbed one."""

import csv
import json
import signal
import subprocess
import sys

import torch
import yaml
from leftovers import leftovers

from medseg.jobs.train import train

EPOCHS, EPOCH_STEPS, KILLED_AT = 6, 5, 17

KILLED = f"""
import os, signal
from medseg.cli.command_line import main
from medseg.training.segmentation import SegmentationModule

training_step = SegmentationModule.training_step

def training_step_or_death(self, *arguments):
    if self.global_step == {KILLED_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
    return training_step(self, *arguments)

SegmentationModule.training_step = training_step_or_death
main()
"""
"""``medseg``, which kills itself in the middle of the fourth epoch."""


def rows_of(run_dir):
    path = run_dir / "metrics.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def train_until_killed(config, folder):
    """Run ``medseg train`` on a saved config as a process of its own, which is killed; return its exit status."""
    (folder / "given").mkdir()
    (folder / "given" / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config-path", str(folder / "given"), "--config-name", "config"]
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.run.dir=."]
    return subprocess.run([sys.executable, "-c", KILLED, *arguments, *quiet], capture_output=True).returncode


def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(small, tmp_path):
    steps = f"trainer.steps_per_epoch={EPOCH_STEPS}"
    overrides = (f"trainer.max_epochs={EPOCHS}", steps, "trainer.validation_interval=2")
    whole, killed = (small(2, *overrides) | {"run_dir": str(tmp_path / name)} for name in ("whole", "killed"))
    train.run(whole)

    run_dir = tmp_path / "killed"
    assert train_until_killed(killed, tmp_path) == -signal.SIGKILL
    torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)  # whole, whenever it was killed
    assert len(rows_of(run_dir)) == KILLED_AT // EPOCH_STEPS
    (run_dir / "checkpoints" / ".01234567-last.ckpt").write_bytes(b"half")
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    train.run(saved | {"resume": str(run_dir), "run_dir": str(run_dir)})

    assert not leftovers(run_dir)
    assert [int(row["epoch"]) for row in rows_of(run_dir)] == list(range(1, EPOCHS + 1))
    assert json.loads((run_dir / "result.json").read_text())["status"] == "done"
    # Steps, patches, draws and averages are numbered, so that even the digits are the same.
    last, undisturbed = (rows_of(tmp_path / name)[-1] for name in ("killed", "whole"))
    assert last["val_dice"] == undisturbed["val_dice"]
    assert last["train_loss"] == undisturbed["train_loss"]
