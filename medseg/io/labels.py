"""Classes by name, by file value and by index: three things, translated here and nowhere else."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, listing
from medseg.io.case import FileValue
from medseg.io.files import read_mask
from medseg.io.pictures import COLOUR

MOST_CLASSES = 255  # indices are uint8, 255 itself stays free
MOST_FOUND = 32  # more values than that in masks are rather grey levels or instances than classes

GIVE = "Give the classes as dataset.labels='{background: 0, name: value, ...}'"


@dataclass(frozen=True)
class LabelMap:
    """The classes of a data set by name, background first; a class's index is its place.

    Raises:
        MedsegError: fewer than two classes or too many, background not first, two classes of one value, or a value that
            is neither a whole number nor ``"#rrggbb"``.
    """

    labels: dict[str, FileValue]

    def __post_init__(self) -> None:
        problems = list(_problems(self.labels))
        if problems:
            raise MedsegError(f"dataset.labels={self.labels} is no list of classes:\n{listing(problems)}\n{GIVE}.")

    @classmethod
    def from_masks(cls, paths: Iterable[Path]) -> "LabelMap":
        """Name the values that occur in masks: background (0, or else the lowest), then foreground or class_<value>.

        Raises:
            MedsegError: a mask cannot be read, or the values are too few or too many to be classes.
        """
        found: set[int] = set()
        for path in paths:
            found |= set(np.unique(read_mask(path)).tolist())
            if len(found) > MOST_FOUND:
                raise MedsegError(f"{path}: over {MOST_FOUND} values, with the masks before it: {_few(found)}. {GIVE}.")
        if len(found) < 2:
            raise MedsegError(f"the masks hold {_few(found) or 'nothing'} only, so no foreground. {GIVE}.")
        background, *classes = sorted(found, key=lambda value: (value != 0, value))
        if len(classes) == 1:
            return cls({"background": file_value(background), "foreground": file_value(classes[0])})
        named = {f"class_{file_value(value)}".replace("#", ""): file_value(value) for value in classes}
        return cls({"background": file_value(background), **named})

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class."""
        return tuple(self.labels)

    @cached_property
    def values(self) -> tuple[int, ...]:
        """The number of each class in ``read_mask``'s result, colours as ``COLOUR | 0xRRGGBB``."""
        return tuple(number(value) for value in self.labels.values())

    def encode(self, values: NDArray[np.int32], where: str) -> NDArray[np.uint8]:
        """Turn file values into class indices, any shape; ``where`` names the file in errors.

        Raises:
            MedsegError: a value is none of the declared ones.
        """
        order = np.argsort(self.values)
        known = np.array(self.values)[order]
        places = np.searchsorted(known[1:], values, side="right")  # the last known value that is not above
        undeclared = known[places] != values
        if undeclared.any():
            raise MedsegError(self._complaint(values[undeclared], where))
        return order.astype(np.uint8)[places]

    def decode(self, indices: NDArray[np.integer]) -> NDArray[np.int32]:
        """Turn class indices into file values, any shape."""
        return np.array(self.values, dtype=np.int32)[indices]

    def _complaint(self, strangers: NDArray[np.int32], where: str) -> str:
        return (
            f"{where}: {strangers.size} voxels have values that are none of the declared classes:"
            f" {_few(np.unique(strangers).tolist())}. Declared are {self.labels}. {GIVE}, or correct the mask."
        )


def number(value: FileValue) -> int:
    """Return the number that ``read_mask`` gives for a file value: a grey colour's is its grey value.

    >>> number(255), number("#0000ff") - COLOUR, number("#ffffff")
    (255, 255, 255)
    """
    if isinstance(value, int):
        return value
    code = int(value[1:], 16)
    return code & 255 if code % 0x010101 == 0 else COLOUR | code


def file_value(value: int) -> FileValue:
    """Return the file value for a number of ``read_mask``: the inverse of ``number``."""
    return f"#{value - COLOUR:06x}" if value >= COLOUR else value


def _problems(labels: dict[str, FileValue]) -> Iterable[str]:
    wrong = [name for name, value in labels.items() if not _is_value(value)]
    yield from (f"{name}: {labels[name]!r} is neither a whole number nor a colour '#rrggbb'" for name in wrong)
    if not 2 <= len(labels) <= MOST_CLASSES:
        yield f"{len(labels)} classes; 2 to {MOST_CLASSES} are allowed, background being the first"
    if "background" in labels and next(iter(labels)) != "background":
        yield "background must be the first class"
    numbers = [number(value) for name, value in labels.items() if name not in wrong]
    for value in sorted({value for value in numbers if numbers.count(value) > 1}):
        yield f"{file_value(value)} is the value of more than one class"


def _is_value(value: FileValue) -> bool:
    if isinstance(value, str):
        return re.fullmatch("#[0-9a-fA-F]{6}", value) is not None
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _few(values: Iterable[int], most: int = 10) -> str:
    names = [str(file_value(value)) for value in sorted(values)]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
