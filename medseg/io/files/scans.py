"""Scans made of arrays in memory, for use from Python."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medseg.errors import MedsegError
from medseg.io.case import LONGEST_MM, SHORTEST_MM, Scan, gives_size


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
