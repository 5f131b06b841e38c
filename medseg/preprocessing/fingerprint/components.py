"""The connected components of each class: how many there are, how large, and where."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medseg.io.grids.components import connected_components

Box = tuple[slice, ...]

SMALL = 4
"""Voxels a side of what is small."""
CHUNK_SIZE = 1 << 22


def count_values(values: NDArray[np.integer], n: int) -> NDArray[np.int64]:
    """Count how often each number 0…n-1 occurs, in chunks: bincount takes eight bytes for each value of its input."""
    chunks = np.array_split(values.ravel(), 1 + values.size // CHUNK_SIZE)
    return np.sum([np.bincount(chunk, minlength=n) for chunk in chunks], axis=0)


def components(mask: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """Measure the components of each foreground class, joined through faces, edges and corners.

    ``mask`` holds class indices (*spatial), ``n_classes`` counts the background. Work and memory follow the classes'
    bounding boxes.

    Returns:
        (n, 3 + d), a row a component: class index, voxels, 1 if it is small and isolated, and the middle of its
        bounding box in voxels of ``mask``. Those of a class are sorted by size, the largest first.
    """
    tables = [np.empty((0, 3 + mask.ndim), np.int64)]
    for class_components in components_by_class(mask, n_classes):
        rows = measured(mask, *class_components)
        tables.append(rows[np.argsort(-rows[:, 1], kind="stable")])
    return np.concatenate(tables)


def components_by_class(mask: NDArray[np.uint8], n_classes: int) -> Iterator[tuple[int, Box, NDArray[np.int32], int]]:
    """Yield of each class in a mask: its index, its box, in this box the components' numbers from 1, how many."""
    from scipy.ndimage import find_objects

    for index, box in enumerate(find_objects(mask, max_label=n_classes - 1), start=1):
        if box is not None:
            yield index, box, *connected_components(mask[box] == index)


def measured(
    mask: NDArray[np.uint8], index: int, box: Box, numbered: NDArray[np.int32], count: int
) -> NDArray[np.int64]:
    """Return the rows (count, 3 + d) of ``components`` for the components of a class, in the order of their numbers.

    A component is isolated if no other class is within a voxel of its bounding box.
    """
    from scipy.ndimage import find_objects

    start = np.array([span.start for span in box])
    boxes = find_objects(numbered)
    middles = np.array([[(span.start + span.stop - 1) // 2 for span in part] for part in boxes])
    sizes = count_values(numbered, count + 1)[1:]
    is_isolated = np.zeros(count, bool)
    for number in np.flatnonzero(sizes <= SMALL**mask.ndim):
        spans = zip(start, boxes[number], strict=True)
        around = mask[tuple(slice(max(0, at + span.start - 1), at + span.stop + 1) for at, span in spans)]
        is_isolated[number] = np.isin(around, (0, index)).all()
    return np.column_stack([np.full(count, index), sizes, is_isolated, middles + start])
