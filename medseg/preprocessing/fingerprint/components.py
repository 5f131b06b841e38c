"""The connected components of each class: how many there are, how large, and where."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]

SMALL = 4
"""Voxels a side of what is small."""
PART = 1 << 22  # voxels counted at once: bincount takes eight bytes for each


def components(truth: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """Measure the components of each foreground class, joined through faces, edges and corners.

    ``truth`` holds class indices (*spatial), ``n_classes`` counts the background. Work and memory follow the classes'
    bounding boxes.

    Returns:
        (n, 3 + d), a row a component: class index, voxels, 1 if it is small and alone (see ``alone``), and the middle
        of its bounding box in voxels of ``truth``. Those of a class are sorted by size, the largest first.
    """
    found = [np.empty((0, 3 + truth.ndim), np.int64)]
    for part in parts_of(truth, n_classes):
        rows = measured(truth, *part)
        found.append(rows[np.argsort(-rows[:, 1], kind="stable")])
    return np.concatenate(found)


def parts_of(truth: NDArray[np.uint8], n_classes: int) -> Iterator[tuple[int, Box, NDArray[np.int32], int]]:
    """Yield of each class that is there: its index, its box, in this box the components' numbers from 1, how many."""
    from scipy.ndimage import find_objects, label

    connected = np.ones((3,) * truth.ndim)
    for index, box in enumerate(find_objects(truth, max_label=n_classes - 1), start=1):
        if box is not None:
            yield index, box, *label(truth[box] == index, connected)


def measured(
    truth: NDArray[np.uint8], index: int, box: Box, parts: NDArray[np.int32], number: int
) -> NDArray[np.int64]:
    """Return the rows (number, 3 + d) of a class's components, in the order of their numbers."""
    from scipy.ndimage import find_objects

    start = np.array([span.start for span in box])
    found = find_objects(parts)
    middles = np.array([[(span.start + span.stop - 1) // 2 for span in part] for part in found])
    sizes = voxels_of(parts, number)
    small = sizes <= SMALL**truth.ndim
    is_alone = [little and alone(truth, index, start, part) for little, part in zip(small, found, strict=True)]
    return np.column_stack([np.full(number, index), sizes, is_alone, middles + start])


def alone(truth: NDArray[np.uint8], index: int, start: NDArray[np.int64], part: Box) -> bool:
    """Tell whether no other class is within a voxel of a component's box, ``part`` seen from ``start``."""
    around = truth[tuple(slice(max(0, at + s.start - 1), at + s.stop + 1) for at, s in zip(start, part, strict=True))]
    return bool(np.isin(around, (0, index)).all())


def voxels_of(parts: NDArray[np.int32], number: int) -> NDArray[np.int64]:
    """Count the voxels (number,) of each component."""
    pieces = np.array_split(parts.ravel(), 1 + parts.size // PART)
    return np.sum([np.bincount(piece, minlength=number + 1) for piece in pieces], axis=0)[1:]
