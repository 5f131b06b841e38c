"""What a folder of masks keeps of each case: what its mask was made of, and how it must look.

One small file a case, hidden beside the masks, so that a run goes on where another ended, and machines that share a
folder need no word with each other.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.datasets.external_masks import RECORDS
from medseg.preprocessing.cache import hash_of
from medseg.system.files import write_json

STATUSES = ("done", "failed")
"""What a case's row may say of it."""


@dataclass(frozen=True)
class Record:
    """A case that was worked on.

    ``made_of`` is a hash of its files, the models and the settings, ``files`` the hash of each file written, by its
    path relative to the folder, ``row`` its row in the table, ``messages`` what reading its scan warned of.
    """

    made_of: str
    files: Mapping[str, str]
    row: Mapping[str, Any]
    messages: Sequence[str] = ()


def made_of(images: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """Hash what a mask depends on: the bytes of its scan's files, and plain containers.

    Raises:
        MedsegError: a file cannot be read.
    """
    return hash_of([settings], Case("", "", tuple(images)))


def write(output: Path, case: str, record: Record) -> None:
    """Keep a record, whole."""
    write_json(place(output, case), asdict(record))


def read(output: Path, case: str) -> Record | None:
    """Return what is kept of a case; None where there is nothing, or nothing that can be read."""
    path = place(output, case)
    try:
        content = read_json_object(path) if path.is_file() else {}
    except MedsegError:
        content = {}
    kinds = {"made_of": str, "files": dict, "row": dict, "messages": list}
    is_record = {"made_of", "files", "row"} <= content.keys() <= kinds.keys()
    is_record = is_record and all(isinstance(value, kinds[name]) for name, value in content.items())
    if not is_record or "case" not in content["row"] or content["row"].get("status") not in STATUSES:
        return None
    return Record(**content)


def written(output: Path, case: str) -> float:
    """Return when the record of a case was written, in seconds since the epoch; 0 where there is none."""
    path = place(output, case)
    return path.stat().st_mtime if path.is_file() else 0.0


def place(output: Path, case: str) -> Path:
    """Return the file of a case's record, which has a hash for its name, as cases are called like any file."""
    return output / RECORDS / f"{hashlib.sha256(os.fsencode(case)).hexdigest()[:32]}.json"


def is_done(output: Path, record: Record | None, made_of: str) -> bool:
    """Tell whether a case's files are there, byte for byte, and were made of the same."""
    if record is None or record.made_of != made_of or not record.files:
        return False
    return all((output / name).is_file() and file_hash(output / name) == known for name, known in record.files.items())


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
