"""How large each class is: its voxels, its volume and the area of its surface."""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.io.case import Scan
from medseg.io.grids.grid import bounding_box
from medseg.io.labels import LabelMap
from medseg.preprocessing.fingerprint.fingerprint import class_sizes

Indices = NDArray[np.uint8]

STEPS = np.array([step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)])
"""From a voxel to half of its 26 neighbours, one of each opposite two (13, 3)."""


def columns(label_map: LabelMap) -> list[str]:
    """Return the names of the columns of ``sizes``: ml, mm² and voxels of each class, or region."""
    return [f"{name}_{unit}" for unit in ("ml", "mm2", "voxels") for name in label_map.reported]


def sizes(indices: Indices, scan: Scan, label_map: LabelMap) -> dict[str, Any]:
    """Return the columns of a table that tell how large each foreground class, or region, is.

    ``indices`` are class indices (*spatial) on the scan's grid. A class that is not there has the size 0. Volumes (ml)
    and surface areas (mm²) are of volumes alone; 2D images and single slices have voxels.
    """
    members = np.zeros((len(label_map.reported), 256), np.int64)  # 1 where a class index is in a class, or region
    for row, indices_of in zip(members, label_map.reported.values(), strict=True):
        row[list(indices_of)] = 1
    foreground = indices > 0
    inside = indices[bounding_box(foreground)] if foreground.any() else indices[:0]
    voxels = {name: int(n) for name, n in zip(label_map.reported, members @ class_sizes(inside), strict=True)}
    values: dict[str, Any] = {f"{name}_voxels": n for name, n in voxels.items()}
    if scan.unit != "mm" or indices.ndim != 3:
        return values
    areas = surface_areas(inside, scan.affine, members)
    values |= {f"{name}_ml": round(n * scan.voxel_volume / 1000, 6) for name, n in voxels.items()}
    return values | {f"{name}_mm2": round(float(area), 3) for name, area in zip(voxels, areas, strict=True)}


def surface_areas(indices: Indices, affine: NDArray[np.float64], members: NDArray[np.int64]) -> NDArray[np.float64]:
    """Estimate the surface area in mm² of unions of classes.

    By Crofton's formula the area is twice the mean, over all directions, of how often lines of that direction cross
    the surface, times the area that each line stands for. The lines are those through voxel centres along the 13
    directions to neighbours; a direction's weight is its share of the sphere (Legland, Kiêu and Devaux, "Computation of
    Minkowski measures on 2D and 3D binary images", Image Anal Stereol 26:83, 2007). Balls
    come out within 3 % from a radius of five voxels on, where marching cubes give 7 to 17 % too much; flat faces along
    the grid come out 7 % too small. The frame of the array closes what it cuts.

    Args:
        indices: class indices (i, j, k), one volume.
        affine: (4, 4), voxel indices to mm.
        members: (R, 256), 1 where an index is in a union.

    Returns:
        (R,), 0 for what is not there.
    """
    padded = np.pad(indices, 1)
    axes = affine[:3, :3]
    steps = STEPS @ axes.T  # (13, 3) in mm
    line = abs(float(np.linalg.det(axes))) / np.linalg.norm(steps, axis=1)  # mm² that each line stands for
    crossings = np.array([cross(padded, step, members) for step in STEPS])  # (13, R)
    return np.asarray(2 * (shares(steps) * line) @ crossings)


def cross(padded: Indices, step: NDArray[np.int64], members: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count (R,) how often lines along ``step`` enter or leave unions of classes in an array framed by zeros.

    The array is looked at as one row: what then seems to lie beyond an end of a line is in the frame, too.
    """
    flat = padded.ravel()
    _, rows, columns = padded.shape
    offset = int(step @ (rows * columns, columns, 1))
    at = np.flatnonzero(flat[:-offset] != flat[offset:])
    kinds = np.bincount(flat[at].astype(np.uint16) << 8 | flat[at + offset], minlength=1 << 16)
    pairs = np.flatnonzero(kinds)
    return np.asarray((members[:, pairs >> 8] != members[:, pairs & 255]) @ kinds[pairs])


def shares(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return of each line direction (n, 3) the share of the sphere that is nearer to it than to all others."""
    from scipy.spatial import SphericalVoronoi

    ends = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    areas = SphericalVoronoi(np.concatenate([ends, -ends])).calculate_areas()
    return np.asarray((areas[: len(ends)] + areas[len(ends) :]) / (4 * np.pi))
