"""NIfTI files: axes in nibabel's order (i, j, k), channels last on disk and first in memory."""

import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.notices import warn

SUFFIXES = (".nii.gz", ".nii")

DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    MemoryError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)
"""What nibabel and gzip raise on files that are truncated, damaged or something else."""

MM = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}
"""Length of the header's spatial unit; ITK reads it the same way."""


@dataclass(frozen=True)
class NiftiLayout:
    """What gives a mask the form of the image at ``path``: its header, and its array's shape without channels."""

    path: Path
    header: nib.Nifti1Header
    shape: tuple[int, ...]
    unit: ClassVar = "mm"

    @property
    def may_be_stack(self) -> bool:
        """Whether the array is (x, y, 1, n): the channels of a picture, or as likely the slices of a volume."""
        stored = self.header.get_data_shape()
        return len(stored) == 4 and stored[2] == 1 and stored[3] > 1


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], NiftiLayout]:
    """Read one file as voxels (C, *spatial) of its own type, its affine (to RAS+ mm) and its layout.

    A third axis of length 1 is no axis: (h, w), (h, w, 1) and (h, w, 1, C) are pictures with two spatial axes.

    Raises:
        MedsegError: the file is damaged or no NIfTI, its array has no clear channel axis or is complex, or its affine
            is singular.
    """
    header, data = _load(path)
    layout = NiftiLayout(path, header, data.shape[:3])
    planes = _planes(data, path)  # (C, *spatial)
    return planes, _affine(header, path, axes=planes.ndim - 1), layout


def as_stack(
    planes: NDArray[Any], affine: NDArray[np.float64], layout: NiftiLayout
) -> tuple[NDArray[Any], NDArray[np.float64], NiftiLayout]:
    """Take what ``read`` returned of (x, y, 1, n) as one channel of n slices, (1, x, y, n), whose masks are alike.

    Raises:
        MedsegError: the affine gives the slices no distance.
    """
    check_affine(affine, layout.path, axes=3)
    stored = tuple(map(int, layout.header.get_data_shape()))
    return np.moveaxis(planes, 0, -1)[None], affine, replace(layout, shape=stored)


def write(path: Path, values: NDArray[np.integer], like: Scan) -> None:
    """Write ``values`` (*spatial) with the shape, affines, codes and units of ``like``, in the smallest type."""
    values = values.astype(np.promote_types(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
    if isinstance(like.layout, NiftiLayout):
        image = _in_form(values, like.layout)
    else:
        image = nib.Nifti1Image(values, like.affine)
        image.header.set_xyzt_units("mm")
    nib.save(image, path)


FORMAL = ("magic", "regular")
"""Texts in a header that say what a file is, and not what is in it."""


def _in_form(values: NDArray[np.integer], layout: NiftiLayout) -> nib.Nifti1Image:
    header = layout.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_intent("none")  # a vector or statistics file's mask is neither
    header["cal_min"] = header["cal_max"] = 0  # the image's display window would hide the classes
    header.extensions.clear()
    for field in header.structarr.dtype.names:  # descriptions, which may name the patient
        if header.structarr.dtype[field].kind == "S" and field not in FORMAL:
            header[field] = b""
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return kind(values.reshape(layout.shape), header.get_best_affine(), header)  # its own affine keeps both forms


def _load(path: Path) -> tuple[nib.Nifti1Header, NDArray[Any]]:
    compressed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            image: Any = kind_of(cast(BinaryIO, stream)).from_stream(stream)
            scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
            data = np.asanyarray(
                image.dataobj, dtype=np.float32 if scaled else None
            )  # scaling in float64 takes twice the memory
            if compressed:
                stream.read()  # nibabel stops before the checksum
    except DAMAGE as error:
        raise MedsegError(f"{path}: no readable NIfTI file; damaged, truncated or something else? {error}") from error
    return image.header, data


def kind_of(stream: BinaryIO) -> type[nib.Nifti1Image]:
    """Tell NIfTI-2 from NIfTI-1 by the first four bytes, which stay to be read."""
    size = stream.read(4)
    stream.seek(0)
    return nib.Nifti2Image if 540 in (int.from_bytes(size, "little"), int.from_bytes(size, "big")) else nib.Nifti1Image


def _planes(data: NDArray[Any], path: Path) -> NDArray[Any]:
    """Bring an array in one of NIfTI's forms to (C, *spatial)."""
    if data.dtype.kind == "c":
        raise MedsegError(f"{path}: voxels are complex numbers ({data.dtype}). Store magnitude and phase as channels.")
    if data.dtype.names:  # red, green, blue and perhaps alpha
        return np.concatenate([channels_first(data[name], path) for name in "RGB"])
    return channels_first(data, path)


def channels_first(data: NDArray[Any], path: Path) -> NDArray[Any]:
    """Bring voxels (x, y), (x, y, z), (x, y, z, C) or (x, y, z, 1, C) to (C, *spatial); z = 1 is no axis."""
    spatial = data.shape[:2] if data.shape[2:3] == (1,) else data.shape[:3]
    if len(spatial) < 2 or 0 in data.shape or sum(length > 1 for length in data.shape[3:]) > 1:
        raise MedsegError(
            f"{path}: an array of shape {data.shape} is no scan. Allowed are (x, y), (x, y, z), (x, y, z, channels) and"
            " (x, y, z, 1, channels). Save it in one of these forms."
        )
    return np.moveaxis(data.reshape(*spatial, -1), -1, 0)


def _affine(header: nib.Nifti1Header, path: Path, *, axes: int) -> NDArray[np.float64]:
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        warn(f"{path}: neither sform nor qform in the header; assumed, as nibabel does, that x runs to the left")
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= MM[header.get_xyzt_units()[0]]
    check_affine(affine, path, axes=axes)
    return affine


def check_affine(affine: NDArray[np.float64], path: Path, *, axes: int) -> None:
    """Refuse an affine that gives voxels no size along one of the first ``axes``."""
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :axes]) < axes:
        raise MedsegError(
            f"{path}: the affine {np.round(affine[:3], 3).tolist()} is singular, so voxels have no size."
            " Convert the original again, or set the affine with nibabel if you know it."
        )
