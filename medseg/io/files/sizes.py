"""How large a case is, told by the headers of its files alone."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.files.damage import reading
from medseg.io.files.read import format_of
from medseg.io.formats import images_2d, nifti


@dataclass(frozen=True)
class Size:
    """Voxels of one channel, number of channels, and the volume of a voxel in mm³ (1 for 2D images)."""

    voxels: int
    channels: int
    voxel_volume: float

    def __str__(self) -> str:
        """Say how large it is."""
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
    reader = format_of(path)
    if reader not in (nifti, images_2d):
        grid, channels = reader.grid(path)
        axes = grid.affine[:3, : len(grid.shape)]
        return Size(prod(grid.shape), channels, float(np.sqrt(np.linalg.det(axes.T @ axes))))
    if reader is images_2d:
        with Image.open(path) as image:
            mode = images_2d.MODES.get(image.mode, image.mode)
            return Size(prod(image.size), Image.getmodebands(mode), 1.0)
    header = nifti.read_header(path)
    shape = header.get_data_shape()
    channels = 3 if header.get_data_dtype().names else prod(shape[3:])
    axes = 2 if shape[2:3] == (1,) else len(shape[:3])
    spacing = header.get_zooms()[:axes]
    return Size(prod(shape[:3]), channels, float(np.prod(spacing)) * nifti.millimetres(header) ** axes)
