"""Files that are written whole or not at all, and folders to write into that hold no link to anywhere else."""

import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError, listing
from medseg.system.locks import NotLockableError, is_locked, locked_file
from medseg.system.printable import printable

TEMPORARY = re.compile(r"\.[0-9a-f]{8}-.+")
"""Names that ``replacing`` gives; a process that is killed leaves such a file behind, and nothing else half-written."""

LONGEST = 255 - len(".01234567-")
"""Bytes of a temporary name after its prefix."""

LEFT_OVER = 24 * 3600
"""Seconds after which nobody writes to a temporary file any more, where the file system has no locks to ask."""

UNFINISHED: set[Path] = set()
"""The temporary files that this process is writing."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that takes its place when the block ends well and vanishes otherwise.

    The temporary name keeps the suffix, since readers and writers choose the format by it. The file is there, empty
    and locked while the block runs, so that ``remove_leftovers`` can distinguish it from those of killed processes.

    Raises:
        MedsegError: the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}-{end_of_name(path)}")
    UNFINISHED.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(temporary):
            yield temporary
            temporary.replace(path)
    except MedsegError as error:  # of a writer, which knows the temporary name only
        raise MedsegError(str(error).replace(str(temporary), str(path))) from error
    except OSError as error:
        raise MedsegError(
            f"cannot write {path}: {error.strerror or error}. Check the folder's rights and space."
        ) from error
    finally:
        UNFINISHED.discard(temporary)
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def end_of_name(path: Path) -> str:
    """Return as much of the end of a file's name as its temporary file can have, in UTF-8, which ITK asks for."""
    name = re.sub("[\ud800-\udfff]", "_", path.name)
    while len(os.fsencode(name)) > LONGEST:
        name = name[1:]
    return name


def remove_unfinished() -> None:
    """Remove what this process is writing, before it ends without waiting for its threads."""
    for temporary in tuple(UNFINISHED):
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in and below a folder."""
    for path in folder.rglob(".*"):
        if TEMPORARY.fullmatch(path.name):
            is_left_over(path, remove=True)


def remove_leftovers_of(path: Path) -> None:
    """Remove what killed processes left of one file, in a folder that may hold anything."""
    for candidate in path.parent.glob(".*"):
        if TEMPORARY.fullmatch(candidate.name) and candidate.name[len(".01234567-") :] == end_of_name(path):
            is_left_over(candidate, remove=True)


def is_left_over(temporary: Path, *, remove: bool = False) -> bool:
    """Return whether nobody writes to a temporary file any more; it can be removed then, without a race."""
    try:
        return temporary.is_file() and not is_locked(temporary, remove=remove)
    except NotLockableError:
        is_old = time.time() - temporary.stat().st_mtime > LEFT_OVER
        if is_old and remove:
            temporary.unlink(missing_ok=True)
        return is_old
    except OSError:  # it has just taken its place, or is another user's
        return False


def check_plain_file(path: Path) -> None:
    """Raise OSError for what is there and is no plain file: a pipe or a device may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a folder" if path.is_dir() else "it is no plain file", str(path))


def read_text(path: Path) -> str:
    """Return what a text file in UTF-8 holds; a pipe or a device, which may never end, is not read.

    Raises:
        OSError: it is no plain file, or cannot be opened.
        ValueError: it is not in UTF-8.
    """
    check_plain_file(path)
    return path.read_text(encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole, without characters that would steer a terminal."""
    with replacing(path) as temporary:
        temporary.write_text(printable(text), encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain containers as indented JSON, whole; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_torch(path: Path, content: Any) -> None:
    """Write plain containers and tensors as PyTorch does, whole."""
    import torch

    buffer = BytesIO()  # writing to the disk itself, torch would take a full one for an error of its own
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def refuse_links(folder: Path, what: str) -> None:
    """Raise for a folder to write to that holds a link to a folder outside it; ``what`` names it in the message.

    A run, a sweep or a folder of masks may come in an untrusted archive, and archives can hold links. What
    ``replacing`` writes takes a link's place; a folder would be followed.

    Raises:
        MedsegError: with the links and where they lead.
    """
    inside = folder.resolve()
    paths = [Path(parent, name) for parent, folders, _ in os.walk(folder) for name in folders]
    links = [path for path in paths if path.is_symlink() and not path.resolve().is_relative_to(inside)]
    if links:
        lines = listing(f"{path} leads to {path.resolve()}" for path in links)
        raise MedsegError(
            f"{what}: files would be written outside this folder, since it holds links to others:\n{lines}\n"
            "Put what is meant in the place of each link, or remove it."
        )


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file's bytes in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
