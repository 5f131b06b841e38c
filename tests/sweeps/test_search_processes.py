"""Processes that work on one search, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("search_worker.py")
LINE = ["train", "search=learning_rate", "search.trials=20", "sweep.test=none", "run_dir=sweep"]

pytest.importorskip("optuna", reason="optuna is not installed")


@pytest.mark.trust
def test_two_of_four_processes_are_killed_and_all_trials_end(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def start():
        command = [sys.executable, str(WORKER), *LINE]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)

    workers = [start() for _ in range(4)]
    try:
        for worker, number in zip(workers[:2], (6, 10), strict=True):
            while not (tmp_path / "sweep" / str(number)).is_dir():
                assert any(each.poll() is None for each in workers)
                time.sleep(0.02)
            worker.send_signal(signal.SIGKILL)
        tables = [worker.communicate(timeout=300)[0] for worker in workers[2:]]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    trials = json.loads((tmp_path / "sweep/search.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 20
    record = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert sorted(map(int, record["jobs"])) == [*range(20)]
    assert record["has_ended"]
    assert tables[0] == tables[1]
