"""Plain files: texts that end, and files and folders to write to that lead nowhere else.

A run, a sweep or a folder of masks may come in an archive of a stranger's, and archives hold links, pipes and links to
devices. What is written whole (see ``medseg.system.files``) takes a link's place; what is appended to, and every
folder, would be followed.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from medseg.errors import MedsegError, listing

LOG_OR_LOCK = os.O_RDWR | os.O_CREAT | os.O_APPEND
NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0)  # neither is there on Windows
NOT_WAITED_FOR = getattr(os, "O_NONBLOCK", 0)


def read_text(path: Path) -> str:
    """Return what a text file in UTF-8 holds; a pipe or a device, which may never end, is not read.

    Raises:
        OSError: it is no plain file, or cannot be opened.
        ValueError: it is not in UTF-8.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a folder" if path.is_dir() else "it is no plain file", str(path))
    return path.read_text(encoding="utf-8")


def open_to_append(path: Path) -> IO[str]:
    """Open a text file to append to, made where it is not there; a link is not followed, a pipe not waited for.

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


def refuse_links(folder: Path, what: str) -> None:
    """Refuse a folder to write to in which a link leads to a folder outside it; ``what`` names it in the message.

    Raises:
        MedsegError: with the links and where they lead.
    """
    if found := [f"{path} leads to {path.resolve()}" for path in links_out_of(folder)]:
        raise MedsegError(
            f"{what}: files would be written outside this folder, since it holds links to others:\n{listing(found)}\n"
            "Put what is meant in the place of each link, or remove it."
        )


def links_out_of(folder: Path) -> Iterator[Path]:
    """Yield the links in and below a folder to folders outside it."""
    inside = folder.resolve()
    for place, folders, _ in os.walk(folder):
        for path in (Path(place, name) for name in folders):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                yield path
