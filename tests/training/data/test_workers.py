"""How many processes load data, and the shared memory that they need."""

import logging
import os
import subprocess
import sys

import pytest

from medseg.errors import MedsegError
from medseg.system.relaunch import START_METHOD
from medseg.training.data import workers
from medseg.training.data.workers import check_shared_memory, shared_bytes, workers_needed


@pytest.mark.parametrize(
    ("load", "step", "cores", "number"),
    [
        (0.1, 0.04, 16, 4),
        (0.02, 0.04, 16, 2),
        (1.0, 0.04, 16, 16),
        (0.1, None, 16, 8),
        (0.1, None, 3, 3),
        (0.1, 0.1, 0, 1),
    ],
)
def test_as_many_as_keep_the_device_busy_and_one_more(load, step, cores, number, monkeypatch):
    monkeypatch.setattr(workers, "free_bytes", lambda: 1e12)
    assert workers_needed(load, step, cores, 1) == number


def test_no_more_than_shared_memory_holds(monkeypatch, caplog):
    monkeypatch.setattr(workers, "free_bytes", lambda: 64e6)  # of Docker
    with caplog.at_level(logging.WARNING):
        assert workers_needed(1.0, 0.25, 16, 9_000_000) == 2
    assert "64 MB free: data is loaded by 2 processes instead of 5" in caplog.text
    assert workers_needed(1.0, 0.25, 16, 90_000_000) == 0


def test_too_little_shared_memory_is_one_message(monkeypatch):
    assert shared_bytes(3, 10_000_000) == 80_000_000
    assert shared_bytes(0, 10_000_000) == 0
    monkeypatch.setattr(workers, "free_bytes", lambda: 64e6)
    check_shared_memory(2, 9_000_000)
    with pytest.raises(MedsegError, match=r"trainer\.workers=3: .* need 80 MB .* has 64 MB free"):
        check_shared_memory(3, 10_000_000)


INTERRUPTED = """
from multiprocessing import forkserver
from medseg.training.data import workers

workers.PRELOADED = "interrupting"
context = workers.context()
server = forkserver._forkserver._forkserver_pid
worker = context.Process(target=print, args=("loaded",))
worker.start()
worker.join()
print(server == forkserver._forkserver._forkserver_pid)
"""


@pytest.mark.skipif(START_METHOD != "forkserver", reason="there is no server")
def test_a_server_of_workers_that_still_imports_says_nothing_at_ctrl_c(tmp_path):
    (tmp_path / "interrupting.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n", "utf-8")
    paths = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=paths)
    assert (done.stdout, done.stderr) == ("loaded\nTrue\n", "")


WITHOUT_GUARD = """
from medseg.training.data.workers import context

print("script", __name__, flush=True)
worker = context().Process(target=print, args=("loaded",))
worker.start()
worker.join()
print(__file__, __spec__)
"""


def test_a_script_that_starts_workers_needs_no_guard_and_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_GUARD, "utf-8")
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=paths)
    assert (done.stdout, done.stderr) == (f"script __main__\nloaded\n{script} None\n", "")
