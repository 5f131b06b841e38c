"""What may be given as a scan in Python: files, arrays, tensors, and the images of other libraries."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.errors import MedsegError
from medseg.io.case import LONGEST_MM, SHORTEST_MM, Case, GridPolicy, Orientation, Scan, gives_size
from medseg.io.files.read import read_case
from medseg.io.files.sizes import size_of
from medseg.io.files.voxel_check import check_voxels
from medseg.io.formats import nifti
from medseg.io.grids.grid import LPS_RAS
from medseg.io.warnings import logged
from medseg.system.memory import TO_READ, enough_memory

if TYPE_CHECKING:
    import SimpleITK
    from nibabel.spatialimages import SpatialImage
    from torch import Tensor

Source = Union[
    Scan, str, Path, Sequence[str], Sequence[Path], NDArray[Any], "Tensor", "SpatialImage", "SimpleITK.Image"
]
"""What can be read as a scan (see ``read_scan``)."""


def read_scan(
    source: Source,
    *,
    spacing: Sequence[float] | None = None,
    affine: ArrayLike | None = None,
    dims: int | None = None,
    absent: Sequence[int] = (),
    geometry: GridPolicy = "error",
    reference: int = 0,
    orientation: Orientation = "apply",
) -> Scan:
    """Return a scan: its channels (C, *spatial), and where its voxels lie.

    Args:
        source: a file, or a folder of DICOM slices; a list of files, one a channel; a NumPy array or a tensor
            (C, *spatial), or (*spatial) where there is one channel; a MetaTensor of MONAI's; an image of nibabel's or
            SimpleITK's; or a ``Scan``, which is returned.
        spacing: of an array or tensor, in mm along each spatial axis; volumes need it or ``affine``.
        affine: of an array or tensor instead, 4x4, voxel indices to mm in RAS+.
        dims: its spatial axes, 2 or 3, where they are known beforehand.
        absent: indices of channels that have no file, and are read as zeros.
        geometry: what becomes of channels on other grids than that of channel ``reference``: "error", "resample", or
            "warn", taken voxel by voxel.
        reference: the channel on whose grid the others are read.
        orientation: "apply" turns 2D images as their EXIF or TIFF tag wants them shown; "ignore" does not.

    Raises:
        MedsegError: the source is of another kind, cannot be read, or holds voxels that are no measurement.

    >>> medseg.read_scan("scan.png")
    Scan(channels=1, shape=(64, 64), spacing=(1.0, 1.0), unit='px')
    >>> import numpy as np
    >>> medseg.read_scan(np.zeros((40, 50, 12)), spacing=(0.9, 0.9, 3.0))
    Scan(channels=1, shape=(40, 50, 12), spacing=(0.9, 0.9, 3.0), unit='mm')
    """
    scan = source if isinstance(source, Scan) else scan_from_image(source, dims)
    if scan is None and hasattr(source, "ndim"):
        given = len(spacing) if spacing is not None else 3 if affine is not None or source.ndim == 4 else 2
        scan = scan_from_array(source, dims or given, spacing, affine)
    elif spacing is not None or affine is not None:
        raise MedsegError("spacing and affine are for arrays: files, scans and images have their own.")
    elif scan is None:
        files = files_of(source)
        reading: dict[str, Any] = {"geometry": geometry, "reference": reference, "orientation": orientation}
        case = Case(str(files[0]), str(files[0]), files, **reading, absent=tuple(absent))
        with logged(), enough_memory(lambda: f"to read {files[0]}, {size_of(case)}", TO_READ):
            return read_case(case, spatial_dims=dims)
    check_voxels(scan.image, str(getattr(scan.layout, "path", "the scan")))
    return scan


def scan_from_image(image: Any, dims: int | None = None) -> Scan | None:
    """Return a scan of an image of MONAI's, nibabel's or SimpleITK's; None of anything else.

    Their libraries are imported already if it is one.

    Raises:
        MedsegError: it is one that is no scan.
    """
    if is_of(image, "monai.data.meta_tensor", "MetaTensor"):
        axes = dims or (3 if image.ndim == 4 else 2)
        matrix = np.asarray(image.affine, dtype=np.float64)
        if axes == 2 and np.array_equal(matrix, np.eye(len(matrix))):  # which MONAI gives to what has none
            return scan_from_array(image.as_tensor(), axes)
        is_lps = str(image.meta.get("space", "")).endswith("LPS")
        return scan_from_array(image.as_tensor(), axes, affine=LPS_RAS @ matrix if is_lps else matrix)
    if is_of(image, "nibabel.spatialimages", "SpatialImage"):
        return nifti.scan_of(image, dims)
    if is_of(image, "SimpleITK", "Image"):
        if image.GetDimension() != 3:
            raise MedsegError(
                f"a SimpleITK image of {image.GetDimension()} dimensions: give a volume, or a 2D image as an array of"
                " (rows, columns): SimpleITK.GetArrayFromImage(image)."
            )
        axes = 2 if image.GetDepth() == 1 else 3
        values = sys.modules["SimpleITK"].GetArrayFromImage(image)  # (z, y, x), or (z, y, x, C)
        planes = values[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(values, -1, 0)
        planes = np.moveaxis(planes, (1, 2, 3), (3, 2, 1))
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        matrix[:3, 3] = image.GetOrigin()
        return scan_from_array(planes[..., 0] if axes == 2 else planes, axes, affine=LPS_RAS @ matrix)
    return None


def is_of(value: Any, module: str, name: str) -> bool:
    """Return whether a value is of a class of another package, which is not imported for the question."""
    # Another thread may be importing the package just now: there is no such class yet, and so no value of it.
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)


def files_of(source: Any) -> tuple[Path, ...]:
    """Return the files of a scan, one for all channels or one a channel; MedsegError where these are none."""
    if isinstance(source, str | Path):
        return (Path(source),)
    if not isinstance(source, Sequence) or not source or not all(isinstance(file, str | Path) for file in source):
        kind = f" of {type(source[0]).__name__}" if isinstance(source, Sequence) and source else ""
        raise MedsegError(
            f"this is no scan but {type(source).__name__}{kind}. A scan is a file, a list of files, one a channel, an"
            " array, a tensor, an image of nibabel, SimpleITK or MONAI, or a medseg.Scan. Stack arrays of channels into"
            " one (channels, *spatial)."
        )
    return tuple(map(Path, source))


def scan_from_array(
    array: Any, dims: int, spacing: Sequence[float] | None = None, affine: ArrayLike | None = None
) -> Scan:
    """Return a scan of ``dims`` spatial axes made of a NumPy array or a torch tensor, which is copied.

    Args:
        array: numbers (C, *spatial), or (*spatial) where there is one channel; the values that a file would hold.
        dims: 2 or 3.
        spacing: distance of neighbouring voxel centres along each spatial axis, in mm; the axes are then taken to run
            to the patient's right, front and head.
        affine: instead of it 4x4, voxel indices to mm in RAS+, as in NIfTI files. A two-dimensional array without
            either is a 2D image, in pixels.

    Raises:
        MedsegError: the array has other axes, or values that are not numbers; spacing or affine are missing, given both
            or not usable.
    """
    if hasattr(array, "detach"):  # a tensor, on any device and of any type
        array = array.detach().cpu()
        array = array.float() if array.is_floating_point() else array
    values = np.asarray(array)
    if values.dtype.kind not in "biuf":
        raise MedsegError(f"an array of {values.dtype}: a scan holds real numbers.")
    if values.ndim not in (dims, dims + 1) or 0 in values.shape:
        raise MedsegError(
            f"an array of shape {values.shape}: the model takes {dims}D scans, so give (channels, *spatial), "
            f"{dims + 1} axes, or {dims} axes where there is one channel."
        )
    with np.errstate(over="ignore"):
        image = np.array(values if values.ndim > dims else values[None], dtype=np.float32, order="C")
    if lost := int(np.count_nonzero(~np.isfinite(image))):
        raise MedsegError(f"an array of shape {values.shape}: {lost} values are NaN or infinite. Replace them first.")
    if spacing is not None and affine is not None:
        raise MedsegError("spacing and affine exclude each other: give one.")
    if affine is not None:
        matrix = np.array(affine, dtype=np.float64)
        if matrix.shape != (4, 4) or matrix[3].tolist() != [0, 0, 0, 1] or not gives_size(matrix, dims):
            raise MedsegError(
                f"affine={matrix.tolist()}: give 4x4 numbers that map voxel indices to mm, the last row 0 0 0 1,"
                f" with voxels of {SHORTEST_MM:g} to {LONGEST_MM:g} mm."
            )
        return Scan(image, matrix)
    if spacing is not None:
        steps = np.array(spacing, dtype=np.float64)
        if steps.shape != (dims,) or not ((steps >= SHORTEST_MM) & (steps <= LONGEST_MM)).all():
            raise MedsegError(
                f"spacing={spacing}: give the mm between voxels along each of {dims} axes, each above 0: from"
                f" {SHORTEST_MM:g} to {LONGEST_MM:g}."
            )
        return Scan(image, np.diag([*steps, *[1.0] * (4 - dims)]))
    if dims == 3:
        raise MedsegError("a volume in memory needs its spacing in mm, as in spacing=(0.9, 0.9, 3.0), or its affine.")
    return Scan(image, np.eye(4), unit="px")
