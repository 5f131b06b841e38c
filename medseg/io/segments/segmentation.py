"""Named segments, which ``.seg.nrrd``, DICOM SEG and RTSTRUCT hold: matched to classes, merged and laid in place."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from medseg.errors import MedsegError, nearest
from medseg.io.case import GridPolicy, Scan
from medseg.io.grids.alignment import fit_mask, grid_of
from medseg.io.grids.grid import Grid, as_volume, index_map, same_grid, voxel_map
from medseg.io.grids.resample import turn
from medseg.io.labels import IGNORE, IGNORE_NAME, LabelMap
from medseg.io.warnings import warn

Indices = NDArray[np.uint8]


@dataclass(frozen=True)
class Segment:
    """One segment: its mask, bool, within the box of the grid that begins at voxel ``start``."""

    name: str
    start: tuple[int, ...]
    mask: NDArray[np.bool_]

    @property
    def box(self) -> tuple[slice, ...]:
        """Where the mask lies in the grid."""
        return tuple(slice(first, first + length) for first, length in zip(self.start, self.mask.shape, strict=True))


@dataclass(frozen=True)
class Segmentation:
    """The segments of a file on a grid of three axes, made one at a time, since many large ones fill the memory."""

    grid: Grid
    segments: Iterable[Segment]


def labelled(layers: Sequence[NDArray[np.integer]], described: Iterable[tuple[str, int, int]]) -> Iterator[Segment]:
    """Yield the segments of label maps of three axes, described by name, layer and value, unless empty."""
    described = list(described)
    # boxes are looked for up to the highest value of a segment: those of all values of a layer could fill the memory
    highest = max((value for _, _, value in described), default=1)
    boxes = [find_objects(layer, max(1, highest)) for layer in layers]
    for segment, layer, value in described:
        box = boxes[layer][value - 1] if 0 < value <= len(boxes[layer]) else None
        if box is not None:
            yield Segment(segment, tuple(span.start for span in box), layers[layer][box] == value)


def class_of(segment: str, renamed: Mapping[str, str | None]) -> str | None:
    """Return the class that a segment is meant for: its own name, unless a pattern of ``dataset.segments`` fits it.

    >>> class_of("GTV-1", {"gtv*": "tumour", "*": None}), class_of("Body", {"*": None}), class_of("Liver", {})
    ('tumour', None, 'Liver')
    """
    fitting = (pattern for pattern in renamed if fnmatchcase(segment.casefold(), str(pattern).casefold()))
    pattern = next(fitting, None)
    name = segment if pattern is None else renamed[pattern]
    return None if name is None else str(name)


def class_indices(
    segments: Iterable[str], renamed: Mapping[str, str | None], label_map: LabelMap, where: str
) -> dict[str, int]:
    """Return the class index of each segment, 0 for those to be left out; ``where`` names the file in errors.

    Raises:
        MedsegError: a segment is meant for a class that there is not.
    """
    classes = {segment: class_of(segment, renamed) for segment in segments}
    known = {known.casefold(): index for index, known in enumerate(label_map.names)}
    known |= {IGNORE_NAME: IGNORE} if IGNORE_NAME in label_map.labels else {}
    unknown = [segment for segment, name in classes.items() if name is not None and name.casefold() not in known]
    if unknown:
        hint = nearest(str(classes[unknown[0]]), label_map.names)
        raise MedsegError(
            f"{where}: the segments {', '.join(map(repr, unknown))} are none of the classes"
            f" {', '.join(label_map.names[1:])}.{hint} Map them, for example dataset.segments="
            f"'{{{unknown[0]}: CLASS, *: null}}', where null leaves a segment out; * fits any name."
        )
    return {segment: 0 if name is None else known[name.casefold()] for segment, name in classes.items()}


def merged(segmentation: Segmentation, indices: Mapping[str, int], where: str) -> Indices:
    """Return class indices (*grid) of all segments, of overlapping ones the last, with a warning where classes overlap.

    Segments of the index 0 are left out.
    """
    result = np.zeros(segmentation.grid.shape, dtype=np.uint8)
    overlaps: dict[str, int] = {}
    for segment in segmentation.segments:
        index, below = indices[segment.name], result[segment.box]
        if index == 0:
            continue
        if count := int(np.count_nonzero(segment.mask & (below != 0) & (below != index))):
            overlaps[segment.name] = count
        below[segment.mask] = index
    if overlaps:
        counts = ", ".join(f"{segment!r} in {count} voxels" for segment, count in overlaps.items())
        warn(f"{where}: segments overlap; painted over those before them are {counts}")
    return result


def fit_indices(path: Path, indices: Indices, grid: Grid, like: Scan, geometry: GridPolicy) -> Indices:
    """Return class indices on the grid of ``like``; those on a part of it or turned are laid in place as they are.

    Raises:
        MedsegError: they lie on another grid in a way that ``geometry`` does not allow (see ``alignment.fit_mask``).
    """
    laid = laid_in_place(indices, grid, as_volume(grid_of(like)), path)
    if laid is not None:
        return laid.reshape(like.shape)
    flat = indices[..., 0] if len(like.shape) == 2 and indices.shape[2] == 1 else indices
    return fit_mask(path, flat.astype(np.int32), grid.affine, "mm", like, geometry, 0).astype(np.uint8)


def laid_in_place(indices: Indices, grid: Grid, target: Grid, path: Path) -> Indices | None:
    """Return indices on the target where voxel centres of both coincide, 0 elsewhere; None where they do not."""
    turned, source = turn(indices, grid, target)
    shift = np.rint(index_map(target, source)[:3, 3]).astype(int)
    if not same_grid(source, Grid(source.shape, target.affine @ voxel_map(np.ones(3), shift))):
        return None
    first = np.clip(shift, 0, target.shape)
    last = np.clip(shift + source.shape, first, target.shape)
    if (first == last).any():
        return None
    result = np.zeros(target.shape, dtype=np.uint8)
    inside = turned[tuple(map(slice, first - shift, last - shift))]
    result[tuple(map(slice, first, last))] = inside
    if lost := int(np.count_nonzero(indices)) - int(np.count_nonzero(inside)):
        warn(f"{path}: {lost} voxels of its segments lie beyond the scan and are left out")
    return result


def unique(names: Sequence[str]) -> list[str]:
    """Return names in order, those that differ in case only once.

    >>> unique(["Liver", "spleen", "liver"])
    ['Liver', 'spleen']
    """
    unique_names: dict[str, str] = {}
    for known in names:
        unique_names.setdefault(known.casefold(), known)
    return list(unique_names.values())
