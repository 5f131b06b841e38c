"""Classes by name, by file value and by index, and regions, which are unions of classes: translated here alone."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, listing, nearest
from medseg.io.case import FileValue, FileValues

COLOUR = 1 << 24
"""Bit that marks a mask's value as a colour: ``COLOUR | 0xRRGGBB``. Grey pixels have their plain grey value."""

IGNORE = 255
"""Index of voxels whose class is unknown: they give no loss and no metric."""
IGNORE_NAME = "ignore"
CHUNK = 1 << 20  # voxels looked up at once: positions take 64 bits each, too much for a large CT at once
MOST_CLASSES = 255  # indices are uint8, and 255 is IGNORE
MAX_LISTED = 32  # problems, each with a search for the nearest name
MOST_FOUND = 32  # more values than that in masks are rather grey levels or instances than classes

BETWEEN = "If values between the classes come of JPEG, smoothing or resampling, add dataset.other_values=nearest."
GIVE = "Give the classes as dataset.labels='{background: 0, name: value, ...}'"


@dataclass(frozen=True)
class LabelMap:
    """The classes of a data set by name, background first; a class's index is its position.

    ``labels`` gives each class its file value, or several that are merged into it; masks are written with the first.
    An entry named "ignore" is no class: its voxels are unknown. ``regions`` names unions of classes, which may overlap:
    they are then what a network learns and a report lists. In a predicted mask, region by region is given the class
    that ``region_order`` names; None: the one class of a region that no later region has. Before, a region is cut
    to those that contain it, unless they are not ``nested``. ``is_inferred`` marks classes that are the values found
    in masks, which nobody declared. Without masks (``has_masks``) the foreground is what an image shows.

    Raises:
        MedsegError: fewer than two classes or too many, background not first, two classes of one value, a value that is
            neither a whole number nor ``"#rrggbb"``, or regions without one class of their own.

    >>> import numpy as np
    >>> classes = medseg.LabelMap({"background": 0, "nucleus": 255})
    >>> classes.names, classes.reported, classes.decode(np.array([0, 1]))
    (('background', 'nucleus'), {'nucleus': (1,)}, array([  0, 255], dtype=uint8))
    """

    labels: dict[str, FileValues]
    regions: dict[str, list[str]] | None = None
    region_order: list[str] | None = None
    nested: bool = True
    is_inferred: bool = field(default=False, compare=False)
    has_masks: bool = True

    def __post_init__(self) -> None:
        if problems := list(_problems(self.labels)):
            raise MedsegError(
                f"dataset.labels={in_brief(self.labels)} is no list of classes:\n{listing(problems)}\n{GIVE}."
            )
        if problems := list(islice(self._region_problems(), MAX_LISTED)):
            raise MedsegError(f"dataset.regions={in_brief(self.regions)} cannot be used:\n{listing(problems)}")

    @classmethod
    def from_values(cls, values_in_masks: Iterable[int]) -> "LabelMap":
        """Name the values that occur in masks: background (0, or else the lowest), then foreground or class_<value>.

        Raises:
            MedsegError: the values are too few or too many to be classes.
        """
        values = sorted(set(values_in_masks), key=lambda value: (value != 0, value))
        if len(values) > MOST_FOUND:
            raise MedsegError(f"the masks hold over {MOST_FOUND} values: {few(values)}. {GIVE}. {BETWEEN}")
        if len(values) < 2:
            only = few(values) or "nothing"
            raise MedsegError(
                f"the masks hold {only} only, so no foreground (what is transparent is background). {GIVE}."
            )
        background, *classes = map(file_value, values)
        if len(classes) == 1:
            return cls({"background": background, "foreground": classes[0]}, is_inferred=True)
        names = {f"class_{value}".replace("#", ""): value for value in classes}
        return cls({"background": background, **names}, is_inferred=True)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each class."""
        return tuple(name for name in self.labels if name != IGNORE_NAME)

    @cached_property
    def values(self) -> tuple[int, ...]:
        """The number that masks are written with for each class, colours as ``COLOUR | 0xRRGGBB``."""
        return tuple(numbers(self.labels[name])[0] for name in self.names)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the channels of a network stand for: the regions, or else the classes, background included."""
        return tuple(self.regions) if self.regions else self.names

    @cached_property
    def reported(self) -> dict[str, tuple[int, ...]]:
        """The class indices of all that a report lists: the regions, or else each class but the background."""
        if self.regions:
            return {name: tuple(map(self.names.index, members)) for name, members in self.regions.items()}
        return {name: (index,) for index, name in enumerate(self.names) if index}

    @cached_property
    def region_indices(self) -> tuple[int, ...]:
        """The class index that voxels of each region are given, in order; empty without regions."""
        regions = [set(members) for members in (self.regions or {}).values()]
        own = [members.difference(*regions[index + 1 :]) for index, members in enumerate(regions)]
        order = self.region_order or [min(names, key=self.names.index) for names in own]
        return tuple(map(self.names.index, order))

    def encode(self, values: NDArray[np.int32], where: str, *, others_unknown: bool = False) -> NDArray[np.uint8]:
        """Turn file values into class indices, any shape; ``where`` names the file in errors.

        Raises:
            MedsegError: a value is none of the declared ones, and these are not to be IGNORE.
        """
        # every value that is declared, sorted, and the class index of each
        index_of = {name: index for index, name in enumerate(self.names)} | {IGNORE_NAME: IGNORE}
        declared = {value: index_of[name] for name, values in self.labels.items() for value in numbers(values)}
        known = np.array(sorted(declared))
        known_indices = np.array([declared[value] for value in sorted(declared)], dtype=np.uint8)
        flat, indices = values.ravel(), np.empty(values.size, dtype=np.uint8)
        undeclared = []
        for start in range(0, flat.size, CHUNK):
            # searchsorted in known[1:] gives the position in ``known`` of the last value that is not above a voxel's:
            # its own where it is declared; values below all that are declared get position 0, and are not equal either
            part = flat[start : start + CHUNK]
            positions = np.searchsorted(known[1:], part, side="right")
            is_undeclared = known[positions] != part
            indices[start : start + CHUNK] = np.where(is_undeclared, IGNORE, known_indices[positions])
            undeclared.append(part[is_undeclared])
        if any(map(len, undeclared)) and not others_unknown:
            wrong = np.concatenate(undeclared)
            raise MedsegError(
                f"{where}: {wrong.size} voxels have values that are none of the declared classes:"
                f" {few(np.unique(wrong).tolist())}. Declared are {self.labels}. {GIVE}, or correct the mask."
                " dataset.other_values=nearest gives such voxels the class of the nearest value, ignore makes them"
                " unknown."
            )
        return indices.reshape(values.shape)

    def decode(self, indices: NDArray[np.integer]) -> NDArray[np.integer]:
        """Turn class indices into file values, any shape, in a type no larger than the classes need."""
        return in_smallest_type(np.array(self.values))[indices]

    def annotated(self, classes: Iterable[str] | None) -> NDArray[np.bool_]:
        """Return of each class, background included, whether it is among those annotated in a case; None: all are."""
        if classes is None:
            return np.ones(len(self.names), dtype=bool)
        return np.array([index == 0 or name in set(classes) for index, name in enumerate(self.names)])

    def is_known(self, annotated: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return of each that is reported whether its reference is known where these classes (K,) are annotated."""
        return np.array([annotated[list(members)].all() for members in self.reported.values()])

    def _region_problems(self) -> Iterable[str]:
        regions = self.regions or {}
        if len(regions) > MOST_CLASSES:
            yield f"{len(regions)} regions; {MOST_CLASSES} are allowed at most"
        for region, members in regions.items():
            for name in members:
                if name not in self.names[1:]:
                    yield f"{region}: {name!r} is no foreground class.{nearest(str(name), self.names[1:])}"
            if not members:
                yield f"{region} has no classes"
        if self.region_order and len(self.region_order) != len(regions):
            yield f"dataset.region_order={self.region_order} must name a class for each of the {len(regions)} regions"
        for name in self.region_order or ():
            if name not in self.names[1:]:
                yield f"dataset.region_order: {name!r} is no foreground class.{nearest(str(name), self.names[1:])}"
        for index, (region, members) in enumerate(regions.items() if not self.region_order else ()):
            own = set(members).difference(*list(regions.values())[index + 1 :])
            if len(own) != 1:
                yield (
                    f"{region}: {', '.join(sorted(own)) or 'no class'} would be painted; one class is needed. Put"
                    " larger regions before smaller ones, or name the class of each by dataset.region_order"
                )


def class_values(names: Iterable[str]) -> dict[str, FileValues]:
    """Give classes the values 1, 2, ... in their order, after the background's 0."""
    return {name: value for value, name in enumerate(["background", *names])}


def number(value: FileValue) -> int:
    """Return the number that ``read_mask`` gives for a file value: a grey colour's is its grey value.

    >>> number(255), number("#0000ff") - COLOUR, number("#ffffff")
    (255, 255, 255)
    """
    if isinstance(value, int):
        return value
    code = int(value[1:], 16)
    return code & 255 if code % 0x010101 == 0 else COLOUR | code


def numbers(values: FileValues) -> list[int]:
    """Return the numbers of a class's file values."""
    return [number(value) for value in as_list(values)]


def file_value(value: int) -> FileValue:
    """Return the file value for a number of ``read_mask``: the inverse of ``number``.

    Volumes may hold whole numbers that are too large for a colour's.

    >>> file_value(255), file_value(COLOUR | 255), file_value(2 * COLOUR)
    (255, '#0000ff', 33554432)
    """
    return f"#{value - COLOUR:06x}" if is_colour(value) else value


def as_list(values: FileValues) -> list[FileValue]:
    """Return a class's file values, of which there may be one, as a list."""
    return values if isinstance(values, list) else [values]


def in_smallest_type(values: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return whole numbers in the smallest type that holds them."""
    return values.astype(np.promote_types(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))


def in_brief(named: object, most: int = 1000) -> str:
    """Write down classes or regions, of many only the beginning."""
    text = str(named)
    return text if len(text) <= most else f"{text[:most]}..."


def few(values: Iterable[int], most: int = 10) -> str:
    """Write down some file values."""
    names = [str(file_value(value)) for value in sorted(values)]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _problems(labels: dict[str, FileValues]) -> Iterable[str]:
    listed = {name: as_list(values) for name, values in labels.items()}
    wrong = [(name, value) for name, values in listed.items() for value in values if not _is_value(value)]
    yield from (f"{name}: {value!r} is neither a whole number nor a colour '#rrggbb'" for name, value in wrong)
    yield from (f"{name} has no value" for name, values in listed.items() if not values)
    yield from (
        f"{name!r} is no text: it cannot be written in UTF-8"
        for name in labels
        if re.search("[\ud800-\udfff]", str(name))
    )
    classes = [name for name in labels if name != IGNORE_NAME]
    if not 2 <= len(classes) <= MOST_CLASSES:
        yield f"{len(classes)} classes; 2 to {MOST_CLASSES} are allowed, background being the first"
    if "background" in labels and next(iter(labels)) != "background":
        yield "background must be the first class"
    elif "background" not in labels and 0 not in [
        number(v) for values in listed.values() for v in values if _is_value(v)
    ]:
        yield "there is no background: it comes first, mostly as background: 0"
    if next(iter(labels), "") == IGNORE_NAME:
        yield f"{IGNORE_NAME} is no class and cannot be the first"
    all_numbers = [number(value) for values in listed.values() for value in values if _is_value(value)]
    for value in sorted(value for value, count in Counter(all_numbers).items() if count > 1):
        yield f"{file_value(value)} is the value of more than one class"


def _is_value(value: FileValue) -> bool:
    if isinstance(value, str):
        return re.fullmatch("#[0-9a-fA-F]{6}", value) is not None
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


UNLABELLED = LabelMap({"background": 0, "foreground": 1}, has_masks=False)
"""Where no mask is looked at: foreground is then what an image shows."""


def is_colour(values: Any) -> Any:
    """Return which of some file values stand for colours: no grey does, nor what has bits beyond ``COLOUR``."""
    codes = np.asarray(values, dtype=np.int64)
    return (codes >> 24 == 1) & ((codes - COLOUR) % 0x010101 != 0)
