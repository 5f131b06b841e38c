"""How large a case is, by the headers of its files alone."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.damage import reading
from medseg.io.files.read import format_of


@dataclass(frozen=True)
class Size:
    """Voxels of one channel, number of channels, and the volume of a voxel in mm³ (1 for 2D images)."""

    voxels: int
    channels: int
    voxel_volume: float

    def __str__(self) -> str:
        """Describe the size, for messages."""
        return f"{self.channels} channel(s) of {self.voxels:,} voxels" if self.voxels else "of unknown size"


UNKNOWN = Size(0, 0, 1.0)


def size_of(case: Case) -> Size:
    """Return the size of a case, ``UNKNOWN`` where a header cannot be read: reading it all will tell why."""
    try:
        with reading(case.images[0], "image"):
            sizes = [file_size(path) for path in case.images]
    except MedsegError:
        return UNKNOWN
    return Size(sizes[0].voxels, sum(size.channels for size in sizes), sizes[0].voxel_volume)


def file_size(path: Path) -> Size:
    """Return the size of one image."""
    grid, channels = format_of(path).grid(path)
    axes = grid.affine[:3, : len(grid.shape)]
    return Size(prod(grid.shape), channels, float(np.sqrt(np.linalg.det(axes.T @ axes))))
