"""A folder that one process at a time writes to."""

import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medseg.errors import MedsegError
from medseg.system.plain_files import open_to_append

log = logging.getLogger(__name__)

NAME = ".lock"


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes of medseg out of a folder while the block runs; ``what`` names the folder in the message.

    The operating system frees the lock of a process that has died, however it did and whatever processes it has left;
    its file stays, and is taken over.

    Raises:
        MedsegError: another process works in the folder, with its number and since when, or it cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # a system without such locks
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


def is_same_file(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is the one that lies at a path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def owner(path: Path) -> str:
    """Say who holds a lock, and for how long."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        minutes = (time.time() - content["since"]) / 60
        return f"process {content['process']} on {content['host']}, begun {minutes:.0f} minutes ago,"
    return "another process"
