"""Boxes round masks, so that what is small takes no whole volume."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest box that holds a mask of at least one voxel."""
    axes = range(mask.ndim)
    hits = (np.flatnonzero(mask.any(axis=tuple(other for other in axes if other != axis))) for axis in axes)
    return tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)


def around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of these."""
    return tuple(slice(min(s.start for s in spans), max(s.stop for s in spans)) for spans in zip(*boxes, strict=True))


def widened(box: Box, margin: int) -> Box:
    """Return a box with a margin, cut where an array begins; NumPy cuts it where the array ends."""
    return tuple(slice(max(0, span.start - margin), span.stop + margin) for span in box)
