"""Files that are either whole or absent."""

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

from medseg.errors import MedsegError
from medseg.system.file_locks import NotLockableError, held, is_held
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
    and locked while the block runs, so that ``leftovers`` tells it from those of killed processes.

    Raises:
        MedsegError: the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}-{end_of_name(path)}")
    UNFINISHED.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with held(temporary):
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


def leftovers(folder: Path) -> list[Path]:
    """Return the files in and below a folder that a killed process was writing, and nobody writes to now."""
    return [path for path in sorted(folder.rglob(".*")) if TEMPORARY.fullmatch(path.name) and is_left_over(path)]


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
    """Tell whether nobody writes to a temporary file any more; it can be removed then, without a race."""
    try:
        return temporary.is_file() and not is_held(temporary, remove=remove)
    except NotLockableError:
        is_old = time.time() - temporary.stat().st_mtime > LEFT_OVER
        if is_old and remove:
            temporary.unlink(missing_ok=True)
        return is_old
    except OSError:  # it has just taken its place, or is another user's
        return False


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
