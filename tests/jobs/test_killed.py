"""A run that is killed in mid-epoch: nothing is half-written, and resumed it ends like an undisturbed one."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import torch
import yaml

from medseg.io.atomic import leftovers
from medseg.jobs import train

EPOCHS = 12
DEADLINE = 120  # seconds to the third epoch


def rows_of(run_dir):
    path = run_dir / "metrics.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def start(config, folder):
    """Run ``medseg train`` on a saved config as a process of its own."""
    (folder / "given").mkdir()
    (folder / "given" / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config-path", str(folder / "given"), "--config-name", "config"]
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.run.dir=."]
    command = [sys.executable, "-m", "medseg", *arguments, *quiet]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_epochs(run_dir, number, process):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end and process.poll() is None:
        if (run_dir / "metrics.csv").is_file() and len(rows_of(run_dir)) >= number:
            return
        time.sleep(0.01)
    raise AssertionError(f"no epoch {number}: exit status {process.poll()}")


def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(small, tmp_path):
    overrides = (f"trainer.max_epochs={EPOCHS}", "trainer.steps_per_epoch=5", "trainer.validation_interval=4")
    whole, killed = (small(2, *overrides) | {"run_dir": str(tmp_path / name)} for name in ("whole", "killed"))
    train.run(whole)

    run_dir = tmp_path / "killed"
    process = start(killed, tmp_path)
    wait_for_epochs(run_dir, 3, process)
    time.sleep(0.05)  # into the next epoch
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)  # whole, whenever it was killed
    done = len(rows_of(run_dir))
    assert 3 <= done < EPOCHS
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
