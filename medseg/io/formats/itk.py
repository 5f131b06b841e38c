"""NRRD and MetaImage files: axes in the order (i, j, k) of nibabel, positions turned from LPS to RAS.

They are read here, since ITK takes damaged files for good ones, and some bring it down. They are written by SimpleITK.
"""

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.formats import metaimage, nrrd
from medseg.io.formats.nifti import channels_first, check_affine
from medseg.io.formats.voxel_files import VoxelFiles, read_voxels
from medseg.io.grids.alignment import grid_of
from medseg.io.grids.grid import LPS_RAS, Grid, as_volume, simpleitk
from medseg.io.labels import in_smallest_type

SEGMENTATION = ".seg.nrrd"
"""3D Slicer's name for a segmentation, which is no scan."""

SUFFIXES = (SEGMENTATION, ".nrrd", ".nhdr", ".mha", ".mhd")

IN_ONE_FILE = {".nhdr": ".nrrd", ".mhd": ".mha"}
"""Forms of header and data apart, and the same form in one file, which alone can be written whole or not at all."""


@dataclass(frozen=True)
class ItkLayout:
    """What gives a mask the form of the image at ``path``: its array's shape without channels."""

    path: Path
    shape: tuple[int, ...]
    unit: ClassVar = "mm"


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], ItkLayout]:
    """Read one file as voxels (C, *spatial) of its own type, its affine (to RAS+ mm) and its layout.

    Components of a voxel, or a fourth axis, are channels. A third axis of length 1 is no axis.

    Raises:
        MedsegError: the file or its data file is missing, too short, or of a form that is no scan.
        Exception: it is damaged; see ``medseg.io.damage``.
    """
    stored = voxel_files(path)
    voxels = read_voxels(stored)  # (*axes, components)
    planes = channels_first(voxels[:, :, None] if voxels.ndim == 3 else voxels, path)
    return planes, affine_of(stored, axes=planes.ndim - 1), ItkLayout(path, stored.size[:3])


def grid(path: Path) -> tuple[Grid, int]:
    """Return the grid of an image and the number of its channels, from the header alone; errors as in ``read``."""
    stored = voxel_files(path)
    axes = 2 if stored.size[2:3] in ((), (1,)) else 3
    channels = stored.channels * int(np.prod(stored.size[3:]))
    return Grid(stored.size[:axes], affine_of(stored, axes=axes)), channels


def voxel_files(path: Path) -> VoxelFiles:
    """Return where the voxels of an image are, from its header; ValueError where it is damaged."""
    if is_nrrd(path):
        return nrrd.voxel_files(path, nrrd.read_header(path))
    return metaimage.voxel_files(path)


def data_files(path: Path) -> list[Path]:
    """Return the files that hold the voxels of a header at ``path``, there or not; ValueError where it is damaged."""
    if is_nrrd(path):
        return nrrd.data_files(path, nrrd.read_header(path))
    return metaimage.data_files(path, *metaimage.read_header(path))


def is_nrrd(path: Path) -> bool:
    """Return whether a file is NRRD rather than MetaImage, by its first bytes."""
    with path.open("rb") as stream:
        return stream.read(len(nrrd.MAGIC)) == nrrd.MAGIC


def affine_of(stored: VoxelFiles, *, axes: int) -> NDArray[np.float64]:
    """Return the affine of an image to RAS+ mm; MedsegError where it gives one of the first ``axes`` no size."""
    affine = LPS_RAS @ stored.affine
    check_affine(affine, stored.path, axes=axes)
    return affine


def write(path: Path, values: NDArray[np.integer], like: Scan) -> None:
    """Write ``values`` (*spatial) on the grid of ``like``, compressed, in the smallest type."""
    sitk = simpleitk()
    stored = like.layout.shape if isinstance(like.layout, ItkLayout) else (*values.shape, 1)[:3]
    values = in_smallest_type(values)
    image = sitk.GetImageFromArray(values.reshape(stored).T)
    set_grid(image, as_volume(grid_of(like)).affine, axes=len(stored))
    save(image, path)


def set_grid(image: Any, affine: NDArray[np.float64], *, axes: int = 3) -> None:
    """Give an image of so many axes the spacing, direction and origin of an affine to RAS+ mm."""
    to_lps = LPS_RAS @ affine
    matrix = to_lps[:axes, :axes]
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin(to_lps[:axes, 3].tolist())


def save(image: Any, path: Path) -> None:
    """Write an image, compressed.

    Raises:
        OSError: it cannot be written.
        MedsegError: the path is none that ITK can have, which would abort the process.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise MedsegError(
            f"{path}: the name holds bytes that are not UTF-8, which NRRD and MetaImage files cannot have here. Rename "
            "the file or its folder, as convmv -f latin1 -t utf8 does."
        ) from error
    try:
        simpleitk().WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        # the last line of ITK's message says what is wrong; those before it say where in ITK
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise OSError(reason[0].strip()) from error
    if path.suffix == ".nrrd" and not is_whole(path):  # of which ITK says nothing
        raise OSError("it was written in part, as happens on a full disk")


def is_whole(path: Path) -> bool:
    """Return whether the compressed voxels of an NRRD file are all there."""
    with path.open("rb") as file:
        content = file.read(os.fstat(file.fileno()).st_size)
    _, _, voxels = content.partition(b"\n\n")
    try:
        return bool(gzip.decompress(voxels))
    except (EOFError, OSError, zlib.error):
        return False
