"""Classes that are no structures: values that lossy formats, smoothed edges or interpolation leave between others.

Interpolated, the edge of 0 and 4 has voxels of 1, 2 and 3: each lies between a lower and a higher one. A structure that
lies between two others has an inside, or is at least two voxels thick, so that few of its voxels touch both.
"""

import numpy as np
from numpy.typing import NDArray

from medseg.io.formats.mask_values import rgb
from medseg.io.grids.grid import bounding_box
from medseg.io.labels import IGNORE, LabelMap

SLAB = 1 << 22  # voxels looked at once

Counts = NDArray[np.int64]


def inside_and_between(mask: NDArray[np.uint8], label_map: LabelMap) -> tuple[Counts, Counts]:
    """Count of each class (K,) the voxels whose neighbours are all of it, and those between lower and higher values.

    ``mask`` holds class indices (*spatial). Neighbours are along the axes; beyond the edge are none. A voxel is
    between where the two along an axis have a lower and a higher file value than its own; colours are ordered by red,
    then green, then blue, which mixtures of two colours keep. Two classes have nothing between: both counts are 0.
    """
    n_classes = len(label_map.names)
    inside, between = np.zeros(n_classes, np.int64), np.zeros(n_classes, np.int64)
    if n_classes < 3:
        return inside, between
    mask = mask.T if mask.flags.f_contiguous else mask  # counts do not depend on the order of the axes
    levels = np.zeros(IGNORE + 1, np.uint8)  # what is unknown counts as the lowest
    levels[:n_classes] = np.argsort(np.argsort(rgb(np.array(label_map.values)) @ (1 << np.array([32, 16, 0]))))
    if not mask.any():
        return inside, between
    mask = mask[bounding_box(mask, margin=1)]
    thick = max(1, SLAB // max(1, mask[0].size))
    for start in range(0, len(mask), thick):
        part = mask[start : start + thick]
        halo = int(start > 0)  # a slice on either side, for the neighbours of this slab's outermost voxels
        level = levels[mask[start - halo : start + thick + 1]]
        is_inside, is_between = np.ones(level.shape, bool), np.zeros(level.shape, bool)
        for axis in range(level.ndim):
            along = np.moveaxis(level, axis, 0)
            same_inside, some_between = np.moveaxis(is_inside, axis, 0), np.moveaxis(is_between, axis, 0)  # views
            equal, rises, falls = along[1:] == along[:-1], along[1:] > along[:-1], along[1:] < along[:-1]
            same_inside[1:] &= equal
            same_inside[:-1] &= equal
            some_between[1:-1] |= (rises[:-1] & rises[1:]) | (falls[:-1] & falls[1:])
        is_class = (part > 0) & (part < n_classes)
        inside += np.bincount(part[is_inside[halo : halo + thick] & is_class], minlength=n_classes)
        between += np.bincount(part[is_between[halo : halo + thick] & is_class], minlength=n_classes)
    return inside, between
