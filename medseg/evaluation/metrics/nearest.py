"""Exact distances from places of a grid to the nearest of others."""

from collections.abc import Callable
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Places = NDArray[np.int64]
Spacing = tuple[float, ...]

DENSE = 8
"""Voxels for each place of two surfaces below which a distance transform is faster than a search tree, and smaller."""
CHUNK = 1 << 20
"""Places whose nearest are looked for at once."""


def to_nearest(start: Mask, goal: Mask, spacing: Spacing) -> Numbers:
    """Return the exact distance of each place of ``start`` to the nearest place of ``goal``, both (*grid).

    Neither may be on the outermost layer of the grid. Most are close to each other: neighbours are looked up first.
    """
    places, goals = np.flatnonzero(start), goal.ravel()
    distances = np.where(goals[places], 0, np.inf)
    for step, distance in steps_to_neighbours(goal.shape, spacing):
        left = np.flatnonzero(distances == np.inf)
        distances[left[goals[places[left] + step]]] = distance
    left = np.flatnonzero(distances == np.inf)
    if len(left):
        search = nearest_of(goal, spacing, len(left))
        for part in np.array_split(left, 1 + len(left) // CHUNK):
            own = np.stack(np.unravel_index(places[part], goal.shape))
            distances[part] = lengths(own - search(own), spacing)
    return distances


def steps_to_neighbours(shape: tuple[int, ...], spacing: Spacing) -> list[tuple[int, float]]:
    """Return how far neighbours are in a grid's flat order and in space, those nearest first.

    Only those that are as near as any place that is no neighbour.
    """
    steps = np.array(list(product((-1, 0, 1), repeat=len(shape)))).T
    distances = lengths(steps, spacing)
    flat = np.array([prod(shape[axis + 1 :]) for axis in range(len(shape))]) @ steps
    near = (distances > 0) & (distances <= 2 * min(spacing))
    return sorted(zip(flat[near].tolist(), distances[near].tolist(), strict=True), key=lambda step: step[1])


def nearest_of(goal: Mask, spacing: Spacing, searches: int) -> Callable[[Places], Places]:
    """Return what finds the place of ``goal`` nearest to each of some places of the grid, by their indices (axes, N).

    Args:
        goal: (*grid).
        spacing: along each axis.
        searches: places for which it will be asked; many of them are worth a distance transform of the whole grid.
    """
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    if DENSE * (searches + np.count_nonzero(goal)) > goal.size:
        found = distance_transform_edt(~goal, spacing, return_distances=False, return_indices=True)
        return lambda places: found[:, *places]
    goals, scale = np.stack(goal.nonzero()), np.reshape(spacing, (-1, 1))
    # not balanced: twice as fast to build, and to search where surfaces are far apart
    tree = cKDTree((goals * scale).T, leafsize=32, balanced_tree=False, compact_nodes=False)
    return lambda places: goals[:, tree.query((places * scale).T)[1]]


def lengths(steps: Places, spacing: Spacing) -> Numbers:
    """Return how long steps (axes, N) along the grid are."""
    return np.asarray(np.linalg.norm(steps * np.reshape(spacing, (-1, 1)), axis=0))
