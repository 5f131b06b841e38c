"""Locks of folders and of single files.

The operating system frees the locks of a process that has died, however it died. A folder's lock belongs to the
process. A file's lock belongs to the open file, so that a process may open and close the file as often as it likes; by
it others can tell whether a file is being written, or a folder is in use.

Both hold between machines that share a folder by NFS: a folder's is a lock of POSIX (``fcntl``), and what ``flock``
locks Linux asks the server for as one of the whole file, for which the file has to be open for writing, as here. They
do not with the mount options ``nolock`` and ``local_lock``, which keep locks on the machine. A file that another
machine has removed is known by an error ("stale file handle") where its state is asked for, which comes from the server
once there is a lock. File systems without locks, as of some object stores, are logged once, or old files tell.
"""

import errno
import json
import logging
import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from medseg.errors import MedsegError

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LOG_OR_LOCK = os.O_RDWR | os.O_CREAT | os.O_APPEND
NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0)  # neither is there on Windows
NOT_WAITED_FOR = getattr(os, "O_NONBLOCK", 0)

NAME = ".lock"


class NotLockableError(OSError):
    """The system or the file system has no locks."""


def open_to_append(path: Path) -> IO[str]:
    """Open a text file to append to, made where it is not there; a link is not followed, a pipe not waited for.

    A folder may come from an untrusted archive, with links in place of its log or its lock.

    Raises:
        OSError: it is no plain file, or cannot be opened.
    """
    try:
        descriptor = os.open(path, LOG_OR_LOCK | NOT_FOLLOWED | NOT_WAITED_FOR, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, which is not followed; remove it", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file; remove it", str(path))
    return os.fdopen(descriptor, "a+", encoding="utf-8")


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes of medseg out of a folder while the block runs; ``what`` names the folder in the message.

    The operating system frees the lock of a process that has died, however it did and whatever processes it has left;
    its file stays, and is taken over.

    Raises:
        MedsegError: another process works in the folder, with its number and since when, or it cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = folder / NAME
    while True:
        try:
            file = open_to_append(path)
        except OSError as error:
            raise MedsegError(f"{what}: {path} cannot be written ({error.strerror}).") from error
        with file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise MedsegError(
                    f"{what}: {owner(path)} works in it. Wait until that has ended, or end it first."
                ) from error
            except OSError as error:  # a file system without locks
                log.warning("%s: cannot be locked (%s); let no other process work in it", folder, error.strerror)
            if not is_same_file(file.fileno(), path):
                continue  # the owner before has just removed it
            file.truncate(0)
            file.write(json.dumps({"process": os.getpid(), "host": platform.node(), "since": time.time()}))
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def is_held(folder: Path) -> bool:
    """Return whether another process holds the lock of a folder; without locks, whether it has left its file.

    To be asked by no process that holds it itself, which would lose it.
    """
    if not (folder / NAME).is_file():  # a pipe would be waited for
        return False
    try:
        with (folder / NAME).open("r") as file:
            if fcntl is None:
                return True
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # until the file is closed
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether an open file, which is locked, is the one that lies at a path."""
    with suppress(OSError):  # neither is there any more, or on NFS another machine has removed it
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def owner(path: Path) -> str:
    """Return who holds a lock, and for how long."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        content = json.loads(path.read_text(encoding="utf-8"))
        minutes = (time.time() - content["since"]) / 60
        return f"process {content['process']} on {content['host']}, begun {minutes:.0f} minutes ago,"
    return "another process"


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Create an empty file, locked while the block runs, so that it is not mistaken for a leftover."""
    try:
        file: IO[str] = open_locked(path)
    except NotLockableError:
        file = open_to_append(path)
    with file:
        yield


def is_locked(path: Path, *, remove: bool = False) -> bool:
    """Return whether a process holds a file's lock; where none does, the file can be removed without a race.

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
