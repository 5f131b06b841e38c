"""What tests ask of a geometry beyond what medseg needs."""

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.preprocessing.geometry import Geometry


def forward(geometry: Geometry, x: torch.Tensor, kernels: list[str]) -> torch.Tensor:
    """Bring ``x`` (C, *native_shape) to the network grid (C, *shape), with a kernel per network axis."""
    return geometry.resample(geometry.cut(x), kernels)


def network_affine(geometry: Geometry, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 4x4 affine of the network grid, for the native grid's: both map voxel centres to world mm."""
    dims = len(geometry.order)
    to_native = np.eye(4)  # network voxel index -> native voxel index
    to_native[:dims, :dims] = 0
    for axis, native in enumerate(geometry.order):
        (start, stop), length = geometry.crop[axis], geometry.native_shape[native]
        scale = (stop - start) / geometry.shape[axis]
        offset = start + scale / 2 - 0.5
        to_native[native, axis] = -scale if geometry.flips[axis] else scale
        to_native[native, 3] = length - 1 - offset if geometry.flips[axis] else offset
    return np.asarray(affine @ to_native)
