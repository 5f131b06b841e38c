"""Closed polygons and masks of pixels: filling the one, and tracing the border of the other."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.float64]
"""Corners (n, 2) in pixels, pixel centres being whole numbers; the last is joined to the first."""

MOST_CROSSINGS = 4_000_000
"""Of the edges and the rows of a slice: over a thousand contours, each across a thousand rows and back."""

ON_EDGE = 1e-3
"""Distance in pixels up to which a centre lies on an edge: DICOM rounds coordinates to 16 characters."""


def fill(polygons: Sequence[Polygon], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels (*shape) whose centres are inside an odd number of polygons, or on an edge of any.

    So a polygon within another one is a hole, a keyhole is one as well, and contours that other programs draw from
    pixel centre to pixel centre keep these. Polygons may reach beyond the 2D image.
    """
    starts = np.concatenate(polygons)
    ends = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    along_columns = on_edges(starts[:, ::-1], ends[:, ::-1], shape[::-1]).T
    return inside(starts, ends, shape) | on_edges(starts, ends, shape) | along_columns


def inside(starts: Polygon, ends: Polygon, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels from which an odd number of edges (starts and ends, each (n, 2)) lies towards column 0."""
    low, high = np.sort([starts[:, 0], ends[:, 0]], axis=0)
    rows, columns = crossings(starts, ends, np.ceil(low), np.ceil(high), shape[0])  # an end counts for one edge only
    toggled = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    np.add.at(toggled, (rows, np.clip(np.floor(columns) + 1, 0, shape[1]).astype(int)), 1)
    return np.asarray(toggled.cumsum(axis=1)[:, :-1] % 2 == 1)


def on_edges(starts: Polygon, ends: Polygon, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels at whose centres an edge crosses their row."""
    low, high = np.sort([starts[:, 0], ends[:, 0]], axis=0)
    rows, columns = crossings(starts, ends, np.ceil(low - ON_EDGE), np.floor(high + ON_EDGE) + 1, shape[0])
    nearest = np.rint(columns)
    hit = (np.abs(columns - nearest) <= ON_EDGE) & (nearest >= 0) & (nearest < shape[1])
    result = np.zeros(shape, dtype=bool)
    result[rows[hit], nearest[hit].astype(int)] = True
    return result


def crossings(
    starts: Polygon, ends: Polygon, first: NDArray[np.float64], stop: NDArray[np.float64], n_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return where edges cross rows ``first`` to ``stop`` (n), as far as these exist: rows and columns.

    Raises:
        ValueError: they cross more rows than structures do; a zigzag of some kB would take gigabytes.
    """
    first, stop = np.clip(first, 0, n_rows).astype(int), np.clip(stop, 0, n_rows).astype(int)
    counts = np.where(starts[:, 0] == ends[:, 0], 0, np.maximum(stop - first, 0))  # along a row: seen across columns
    if counts.sum() > MOST_CROSSINGS:
        raise ValueError(f"the contours of a slice cross its rows {counts.sum()} times; allowed are {MOST_CROSSINGS}")
    edges = np.repeat(np.arange(len(starts)), counts)
    rows = first[edges] + np.arange(len(edges)) - np.repeat(counts.cumsum() - counts, counts)
    slopes = (ends[edges, 1] - starts[edges, 1]) / (ends[edges, 0] - starts[edges, 0])
    return rows, starts[edges, 1] + (rows - starts[edges, 0]) * slopes


def outlines(mask: NDArray[np.bool_]) -> Iterator[Polygon]:
    """Yield a polygon for each part of a mask (rows, columns) that is connected over the sides of pixels.

    It runs half-way between pixels of the mask and others, so that filling it gives the mask again. Holes are joined to
    the border by a keyhole, as DICOM wants it (PS3.3 C.8.8.6.3).
    """
    from skimage.measure import find_contours, label, regionprops

    for part in regionprops(label(mask, connectivity=1)):
        row, column = part.bbox[:2]
        rings = [ring[:-1] for ring in find_contours(np.pad(part.image, 1).astype(float), 0.5, fully_connected="low")]
        border, *holes = sorted(rings, key=lambda ring: -abs(area(ring)))
        yield without_straight_corners(with_holes(border, holes)) + np.array([row - 1, column - 1])


def area(ring: Polygon) -> float:
    """Return the signed area of a polygon."""
    rows, columns = ring.T
    return float(rows @ np.roll(columns, -1) - columns @ np.roll(rows, -1)) / 2


def with_holes(border: Polygon, holes: Sequence[Polygon]) -> Polygon:
    """Join holes to a border, each by the shortest line there and back, the nearest first: no line cuts a hole."""
    from scipy.spatial import cKDTree

    left = list(holes)
    while left:
        tree = cKDTree(border)
        nearest_corners = [tree.query(hole) for hole in left]  # distances and indices, a pair a hole
        nearest = min(range(len(left)), key=lambda index: nearest_corners[index][0].min())
        corner = int(nearest_corners[nearest][0].argmin())
        index = int(nearest_corners[nearest][1][corner])
        hole = np.roll(left.pop(nearest), -corner, axis=0)
        border = np.concatenate([border[: index + 1], hole, hole[:1], border[index:]])
    return border


def without_straight_corners(ring: Polygon) -> Polygon:
    """Leave out the corners at which a polygon goes straight on."""
    ahead, behind = np.roll(ring, -1, axis=0) - ring, ring - np.roll(ring, 1, axis=0)
    turns = behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0]
    return ring[(np.abs(turns) > 1e-9) | ((ahead * behind).sum(axis=1) < 0)]
