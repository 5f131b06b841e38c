"""NIfTI files: axes in nibabel's order (i, j, k), channels last on disk and first in memory."""

import hashlib
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.case import LONGEST_MM, SHORTEST_MM, Scan, gives_size
from medseg.io.formats.voxel_files import GZIP, ZLIB_OR_GZIP, inflate
from medseg.io.grids.grid import Grid
from medseg.io.labels import in_smallest_type
from medseg.io.limits import DEFLATE_RATIO, check_length, check_memory
from medseg.io.warnings import warn

SUFFIXES = (".nii.gz", ".nii")

MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
"""Length of the header's unit (unknown, metre, mm, micrometre) in mm; ITK reads it the same way."""

SIZES: dict[int, Any] = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
"""Size of the header, which is its first number, and how such files are read."""

FARTHEST, SURPLUS = 1 << 26, 1 << 20
"""Bytes that may lie before the voxels (extensions), and after them in packed files."""


FORMAL = ("magic", "regular")
"""Texts in a header that say what a file is, and not what is in it."""

FIELDS = (
    "descrip",
    "aux_file",
    "db_name",
    "intent_name",
    "dim_info",
    "slice_code",
    "slice_duration",
    "toffset",
    "xyzt_units",
    "qform_code",
    "sform_code",
)
"""Fields of a NIfTI header that the scanner or the converter filled in."""


@dataclass(frozen=True)
class NiftiLayout:
    """What gives a mask the form of the image at ``path``: its header, and its array's shape without channels."""

    path: Path
    header: nib.Nifti1Header
    shape: tuple[int, ...]
    unit: ClassVar = "mm"

    @property
    def may_be_stack(self) -> bool:
        """Whether the array is (x, y, 1, n): the channels of a 2D image, or as likely the slices of a volume."""
        stored = self.header.get_data_shape()
        return len(stored) == 4 and stored[2] == 1 and stored[3] > 1


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], NiftiLayout]:
    """Read one file as voxels (C, *spatial) of its own type, its affine (to RAS+ mm) and its layout.

    A third axis of length 1 is no axis: (h, w), (h, w, 1) and (h, w, 1, C) are 2D images with two spatial axes.

    Raises:
        MedsegError: its array is too large, has no clear channel axis or is complex, or its affine is singular.
        Exception: it is damaged; see ``medseg.io.damage``.
    """
    header = read_header(path)
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    check_memory(
        f"{path}: its header describes an array",
        (*shape, len(dtype.names or "1")),
        1 if dtype.names else dtype.itemsize,
    )
    count = math.prod(shape)
    needed, present = offset + count * dtype.itemsize, path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(GZIP)) == GZIP:
            file.seek(0)
            check_length(shape, needed, present * DEFLATE_RATIO)
            raw = np.frombuffer(inflate(file, needed, SURPLUS), dtype, count, offset)
        else:
            check_length(shape, needed, present)
            file.seek(offset)
            raw = np.fromfile(file, dtype, count)
            check_length(shape, needed, offset + raw.nbytes)
    raw = raw.reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    data = raw if slope is None else apply_read_scaling(raw, slope, intercept)
    header = SIZES[int(header["sizeof_hdr"])](raw, None, header).header  # as nibabel has it: without the scaling
    planes = planes_of(data, path)
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        warn(f"{path}: neither sform nor qform in the header; assumed, as nibabel does, that x runs to the left")
    affine = to_mm(header) @ header.get_best_affine()
    check_affine(affine, path, axes=planes.ndim - 1)
    return planes, affine, NiftiLayout(path, header, data.shape[:3])


def planes_of(data: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return an array of nibabel's as channels (C, *spatial); errors as in ``read``."""
    if data.dtype.kind == "c":
        raise MedsegError(f"{path}: voxels are complex numbers ({data.dtype}). Store magnitude and phase as channels.")
    if data.dtype.names:  # red, green, blue and perhaps alpha
        return np.concatenate([channels_first(data[name], path) for name in "RGB"])
    return channels_first(data, path)


def scan_of(image: Any, dims: int | None = None) -> Scan:
    """Return an image of nibabel's as a scan, whose masks keep its header if that is one of NIfTI; errors as above.

    An array (x, y, 1, n) is n channels of a 2D image, or where ``dims`` is 3 n slices.
    """
    path, header = Path(image.get_filename() or "the image"), image.header
    is_nifti = isinstance(header, nib.Nifti1Header)
    data = np.asanyarray(image.dataobj)
    planes = planes_of(data, path)
    affine = (to_mm(header) if is_nifti else np.eye(4)) @ image.affine
    check_affine(affine, path, axes=planes.ndim - 1)
    layout = NiftiLayout(path, header, data.shape[:3]) if is_nifti else None
    if layout and layout.may_be_stack and dims == 3:
        planes, affine, layout = as_stack(planes, affine, layout)
    return Scan(np.ascontiguousarray(planes, dtype=np.float32), affine, layout=layout)


def grid(path: Path) -> tuple[Grid, int]:
    """Return the grid of an image and the number of its channels, from the header alone; errors as in ``read``."""
    header = read_header(path)
    shape, affine = header.get_data_shape(), to_mm(header) @ header.get_best_affine()
    spatial = shape[:2] if shape[2:3] == (1,) else shape[:3]
    check_affine(affine, path, axes=len(spatial))
    return Grid(spatial, affine), 3 if header.get_data_dtype().names else math.prod(shape[3:])


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
    values = in_smallest_type(values)
    if not isinstance(like.layout, NiftiLayout):
        image = nib.Nifti1Image(values, like.affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
        return
    header = like.layout.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_intent("none")  # a vector or statistics file's mask is neither
    header["cal_min"] = header["cal_max"] = 0  # the image's display window would hide the classes
    header.extensions.clear()
    for field in header.structarr.dtype.names:  # descriptions, which may name the patient
        if header.structarr.dtype[field].kind == "S" and field not in FORMAL:
            header[field] = b""
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    # the header's own affine keeps both sform and qform
    nib.save(kind(values.reshape(like.layout.shape), header.get_best_affine(), header), path)


def read_header(path: Path) -> nib.Nifti1Header:
    """Read the header of a file alone; errors as in ``read``."""
    with path.open("rb") as file:
        packed = file.read(4096)
        start = zlib.decompressobj(ZLIB_OR_GZIP).decompress(packed, 4096) if packed.startswith(GZIP) else packed
    size = next((size for size in SIZES for order in ("<i4", ">i4") if start[:4] == np.array(size, order).tobytes()), 0)
    if not size:
        raise ValueError(f"it begins with {start[:4].hex(' ') or 'nothing'}, and not with 348 or 540")
    if len(start) < size:
        raise EOFError(f"it ends within the header, after {len(start)} of {size} bytes")
    header: nib.Nifti1Header = SIZES[size].header_class(start[:size], check=False)  # without extensions
    if header["sform_code"] == 0 and ((header["pixdim"][1:4] == 0) & (header["dim"][1:4] > 1)).any():
        raise ValueError(f"pixdim is {header['pixdim'][1:4].tolist()}: voxels have no size")  # nibabel makes it 1
    header.check_fix()
    if not header["magic"].item().startswith(b"n+"):
        raise ValueError("its voxels should be in another file (.hdr and .img). Save it as one .nii.gz file")
    shape, start_of_voxels = header.get_data_shape(), float(header["vox_offset"])
    if min(shape, default=0) < 1:
        raise ValueError(f"an array of shape {shape} is no scan: every axis must be at least 1 long")
    if not size <= start_of_voxels <= FARTHEST:
        raise ValueError(f"voxels begin at byte {start_of_voxels:g}, allowed are {size} to {FARTHEST}")
    return header


def to_mm(header: nib.Nifti1Header) -> NDArray[np.float64]:
    """Return the matrix (4, 4) that brings positions in a header's unit to mm; ValueError for an unknown unit."""
    code = int(header["xyzt_units"]) & 7  # the bits above tell the unit of time
    if code not in MM:
        raise ValueError(
            f"its unit of length has the code {code}; there are 0 (unknown), 1 (m), 2 (mm) and 3 (µm)."
            " Set it with nibabel: header.set_xyzt_units('mm')"
        )
    return np.diag([*[MM[code]] * 3, 1.0])


def channels_first(data: NDArray[Any], path: Path) -> NDArray[Any]:
    """Bring voxels (x, y), (x, y, z), (x, y, z, C) or (x, y, z, 1, C) to (C, *spatial); z = 1 is no axis."""
    spatial = data.shape[:2] if data.shape[2:3] == (1,) else data.shape[:3]
    if len(spatial) < 2 or 0 in data.shape or sum(length > 1 for length in data.shape[3:]) > 1:
        raise MedsegError(
            f"{path}: an array of shape {data.shape} is no scan. Allowed are (x, y), (x, y, z), (x, y, z, channels) and"
            " (x, y, z, 1, channels). Save it in one of these forms."
        )
    return np.moveaxis(data.reshape(*spatial, -1), -1, 0)


def check_affine(affine: NDArray[np.float64], path: Path, *, axes: int) -> None:
    """Reject an affine that gives voxels no possible size along one of the first ``axes``."""
    if not gives_size(affine, axes):
        rows = "; ".join(" ".join(f"{value:.4g}" for value in row) for row in affine[:3])
        raise MedsegError(
            f"{path}: the affine [{rows}] is singular, or its voxels are not {SHORTEST_MM:g} to {LONGEST_MM:g} mm long."
            " Convert the original again, or set the affine with nibabel if you know it."
        )


def header_hash(scan: Scan) -> str:
    """Return a hash of what the header of a scan's (reference) file holds in ``FIELDS``; "" for other formats.

    The texts themselves may name the patient, and must not reach the cache.
    """
    if not isinstance(scan.layout, NiftiLayout):
        return ""
    header = scan.layout.header
    values = [(name, header[name].item()) for name in FIELDS if name in header.keys()]  # noqa: SIM118 - no mapping
    return hashlib.sha256(repr(values).encode()).hexdigest()
