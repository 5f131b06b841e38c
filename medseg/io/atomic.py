"""Files that are either whole or absent."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.printable import printable

TEMPORARY = re.compile(r"\.[0-9a-f]{8}-.+")
"""Names that ``replacing`` gives; a process that is killed leaves such a file behind, and nothing else half-written."""

LONGEST = 255 - len(".01234567-")
"""Bytes of a temporary name after its prefix."""

UNFINISHED: set[Path] = set()
"""The temporary files that this process is writing."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that takes its place when the block ends well and vanishes otherwise.

    The temporary name keeps the suffix, since readers and writers choose the format by it.

    Raises:
        MedsegError: the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}-{end_of_name(path)}")
    UNFINISHED.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
    """Return the files in and below a folder that a killed process was writing."""
    return sorted(path for path in folder.rglob(".*") if TEMPORARY.fullmatch(path.name) and path.is_file())


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole, without characters that would steer a terminal (see ``medseg.printable``)."""
    with replacing(path) as temporary:
        temporary.write_text(printable(text), encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain containers as indented JSON, whole; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
