"""Locks of files as between machines that share a folder; jobs that lock folders are tested where they are."""

import errno
import os

import pytest

from medseg.system import locks
from medseg.system.locks import NotLockableError, is_locked, open_locked


def test_a_file_that_another_machine_has_removed_is_made_again(tmp_path, monkeypatch):
    """On NFS the state of a file that is gone from the server is an error."""
    states, state = [], os.fstat

    def stale_at_first(descriptor):
        states.append(descriptor)
        if len(states) == 2:  # of the first the kind was asked for before
            raise OSError(errno.ESTALE, "Stale file handle")
        return state(descriptor)

    monkeypatch.setattr(os, "fstat", stale_at_first)
    with open_locked(tmp_path / ".lock"):
        assert is_locked(tmp_path / ".lock")
    assert len(states) > 2


def test_shared_locks_keep_out_who_wants_a_file_alone(tmp_path):
    path = tmp_path / ".lock"
    with open_locked(path, shared=True), open_locked(path, shared=True), pytest.raises(BlockingIOError):
        open_locked(path, wait=False)
    open_locked(path, wait=False).close()


def test_a_file_system_without_locks_is_told_apart(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with pytest.raises(NotLockableError):
        open_locked(tmp_path / ".lock")
