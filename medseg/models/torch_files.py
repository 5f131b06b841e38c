"""Files of PyTorch's, read with ``weights_only=True``, which runs no code of theirs."""

import re
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

from medseg.errors import MedsegError, first_line
from medseg.memory import NotEnoughMemoryError, enough_memory

ZIP, PICKLE = b"PK", b"\x80"
"""What files begin with that ``torch.save`` wrote since PyTorch 1.6, and before."""


def load_safely(file: Path, *, name: str = "", advice: str = "", mmap: bool = False) -> Any:
    """Return what a file holds that ``torch.save`` wrote.

    Args:
        file: where it lies.
        name: how the error calls it, if not by its path.
        advice: the end of the error's message.
        mmap: leave tensors on disk until they are looked at.

    Raises:
        MedsegError: it is no such file, is damaged, or holds objects that are not loaded.
    """
    try:
        with enough_memory(
            f"to load {name or file}", f"Close other programs, or use a machine with more memory.{advice}"
        ):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except NotEnoughMemoryError:
        raise
    except Exception as error:  # a file that is something else makes torch raise almost anything
        raise MedsegError(
            f"{name or file}: not a checkpoint that can be loaded safely ({reason(file, error)}).{advice}"
        ) from error


def reason(file: Path, error: Exception) -> str:
    """Say why a file cannot be loaded: what it plainly is, or what PyTorch says.

    PyTorch's message begins with advice to load what is not safe, and ends so; what is wrong stands between.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(2)
    except OSError as unreadable:
        return unreadable.strerror or first_line(unreadable)
    if not start:
        return "it is empty"
    if start == ZIP and not is_zipfile(file):
        return "it is incomplete"
    if not start.startswith((ZIP, PICKLE)):
        return "PyTorch has not written it"
    found = re.search(r"WeightsUnpickler error:\s*(.+?)(?:\. Please|$)", str(error), re.MULTILINE)
    return found[1] if found else first_line(error)
