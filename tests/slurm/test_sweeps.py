"""Sweeps of small trainings on a real Slurm."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    *("dataset.dims=2", "dataset.cases=8", "dataset.size=24", "model.depth=1", "model.base_channels=2", "logger=none"),
    *("trainer.max_time=null", "trainer.max_epochs=60", "trainer.steps_per_epoch=3", "trainer.accelerator=cpu"),
    *("plan.batch_size=2", "optimizer._target_=guided.GuidedAdamW", "sweep.test=none", "run_dir=sweep"),
    *("hydra.launcher.mem_gb=2", "hydra.launcher.cpus_per_task=1"),
)


def environment():
    """Return the variables with which a process imports medseg and the guided optimizer."""
    path = [ROOT, Path(__file__).parent, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture
def train(tmp_path):
    """Return ``train(*settings)``, which starts ``medseg train -m`` in a folder of its own as a further process."""
    processes = []

    def start(*settings):
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "medseg", "train", "-m", *settings, *SMALL],
                cwd=tmp_path,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        print(*process.communicate())  # which pytest shows where a test fails


def results_of(sweep):
    """Return the results that jobs have left, by job."""
    return {int(path.parent.name): json.loads(path.read_text()) for path in sorted(sweep.glob("*/result.json"))}


def epochs_of(run):
    """Return the numbers of the epochs in a run's table."""
    table = run / "metrics.csv"
    return [int(row["epoch"]) for row in csv.DictReader(table.read_text().splitlines())] if table.is_file() else []


def times_resumed(run):
    return (run / "train.log").read_text().count("the run goes on after")


def test_a_sweep_ends_in_a_table_whatever_became_of_its_jobs(train, slurm, tmp_path):
    (tmp_path / "done").touch()
    sweep = tmp_path / "sweep"
    process = train("hydra/launcher=submitit_slurm", "+optimizer.until=done,never,cancelled,go,memory")
    slurm.wait_until(lambda: epochs_of(sweep / "2") and len(epochs_of(sweep / "3")) > 1)
    numbers = json.loads((sweep / "submitted.json").read_text())
    slurm.answer("scancel", numbers["2"])
    # While this one wants all of the machine, the last of the trainings gives way to it
    slurm.answer("sbatch", "--partition=high", "--ntasks=4", "--output=/dev/null", "--wrap=sleep 1")
    slurm.wait_until(lambda: times_resumed(sweep / "3") == 1)
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    results = results_of(sweep)
    assert [result["status"] for result in results.values()] == ["done", "failed", "interrupted", "done", "failed"]
    assert results[1]["reason"] == "RuntimeError: this training fails"
    assert results[2]["reason"].startswith("cancelled (scancel); interrupted by SIGTERM after step")
    assert "out of the memory that it was given" in results[4]["reason"]
    assert epochs_of(sweep / "3") == list(range(1, 61))
    assert results[3]["score"] == results[0]["score"]  # of an undisturbed training
    assert re.findall(r"^ +(\d+)  \S", out, re.MULTILINE) == ["0", "3", "1", "2", "4"]


def test_jobs_outlive_the_process_that_waits_for_them(train, slurm, tmp_path):
    run = tmp_path / "sweep" / "0"
    line = ("hydra/launcher=submitit_slurm", "+optimizer.until=go")
    process = train(*line)
    slurm.wait_until(lambda: len(epochs_of(run)) > 1)
    process.kill()
    numbers = (tmp_path / "sweep" / "submitted.json").read_text()
    slurm.answer("scancel", "--signal=USR2", json.loads(numbers)["0"])  # the notice before a time limit
    slurm.wait_until(lambda: times_resumed(run) == 1)

    process = train(*line)
    slurm.wait_until(lambda: "on the cluster already" in process.stderr.readline())
    assert (tmp_path / "sweep" / "submitted.json").read_text() == numbers
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the jobs are cancelled and save" in err
    assert "Traceback" not in err
    assert "to go on: medseg train" in out
    result = results_of(tmp_path / "sweep")[0]
    assert result["status"] == "interrupted"
    assert result["reason"].startswith("cancelled (scancel)")

    (tmp_path / "go").touch()
    out, err = train(*line).communicate(timeout=300)
    assert results_of(tmp_path / "sweep")[0]["status"] == "done", err
    assert (epochs_of(run), times_resumed(run)) == (list(range(1, 61)), 2)


def test_a_sweep_is_rehearsed_without_slurm(train, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")
    (tmp_path / "done").touch()
    process = train("hydra/launcher=submitit_local", "+optimizer.until=done,never")
    assert process.wait(300) == 3
    results = results_of(tmp_path / "sweep")
    assert [results[job]["status"] for job in range(2)] == ["done", "failed"]
    assert results[1]["reason"] == "RuntimeError: this training fails"


def test_two_tasks_of_a_job_are_one_training(train, slurm, tmp_path):
    run = tmp_path / "sweep" / "0"
    tasks = ("hydra.launcher.tasks_per_node=2", "trainer.devices=2")
    process = train("hydra/launcher=submitit_slurm", "+optimizer.until=go", *tasks)
    slurm.wait_until(lambda: len(epochs_of(run)) > 1)
    numbers = json.loads((tmp_path / "sweep" / "submitted.json").read_text())
    slurm.answer("scancel", "--signal=USR2", numbers["0"])  # the notice before a time limit
    slurm.wait_until(lambda: times_resumed(run) == 1)
    (tmp_path / "go").touch()
    assert process.wait(300) == 0
    assert epochs_of(run) == list(range(1, 61))
    assert "2 processes train together" in (run / "train.log").read_text()


def test_sruns_tasks_are_one_training(slurm, tmp_path):
    (tmp_path / "done").touch()
    settings = [text for text in SMALL if "launcher" not in text and not text.startswith("run_dir=")]
    settings += ["+optimizer.until=done", "trainer.devices=auto", "trainer.max_epochs=2"]
    settings.remove("trainer.max_epochs=60")
    command = ["srun", "--ntasks=2", "--mem=4000", sys.executable, "-m", "medseg", "train", *settings]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [log] = tmp_path.glob("outputs/train/*/*/train.log")
    assert "2 processes train together" in log.read_text()
    assert epochs_of(log.parent) == [1, 2]
