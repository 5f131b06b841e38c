"""Distances between the surfaces of two masks: HD95, ASSD and normalised surface Dice.

A surface is made of elements at the corners of voxels, weighted by their area in mm² (length in mm in 2D), as in
Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", J Med Internet Res 23
(2021), and in DeepMind's surface-distance; or, as in MONAI, of the voxels at the edge, all with the same weight.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.io.grids.grid import bounding_box

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Spacing = tuple[float, ...]


@dataclass(frozen=True)
class Surface:
    """Where a surface runs, and the weight of each element of it; None: all the same."""

    mask: Mask  # (*grid)
    weights: Numbers | None  # (N,), in the order of the mask


def elements(mask: Mask, spacing: Spacing) -> Surface:
    """Return the surface through a mask with a frame of zeros: elements at the corners that not all voxels share."""
    codes = neighbour_codes(mask)
    is_element = codes + np.uint8(1) > 1 if mask.ndim == 3 else (codes > 0) & (codes < 15)  # 255 + 1 is 0 in eight bits
    return Surface(is_element, element_sizes(spacing)[codes[is_element]])


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
    from skimage.measure import find_contours, marching_cubes

    codes: list[int] = []
    normals: list[Numbers] = []
    for code, voxels in enumerate(product((0.0, 1.0), repeat=1 << axes)):
        cell = np.reshape(voxels, (2,) * axes)
        if not 0 < cell.mean() < 1:
            continue
        cell = 1 - cell if cell.mean() > 0.5 else cell
        if axes == 2:
            steps = np.concatenate([np.diff(line, axis=0) for line in find_contours(cell, 0.5)])
            normals.append(steps[:, ::-1] * (1, -1))
        else:
            corners, faces = marching_cubes(cell, 0.5, method="lorensen")[:2]
            first, second, third = corners.astype(np.float64)[faces].swapaxes(0, 1)
            normals.append(np.cross(second - first, third - first) / 2)
        codes += [code] * len(normals[-1])
    return np.array(codes), np.concatenate(normals)


Indices = NDArray[np.int64]

DENSE = 8
"""Grid voxels for each surface voxel below which a distance transform is faster than a search tree, and smaller."""
CHUNK = 1 << 20
"""Voxels whose nearest are looked for at once."""


def to_nearest(start: Mask, goal: Mask, spacing: Spacing) -> Numbers:
    """Return the exact distance of each voxel of ``start`` to the nearest voxel of ``goal``, both (*grid).

    Neither may be on the outermost layer of the grid. Most are close to each other: neighbours are looked up first.
    """
    voxels, goals = np.flatnonzero(start), goal.ravel()
    distances = np.where(goals[voxels], 0, np.inf)
    # neighbours, the nearest first, and only those that no voxel which is no neighbour can be nearer than
    steps = np.array(list(product((-1, 0, 1), repeat=goal.ndim))).T
    far = lengths(steps, spacing)
    flat = np.array([prod(goal.shape[axis + 1 :]) for axis in range(goal.ndim)]) @ steps  # in the grid's flat order
    for neighbour in np.argsort(far, kind="stable"):
        if 0 < far[neighbour] <= 2 * min(spacing):
            left = np.flatnonzero(distances == np.inf)
            distances[left[goals[voxels[left] + flat[neighbour]]]] = far[neighbour]
    left = np.flatnonzero(distances == np.inf)
    if len(left):
        search = nearest_of(goal, spacing, len(left))
        for part in np.array_split(left, 1 + len(left) // CHUNK):
            own = np.stack(np.unravel_index(voxels[part], goal.shape))
            distances[part] = lengths(own - search(own), spacing)
    return distances


def nearest_of(goal: Mask, spacing: Spacing, searches: int) -> Callable[[Indices], Indices]:
    """Return a function from voxels of the grid, by their indices (axes, N), to the nearest of ``goal``, (axes, N).

    Args:
        goal: (*grid).
        spacing: along each axis.
        searches: how many voxels it will be called with; many are worth a distance transform of the whole grid.
    """
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    if DENSE * (searches + np.count_nonzero(goal)) > goal.size:
        nearest = distance_transform_edt(~goal, spacing, return_distances=False, return_indices=True)
        return lambda voxels: nearest[:, *voxels]
    goals, scale = np.stack(goal.nonzero()), np.reshape(spacing, (-1, 1))
    # not balanced: twice as fast to build, and to search where surfaces are far apart
    tree = cKDTree((goals * scale).T, leafsize=32, balanced_tree=False, compact_nodes=False)
    return lambda voxels: goals[:, tree.query((voxels * scale).T)[1]]


def lengths(steps: Indices, spacing: Spacing) -> Numbers:
    """Return how long steps (axes, N) along the grid are."""
    return np.asarray(np.linalg.norm(steps * np.reshape(spacing, (-1, 1)), axis=0))


Kind = Literal["elements", "voxel"]
SURFACES: Mapping[Kind, Callable[[Mask, Spacing], Surface]] = {"elements": elements, "voxel": edge_voxels}

PERCENT = 95
SLACK = 1e-6
"""Relative: a distance that equals the tolerance is within it, however it was rounded."""


@dataclass(frozen=True)
class Distances:
    """From every element of a surface to the nearest one of another, in the unit of the spacing."""

    values: Numbers  # (N,)
    weights: Numbers | None  # (N,); None: all the same

    @property
    def total(self) -> float:
        """The size of the surface."""
        return float(len(self.values) if self.weights is None else self.weights.sum())

    def integral(self, values: NDArray[Any]) -> float:
        """Sum up values (N,) over the surface."""
        return float(values.sum() if self.weights is None else (values * self.weights).sum())

    def percentile(self, percent: float) -> float:
        """Return the distance within which this share of the surface lies.

        Of elements of the same weight it is interpolated as NumPy does; else it is the first at which the share of the
        area is reached.
        """
        if self.weights is None:
            return float(np.percentile(self.values, percent))
        order = np.lexsort((self.weights, self.values))
        shares = np.cumsum(self.weights[order]) / np.sum(self.weights[order])
        index = min(int(np.searchsorted(shares, percent / 100)), len(order) - 1)
        return float(self.values[order[index]])


Pair = tuple[Distances, Distances]
"""From the predicted surface to the true one, and back."""


def surface_distances(prediction: Mask, reference: Mask, spacing: Spacing, kind: Kind = "elements") -> Pair:
    """Measure how far the surfaces of two masks are apart, each way.

    Args:
        prediction: (*spatial), 2D or 3D, with at least one voxel.
        reference: the same. What both have at the frame of the array is surface as well.
        spacing: of the voxels along each axis, as a rule in mm.
        kind: what surfaces are made of: ``elements`` of an area, or edge ``voxel``.

    Returns:
        The distances from the prediction's surface to that of the ground truth, and from that of the ground truth.
    """
    box = bounding_box(prediction | reference)
    predicted, true = (
        SURFACES[kind](np.pad(np.ascontiguousarray(mask[box]), 2), spacing) for mask in (prediction, reference)
    )
    return (
        Distances(to_nearest(predicted.mask, true.mask, spacing), predicted.weights),
        Distances(to_nearest(true.mask, predicted.mask, spacing), true.weights),
    )


def hd95(pair: Pair) -> float:
    """Return the 95 % Hausdorff distance: the larger one of the 95th percentiles of both directions.

    Huttenlocher et al., "Comparing images using the Hausdorff distance", IEEE TPAMI 15 (1993).
    """
    return max(distances.percentile(PERCENT) for distances in pair)


def assd(pair: Pair) -> float:
    """Return the average symmetric surface distance: the mean over both surfaces together.

    Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT datasets", IEEE TMI 28 (2009).
    """
    return sum(each.integral(each.values) for each in pair) / sum(each.total for each in pair)


def nsd(pair: Pair, tolerance: float) -> float:
    """Return the normalised surface Dice: the share of both surfaces that is within the tolerance of the other one.

    Nikolov et al. (see above).
    """
    limit = tolerance * (1 + SLACK)
    return sum(each.integral(each.values <= limit) for each in pair) / sum(each.total for each in pair)
