"""What lies outside the body, as far as it is certain, and the labels that are there.

The air around a body fills the corners of a scan and is dark. The scan is divided into blocks of a few voxels. A block
is air if its mean is about as dark as the corners and it is connected to them by such blocks. Where a corner is not
dark, as in cropped scans, there is no outside; nor where the rest is in many pieces, as in images of cells. Lungs and
bowels do not belong to it, as the body is around them; nor does a block's width along the skin, where borders are drawn
a little generously.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.io.case import Scan
from medseg.io.grids.components import connected_components
from medseg.preprocessing.fingerprint.components import components_by_class, count_values

SIDE = 3
"""Voxels along a block's side, at least."""
MOST_BLOCKS = 64
"""Blocks along the longest side of a scan."""
CORNER = 16
"""Part of each side that a corner takes."""
RANGE = (0.005, 0.995)
"""Quantiles between which a channel is said to range."""
DARK = 0.1
"""How bright a corner may be, as a share of this range."""
NOISE = 0.03
"""How much brighter than the brightest corner air may be, as a share of it."""
PIECES, SHARE = 5, 0.9
"""A body is what is not air if so many pieces, trunk and limbs, are this share of it."""
OUT = 0.25
"""Share of a connected part of a class from which on it is outside; less is a border drawn along dark tissue."""
SAMPLES = 100_000

Coarse = NDArray[np.bool_]


def labels_outside(scan: Scan, mask: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """Count the voxels (n_classes,) of each class outside the body; of the background none are counted."""
    where = where_outside(scan, mask, n_classes)
    counts = np.zeros(n_classes, np.int64) if where is None else np.bincount(mask[where], minlength=n_classes)
    return np.asarray(counts, dtype=np.int64)


def where_outside(scan: Scan, mask: NDArray[np.uint8], n_classes: int) -> NDArray[np.bool_] | None:
    """Return where (*spatial) foreground classes lie outside the body; None where they do not at all."""
    spacing = np.array(scan.spacing)
    # Blocks are about cubes in mm, whose thickness may be that of one slice.
    side = max(SIDE * spacing.min(), (spacing * scan.shape).max() / MOST_BLOCKS)
    steps = np.maximum(1, np.rint(side / spacing)).astype(int).tolist()
    outside = outside_blocks(scan, steps)
    if outside is None or not (outside & (in_blocks(mask, steps, np.maximum) > 0)).any():
        return None
    for axis, step in enumerate(steps):
        outside = np.repeat(outside, step, axis)
    where = outside[tuple(slice(length) for length in mask.shape)]
    where = where & (mask > 0) & (mask < n_classes)
    for _, box, numbered, count in components_by_class(mask, n_classes):
        out = count_values(numbered * where[box], count + 1) >= OUT * count_values(numbered, count + 1)
        out[0] = False
        where[box] &= out[numbered] | (numbered == 0)
    return where if where.any() else None


def outside_blocks(scan: Scan, steps: Sequence[int]) -> Coarse | None:
    """Return the blocks outside the body but for those at its border; None where it is not certain."""
    from scipy.ndimage import binary_erosion, label

    dark = []
    for channel in scan.image:
        if channel.min() < channel.max():
            blocks = dark_blocks(channel, steps)
            if blocks is None:
                return None
            dark.append(blocks)
    if not dark:
        return None
    around, _ = label(np.logical_and.reduce(dark))
    corners = [around[corner].ravel() for corner in corner_slices(around.shape)]
    outside = np.isin(around, np.setdiff1d(np.concatenate(corners), 0))
    pieces, count = connected_components(~outside)
    sizes = np.sort(count_values(pieces, count + 1)[1:])
    if sizes[-PIECES:].sum() < SHARE * np.count_nonzero(~outside):  # no body, but many pieces
        return None
    return np.asarray(binary_erosion(outside, np.ones((3,) * outside.ndim), border_value=1))


def dark_blocks(channel: NDArray[np.float32], steps: Sequence[int]) -> Coarse | None:
    """Return the blocks of a channel (*spatial) that are as dark as its corners; None where these are not dark."""
    low, high = np.quantile(channel.ravel()[:: max(1, channel.size // SAMPLES)], RANGE)
    means = in_blocks(channel, steps, np.add)  # sums, until divided by the thickness along each axis
    for axis, (step, length) in enumerate(zip(steps, channel.shape, strict=True)):
        thickness = np.minimum(step, length - np.arange(0, length, step)).astype(np.float32)
        means = means / np.expand_dims(thickness, [*range(axis), *range(axis + 1, means.ndim)])
    level = max(float(means[corner].max()) for corner in corner_slices(means.shape))
    if level - low > DARK * (high - low):
        return None
    return np.asarray(means <= level + NOISE * (high - low))


def in_blocks(values: NDArray[Any], steps: Sequence[int], reduce: np.ufunc) -> NDArray[Any]:
    """Reduce an array (*spatial) block by block; the last block of an axis may be thinner."""
    for axis, (step, length) in enumerate(zip(steps, values.shape, strict=True)):
        if step > 1:
            values = reduce.reduceat(values, np.arange(0, length, step), axis=axis)
    return values


def corner_slices(shape: Sequence[int]) -> list[tuple[slice, ...]]:
    """Return the corners of an array of this shape, four or eight."""
    sides = [max(1, length // CORNER) for length in shape]
    return list(product(*((slice(side), slice(-side, None)) for side in sides)))
