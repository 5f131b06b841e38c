"""Locks of single files, by which others can tell whether a file is being written, or a folder is in use.

The operating system frees the locks of a process that has died, however it did. They belong to the open file, so that
a process may open and close the file as often as it likes; ``medseg.system.directory_lock`` locks folders for
processes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from medseg.system.directory_lock import is_same_file
from medseg.system.plain_files import open_to_append

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]


class NotLockableError(OSError):
    """The system or the file system has no locks."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Make a file, empty, and keep it from being taken for a leftover while the block runs."""
    try:
        file: IO[str] = open_locked(path)
    except NotLockableError:
        file = open_to_append(path)
    with file:
        yield


def is_held(path: Path, *, remove: bool = False) -> bool:
    """Tell whether a process holds a file's lock; where none does, the file can be removed without a race.

    Raises:
        NotLockableError: nobody can tell.
        OSError: the file is gone, or another user's.
    """
    if fcntl is None:
        raise NotLockableError("no locks")
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            raise NotLockableError(*error.args) from error
        if remove and is_same_file(file.fileno(), path):
            path.unlink()
        return False


def open_locked(path: Path, *, shared: bool = False, wait: bool = True) -> IO[str]:
    """Open a file, made where it is not there, and lock it until it is closed: alone, or ``shared`` with others.

    Raises:
        BlockingIOError: another process has locked it, and this one does not ``wait``.
        NotLockableError: the system or the file system has no locks.
        OSError: the file cannot be written.
    """
    if fcntl is None:
        raise NotLockableError("no locks")
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        file = open_to_append(path)
        try:
            fcntl.flock(file, operation)
        except BlockingIOError:
            file.close()
            raise
        except OSError as error:
            file.close()
            raise NotLockableError(*error.args) from error
        if is_same_file(file.fileno(), path):
            return file
        file.close()  # the owner before has just removed it
