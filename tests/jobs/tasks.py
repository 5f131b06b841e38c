"""Processes of one training, started as torchrun and srun would start them."""

import json
import os
import subprocess
import sys

import yaml

from medseg.system import relaunch

SHORT = ("logger=none", "trainer.max_epochs=1", "trainer.steps_per_epoch=2")

STEP = {
    "SLURM_JOB_ID": str(os.getpid()),  # decides about the port
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_NODELIST": "gpu1",
}
"""What srun tells each of its tasks beside their numbers."""


def arguments(folder, config):
    """Return the arguments of Python that train by a config, which is written into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return ["-m", "medseg", "--config-path", str(folder), "--config-name", "config", *relaunch.QUIET]


def begin(line, folder, **environment):
    """Start a process that works in a folder, with its output in a file there."""
    with (folder / f"output {environment.get('SLURM_PROCID', '')}".strip()).open("w") as file:
        return subprocess.Popen(
            [sys.executable, *line], cwd=folder, stdout=file, stderr=file, env={**os.environ, **environment}
        )


def run_of(folder):
    """Return the one run directory that was made by itself below a folder."""
    [config] = folder.glob("outputs/train/*/*/config.yaml")
    return config.parent


def read(path):
    return json.loads(path.read_text())


def as_tasks(program, folder):
    """Run a program as srun would run two tasks; return their exit statuses and what each has printed."""
    tasks = [begin(program, folder, **STEP, SLURM_PROCID=n, SLURM_LOCALID=n) for n in "01"]
    statuses = [task.wait() for task in tasks]
    return statuses, [(folder / f"output {n}").read_text() for n in "01"]
