"""Mask values that are no class's: what lossy formats, smoothed edges and interpolation leave between the classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.io.formats.images_2d import colour_codes
from medseg.io.labels import COLOUR

UNKNOWN = -(2**31)
"""Stands for a voxel of unknown class; no class can have this value."""
ROUNDING = 0.02
"""How far labels may be from whole: half a step of values up to 2600 in 16 bits with a scale slope."""


def nearest_values(pixels: NDArray[Any], values: Sequence[int]) -> NDArray[np.int32]:
    """Return of each pixel the nearest of the classes' values (*spatial), by grey value or by distance in RGB.

    ``pixels`` are (C, *spatial) of any type with one or three channels, ``values`` are as of ``read_mask``. Of two that
    are equally near the lower one counts.
    """
    known = np.array(sorted(values), dtype=np.int64)
    if len(pixels) == 1 and known[-1] < COLOUR:
        thresholds = (known[:-1] + known[1:]) / 2
        return known[np.searchsorted(thresholds, pixels[0].astype(np.float64), side="left")].astype(np.int32)
    colours = colour_codes(pixels) if len(pixels) == 3 else np.rint(pixels[0].astype(np.float64)).astype(np.int32)
    codes, indices = np.unique(colours, return_inverse=True)
    apart = np.linalg.norm(rgb(codes)[:, None].astype(np.float64) - rgb(known)[None], axis=-1)  # (codes, known)
    return known[apart.argmin(axis=1)].astype(np.int32)[indices].reshape(colours.shape)


def whole_or_unknown(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """Return the values (*spatial) of pixels (C, *spatial), UNKNOWN where one is not whole."""
    if len(pixels) == 3:
        return colour_codes(pixels)
    exact = pixels[0].astype(np.float64)
    whole = np.rint(exact)
    is_whole = (np.abs(exact - whole) <= ROUNDING) & (np.abs(whole) < -UNKNOWN)
    return np.where(is_whole, whole, UNKNOWN).astype(np.int32)


def at_least_half(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """Return where (*spatial) the mask of one class (C, *spatial) is above half of its highest value, as 0 and 1."""
    level = pixels.max(axis=0)
    return (level > max(level.max(), 1) / 2).astype(np.int32)


def full_or_unknown(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """Return 1 where (*spatial) the mask of one class has its highest value, 0 where it has 0, UNKNOWN elsewhere."""
    level = pixels.max(axis=0)
    return np.where(level == 0, 0, np.where(level == max(level.max(), 1), 1, UNKNOWN)).astype(np.int32)


def rgb(values: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the colours (..., 3) of file values; a grey value v is the colour v, v, v."""
    codes = values - COLOUR
    parts = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)
    return np.where((values >= COLOUR)[..., None], parts, values[..., None])
