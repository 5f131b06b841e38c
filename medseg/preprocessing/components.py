"""The connected components of each class: how many there are, how large, and where."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]

PART = 1 << 22  # voxels counted at once: bincount takes eight bytes for each


def components(truth: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """Measure the components of each foreground class, joined through faces, edges and corners.

    ``truth`` holds class indices (*spatial), ``n_classes`` counts the background. Work and memory follow the classes'
    bounding boxes.

    Returns:
        (n, 2 + d), a row a component: class index, voxels, and the middle of its bounding box in voxels of ``truth``.
        Those of a class are sorted by size, the largest first.
    """
    found = [measured(index, box, parts, number) for index, box, parts, number in parts_of(truth, n_classes)]
    return np.concatenate([np.empty((0, 2 + truth.ndim), np.int64), *found])


def parts_of(truth: NDArray[np.uint8], n_classes: int) -> Iterator[tuple[int, Box, NDArray[np.int32], int]]:
    """Yield of each class that is there: its index, its box, in this box the components' numbers from 1, how many."""
    from scipy.ndimage import find_objects, label

    connected = np.ones((3,) * truth.ndim)
    for index, box in enumerate(find_objects(truth, max_label=n_classes - 1), start=1):
        if box is not None:
            yield index, box, *label(truth[box] == index, connected)


def measured(index: int, box: Box, parts: NDArray[np.int32], number: int) -> NDArray[np.int64]:
    """Return the rows (number, 2 + d) of a class's components."""
    from scipy.ndimage import find_objects

    start = np.array([span.start for span in box])
    middles = [[(span.start + span.stop - 1) // 2 for span in part] for part in find_objects(parts)]
    sizes = voxels_of(parts, number)
    rows = np.column_stack([np.full(number, index), sizes, np.array(middles) + start])
    return rows[np.argsort(-sizes, kind="stable")]


def voxels_of(parts: NDArray[np.int32], number: int) -> NDArray[np.int64]:
    """Count the voxels (number,) of each component."""
    pieces = np.array_split(parts.ravel(), 1 + parts.size // PART)
    return np.sum([np.bincount(piece, minlength=number + 1) for piece in pieces], axis=0)[1:]
