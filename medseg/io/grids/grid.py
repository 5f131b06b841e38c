"""Voxel grids in scanner coordinates: where they lie, whether two are the same, and how far they overlap."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.1
"""Grids are the same when every corner agrees within this part of a voxel."""

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns positions by left, posterior and superior, as ITK, DICOM and STL have them, into RAS, and back."""

FLIP = LPS_RAS[:3, :3]
"""The same for points and directions (…, 3), multiplied from the right."""

LATTICE = 32
"""Points along an axis at which the overlap of two grids is sampled."""


@dataclass(frozen=True)
class Grid:
    """Where voxels lie: two or three axes, and the 4x4 affine from voxel indices to RAS+ mm.

    A voxel is the parallelepiped around its centre, so the grid reaches half a voxel beyond the outermost centres.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance of neighbouring voxel centres along each axis, in mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))

    @property
    def corners(self) -> NDArray[np.float64]:
        """Centres of the corner voxels (2**d, 3) in mm."""
        indices = np.array([*product(*((0, length - 1) for length in self.shape))])
        return self.to_mm(indices)

    @property
    def box(self) -> NDArray[np.float64]:
        """Lowest and highest x, y and z (2, 3) of the voxels in mm, their whole extent counted."""
        edges = self.to_mm(np.array([*product(*((-0.5, length - 0.5) for length in self.shape))]))
        return np.stack([edges.min(0), edges.max(0)])

    def to_mm(self, indices: NDArray[np.number[Any]]) -> NDArray[np.float64]:
        """Return the position in mm (n, 3) of voxel indices (n, d)."""
        return np.asarray(indices @ self.affine[:3, : len(self.shape)].T + self.affine[:3, 3])


def corner_shift(grid: Grid, other: Grid) -> float:
    """Return how far corners of equally shaped grids lie apart at most, in the smallest voxel length of ``other``."""
    return float(np.linalg.norm(grid.corners - other.corners, axis=1).max() / other.spacing.min())


def same_grid(grid: Grid, other: Grid) -> bool:
    """Return whether two grids have one shape and corners that agree within ``TOLERANCE``."""
    return grid.shape == other.shape and corner_shift(grid, other) <= TOLERANCE


def same_spacing(grid: Grid, other: Grid) -> bool:
    """Return whether two equally shaped grids agree within ``TOLERANCE`` along each axis, wherever they lie."""
    return bool((np.abs(grid.spacing / other.spacing - 1) * grid.shape <= TOLERANCE).all())


def overlap(grid: Grid, other: Grid) -> float:
    """Return which share of ``other`` lies within ``grid``, 0 to 1."""
    grid, other = as_volume(grid), as_volume(other)
    counts = tuple(min(length, LATTICE) for length in other.shape)
    steps = np.divide(other.shape, counts)
    lattice = Grid(counts, other.affine @ voxel_map(steps, steps / 2 - 0.5))
    return float(inside(grid, lattice).mean())


def as_volume(grid: Grid) -> Grid:
    """Return a grid of three axes; that of a single slice is one voxel thick.

    Where the affine gives no thickness, it is the side of a pixel.
    """
    if len(grid.shape) == 3:
        return grid
    affine = grid.affine.copy()
    if np.linalg.matrix_rank(affine[:3, :3]) < 3:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / np.sqrt(np.linalg.norm(normal))
    return Grid((*grid.shape, 1), affine)


def index_map(source: Grid, target: Grid) -> NDArray[np.float64]:
    """Return the 4x4 matrix from voxel indices of ``target`` to those of ``source``."""
    return np.asarray(np.linalg.solve(source.affine, target.affine))


def voxel_map(scale: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 4x4 matrix that scales indices and shifts them."""
    matrix = np.diag([*scale, 1.0])
    matrix[:3, 3] = offset
    return matrix


def simpleitk() -> Any:
    """Import SimpleITK, without the warnings that it prints of its own; it takes half a second."""
    import SimpleITK

    library: Any = SimpleITK
    library.ProcessObject.SetGlobalWarningDisplay(False)
    return library


def bounding_box(mask: NDArray[Any], margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box that holds all voxels of a mask that are not 0, of which there is at least one.

    ``margin`` voxels more are in it on all sides, as far as the mask reaches.
    """
    axes = set(range(mask.ndim))
    used = [np.flatnonzero(mask.any(axis=tuple(axes - {axis}))) for axis in range(mask.ndim)]
    return tuple(
        slice(max(0, int(indices[0]) - margin), min(length, int(indices[-1]) + 1 + margin))
        for indices, length in zip(used, mask.shape, strict=True)
    )


def inside(source: Grid, target: Grid) -> NDArray[np.bool_]:
    """Return for each voxel of ``target`` whether its centre lies within ``source``; three axes each."""
    j, k = np.ogrid[: target.shape[1], : target.shape[2]]
    result = np.ones(target.shape, dtype=bool)
    for (along_i, along_j, along_k, first), length in zip(index_map(source, target)[:3], source.shape, strict=True):
        from_middle = along_j * j + (along_k * k + (first - (length - 1) / 2))  # of the first plane
        for i, plane in enumerate(result):
            plane &= np.abs(from_middle + along_i * i) <= length / 2
    return result
