"""``dataset.json``, by which the Medical Segmentation Decathlon and nnU-Net describe their data sets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError

FILE = "dataset.json"


def read_description(root: Path, layout: str) -> dict[str, Any]:
    """Read ``dataset.json`` below ``root``; ``layout`` is the layout that needs it.

    Raises:
        MedsegError: it is not there, is no JSON, or no mapping.
    """
    path = root / FILE
    if not path.is_file():
        there = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
        raise MedsegError(
            f"{path} is missing, dataset={layout} needs it. Beside it there is {', '.join(there[:10]) or 'nothing'}."
            " For folders of images and masks use dataset=folder."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise MedsegError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise MedsegError(f"{path} holds no mapping, but {type(content).__name__}.")
    return content


def in_order(names: Any) -> tuple[str, ...] | None:
    """List the values of ``{"0": "FLAIR", "1": "T1"}`` by their number; a plain name is one channel.

    >>> in_order({"1": "T1", "0": "FLAIR"}), in_order("CT"), in_order(None)
    (('FLAIR', 'T1'), ('CT',), None)
    """
    if isinstance(names, Mapping):
        numbered = all(str(key).isdigit() for key in names)
        return tuple(str(names[key]) for key in (sorted(names, key=int) if numbered else names)) or None
    return (names,) if isinstance(names, str) else None


def whole(value: Any) -> int | None:
    """Return a value that is a whole number, also one in quotes; None for anything else.

    >>> whole(3), whole("3"), whole("3.5"), whole(True), whole([3])
    (3, 3, None, None, None)
    """
    if isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    return value if type(value) is int else None
