"""Files that are written whole, and what killed writers leave of them."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from leftovers import leftovers

from medseg.errors import MedsegError
from medseg.system import files, locks
from medseg.system.files import remove_leftovers, remove_leftovers_of, replacing, write_text, write_torch

KILLED = """
import os, signal, sys
from pathlib import Path
from medseg.system.files import replacing
for name in sys.argv[1:]:
    with replacing(Path(name)) as temporary:
        temporary.write_text("half")
        if name == sys.argv[-1]:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(*paths):
    """Let a process write files, and be killed while it writes the last one."""
    assert subprocess.run([sys.executable, "-c", KILLED, *map(str, paths)]).returncode == -signal.SIGKILL


def test_what_is_being_written_is_no_leftover(tmp_path):
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        os.utime(temporary, (0, 0))  # whatever its age
        assert leftovers(tmp_path) == []
        remove_leftovers(tmp_path)
        remove_leftovers_of(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    killed(tmp_path / "whole.txt", tmp_path / "sub" / "a.txt")
    killed(tmp_path / "b.txt")
    assert (tmp_path / "whole.txt").read_text() == "half"
    assert sorted(path.name.partition("-")[2] for path in leftovers(tmp_path)) == ["a.txt", "b.txt"]
    remove_leftovers_of(tmp_path / "b.txt")
    assert [path.name.partition("-")[2] for path in leftovers(tmp_path)] == ["a.txt"]
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["whole.txt"]


def test_without_locks_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    write_text(tmp_path / "a.txt", "whole")
    young, old = tmp_path / ".01234567-a.txt", tmp_path / ".89abcdef-a.txt"
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    assert leftovers(tmp_path) == [old]
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "a.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")  # noqa: PTH110
def test_pytorch_s_files_tell_of_a_full_disk(tmp_path, monkeypatch):
    def full(temporary):
        temporary.symlink_to("/dev/full")
        return open(os.devnull)  # noqa: PTH123

    monkeypatch.setattr(files, "locked_file", full)
    with pytest.raises(MedsegError, match=f"a.pt: {os.strerror(errno.ENOSPC)}"):
        write_torch(tmp_path / "a.pt", {"a": 1})
    assert list(tmp_path.iterdir()) == []
