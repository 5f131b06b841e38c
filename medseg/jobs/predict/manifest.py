"""A record of each predicted case, hidden beside the masks: what its mask was made of, and the hash of its files.

There is one small file a case, so that a run goes on where another ended, and machines that share a folder need not
communicate.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.config.check import is_number
from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.io.datasets.external_masks import RECORDS
from medseg.system.files import file_hash, write_json

DONE, FAILED = "done", "failed"
"""The status in a case's row."""

TEXTS = ("case", "status", "error", "unlike", "missing_channels")
"""What is text in a case's row; all else are numbers."""


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


def write(output: Path, case: str, record: Record) -> None:
    """Write the record of a case, whole or not at all."""
    write_json(record_file(output, case), asdict(record))


def read(output: Path, case: str) -> Record | None:
    """Return the record of a case; None where there is none, or none that can be read."""
    path = record_file(output, case)
    try:
        content = read_json_object(path) if path.is_file() else {}
    except MedsegError:
        content = {}
    kinds = {"made_of": str, "files": dict, "row": dict, "messages": list}
    is_record = {"made_of", "files", "row"} <= content.keys() <= kinds.keys()
    is_record = is_record and all(isinstance(value, kinds[name]) for name, value in content.items())
    if not is_record or content["row"].get("case") != case or content["row"].get("status") not in (DONE, FAILED):
        return None
    texts = [*content["files"].values(), *content.get("messages", ())]
    texts += [content["row"][name] for name in TEXTS if name in content["row"]]
    numbers = [value for name, value in content["row"].items() if name not in TEXTS]
    is_record = all(isinstance(text, str) for text in texts)
    if not (is_record and all(number is None or is_number(number) for number in numbers)):
        return None
    return Record(**content)


def written(output: Path, case: str) -> float:
    """Return when the record of a case was written, in seconds since the epoch; 0 where there is none."""
    path = record_file(output, case)
    return path.stat().st_mtime if path.is_file() else 0.0


def record_file(output: Path, case: str) -> Path:
    """Return the file of a case's record. Its name is a hash, since the id of a case may be too long or not unique."""
    return output / RECORDS / f"{hashlib.sha256(os.fsencode(case)).hexdigest()[:32]}.json"


def is_done(output: Path, record: Record | None, made_of: str) -> bool:
    """Return whether a case's files are there, byte for byte, and were made of the same."""
    if record is None or record.made_of != made_of or not record.files:
        return False
    return all(
        (output / name).is_file() and file_hash(output / name) == digest for name, digest in record.files.items()
    )
