"""What a run tells of itself, on a clock that the test turns."""

import json
import math
import subprocess
import sys

from medseg.errors import MedsegError
from medseg.system.locks import is_held, locked
from medseg.system.running import progress_file
from medseg.system.running.progress_file import EVERY, NAME, ProgressFile, progress_told


def test_it_is_there_until_the_run_ends(tmp_path):
    with progress_told(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["state"] == "preparing"
    assert not [*tmp_path.iterdir()]


def test_it_keeps_what_was_told_and_is_due_at_times_and_at_changes(tmp_path):
    now = 0.0
    file = ProgressFile(tmp_path, clock=lambda: now)
    file.tell("training", epoch=3, best=math.nan, score=0.5)
    assert not file.is_due("training")
    assert file.is_due("testing")
    now = EVERY
    assert file.is_due("training")
    file.tell("testing", seconds_left=None)
    told = json.loads((tmp_path / NAME).read_text())
    assert told.pop("updated") > 1e9
    assert told == {
        "state": "testing",
        "epoch": 3,
        "epochs": None,
        "score": 0.5,
        "best": None,
        "unlearned": [],
        "seconds_left": None,
        "device": "",
    }


def test_a_full_disk_does_not_end_the_run_that_tells(tmp_path, monkeypatch):
    def fail(path, content):
        raise MedsegError("no space left")

    monkeypatch.setattr(progress_file, "write_json", fail)
    ProgressFile(tmp_path).tell("training")


HELD = (
    "import sys; from pathlib import Path; from medseg.system.locks import is_held; print(is_held(Path(sys.argv[1])))"
)


def test_a_killed_run_is_known_by_its_lock(tmp_path):
    assert not is_held(tmp_path)
    (tmp_path / ".lock").write_text("{}")  # of a process that is no more
    assert not is_held(tmp_path)
    with locked(tmp_path, "run"):
        other = subprocess.run([sys.executable, "-c", HELD, tmp_path], capture_output=True, text=True, check=True)
    assert other.stdout == "True\n"
