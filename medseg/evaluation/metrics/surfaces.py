"""The surface of a mask: what it is made of, where that is and what it weighs.

It is made of elements at the corners of voxels, weighed by their area in mm² (length in mm in 2D), as in Nikolov et
al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", J Med Internet Res 23 (2021), and
in DeepMind's surface-distance; or, as in MONAI, of the voxels at the edge, all alike.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Spacing = tuple[float, ...]


@dataclass(frozen=True)
class Surface:
    """Where a surface runs, and what each place on it weighs; None: all the same."""

    places: Mask  # (*grid)
    weights: Numbers | None  # (N,), in the order of the places


def elements(mask: Mask, spacing: Spacing) -> Surface:
    """Return the surface through a mask with a frame of zeros: elements at the corners that not all voxels share."""
    codes = neighbour_codes(mask)
    places = codes + np.uint8(1) > 1 if mask.ndim == 3 else (codes > 0) & (codes < 15)  # 255 + 1 is 0 in eight bits
    return Surface(places, element_sizes(spacing)[codes[places]])


def edge_voxels(mask: Mask, spacing: Spacing) -> Surface:
    """Return the voxels of a mask with a frame of zeros that have a neighbour outside, across a face."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        towards, line = np.moveaxis(inside, axis, 0), np.moveaxis(mask, axis, 0)
        towards[1:] &= line[:-1]
        towards[:-1] &= line[1:]
    return Surface(mask & ~inside, None)


def neighbour_codes(mask: Mask) -> NDArray[np.uint8]:
    """Return for every corner between voxels which of the 4 or 8 around it are set, the first the highest bit."""
    codes = mask.view(np.uint8)
    for bits, axis in enumerate(reversed(range(mask.ndim))):
        line = np.moveaxis(codes, axis, 0)
        codes = np.moveaxis(line[:-1] << np.uint8(1 << bits) | line[1:], 0, axis)
    return codes


@lru_cache(maxsize=16)
def element_sizes(spacing: Spacing) -> Numbers:
    """Return the area in mm² (length in mm in 2D) of the surface element of each neighbour code, (16,) or (256,)."""
    codes, normals = element_normals(len(spacing))
    faces = [prod(spacing[:axis] + spacing[axis + 1 :]) for axis in range(len(spacing))]  # of a voxel, across each axis
    return np.asarray(np.bincount(codes, np.linalg.norm(normals * faces, axis=1), 1 << (1 << len(spacing))), np.float64)


@lru_cache
def element_normals(axes: int) -> tuple[NDArray[np.int64], Numbers]:
    """Return the lines or triangles that part set from unset voxels by the classic marching cubes.

    Lorensen and Cline, "Marching cubes", SIGGRAPH (1987). A code with more than half of its voxels set has the surface
    of its complement, so that a mask and what is around it have the same.

    Returns:
        The neighbour code of each piece, (P,), and its normal, as long as its area is large, in voxels (P, axes).
    """
    codes: list[int] = []
    normals: list[Numbers] = []
    for code, voxels in enumerate(product((0.0, 1.0), repeat=1 << axes)):
        cell = np.reshape(voxels, (2,) * axes)
        if 0 < cell.mean() < 1:
            found = (lines if axes == 2 else triangles)(1 - cell if cell.mean() > 0.5 else cell)
            normals.append(found)
            codes += [code] * len(found)
    return np.array(codes), np.concatenate(normals)


def lines(cell: Numbers) -> Numbers:
    """Return the normals (P, 2) of the contour through 2 × 2 pixels."""
    from skimage.measure import find_contours

    steps = np.concatenate([np.diff(line, axis=0) for line in find_contours(cell, 0.5)])
    return np.asarray(steps[:, ::-1] * (1, -1))


def triangles(cell: Numbers) -> Numbers:
    """Return the normals (P, 3) of the surface through 2 × 2 × 2 voxels."""
    from skimage.measure import marching_cubes

    corners, faces = marching_cubes(cell, 0.5, method="lorensen")[:2]
    first, second, third = corners.astype(np.float64)[faces].swapaxes(0, 1)
    return np.cross(second - first, third - first) / 2
