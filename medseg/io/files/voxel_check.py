"""Voxels that are no measurement: NaN, infinity, and fill values that stand for missing data.

A fill value, such as -3.4e38 or 1e20, is many orders of magnitude from all intensities. One voxel of it is enough to
press the rest of a scan into a millionth of its scale, so that it is refused. Padding of the scanners' own, such as
-2000 or -3024 in CT, and bright spots, such as the bladder in PET or metal in CT, are within the orders of magnitude of
what they lie among.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.warnings import warn

GLANCE = 2_000
"""Voxels that tell whether a closer look is needed, which few channels need."""
SAMPLE = 50_000
"""Voxels that tell what is usual in a channel, drawn at random: evenly spread ones may all lie at one border."""
FEW = 0.999
"""Share of the voxels that are not 0 which tell how large a channel's intensities become; the others are few."""
IMPLAUSIBLE = 1e4
"""How many times larger than all intensities a value is implausible,"""
DOUBTFUL = 2e3
"""or doubtful: the bladder in PET is at most some hundred times brighter than all but a thousandth of the body."""
ABSURD = 1e9
"""Magnitude that intensities do not jump to: if there is none for orders of magnitude below it, it is a fill value."""
LEAST_FILL = 1e4
"""Least magnitude of a fill value that many voxels have."""
FEW_VALUES = 3
LEAST_VALUES = 16
"""Many voxels with at most so many values far above the others are filled; those others must have so many values."""
ROUNDING, LARGE = 1e-7, 1e6
"""What is smaller than this part of the largest intensity is rounding, which interpolation leaves where 0 was; unless
that one is so large that it may be a fill value itself."""
LIMITS = (32767.0, 32768.0, 65535.0)
"""Largest magnitudes of 16 bits, which stand for missing data or saturated voxels."""
BEYOND = 8
"""How many times larger than all other voxels those at a limit are doubtful."""
AIR = -900
"""Below it in HU are scans that reach the least value of CT; there -32768 is padding."""


def check_voxels(image: NDArray[Any], where: str) -> None:
    """Reject voxels that are no measurement, and warn of those that are probably none.

    Args:
        image: float32 (C, *spatial).
        where: the file, or what else the image is called in messages.

    Raises:
        MedsegError: there are NaN, infinite or implausible voxels.
    """
    check_numbers(image, where)
    check_intensities(image, where)


def check_intensities(image: NDArray[np.float32], where: str) -> None:
    """Do the latter of (C, *spatial) without NaN."""
    for number, channel in enumerate(image):
        check_channel(channel, where if len(image) == 1 else f"{where}: channel {number}")


def check_numbers(image: NDArray[Any], where: str) -> None:
    """Reject voxels that are no number in float32, the type of images."""
    if image.dtype.kind != "f" or not image.size:
        return
    limit = float(np.finfo(np.float32).max)
    if -limit <= image.min() and image.max() <= limit:  # NaN is neither
        return
    lost = image[~(np.abs(image) <= limit)]
    huge = lost[np.isfinite(lost)]
    what = (
        "NaN or infinite"
        if not huge.size
        else f"NaN or infinite, or beyond float32 as {huge[np.abs(huge).argmax()]:.6g} is"
    )
    raise MedsegError(
        f"{where}: {lost.size} of {image.size} voxels are {what}. Replace them, for example by the value of the"
        " background."
    )


def check_channel(channel: NDArray[np.float32], where: str) -> None:
    """Reject fill values in a channel (*spatial) without NaN; warn of doubtful ones."""
    low, high = float(channel.min()), float(channel.max())
    top = max(-low, high)
    flat = channel.ravel()
    limit, is_error = np.inf, False
    glance = magnitudes_of(flat, GLANCE)
    glance = np.sort(glance[glance > 0])
    small = glance[len(glance) // 10] if glance.size else 0.0  # nine in ten voxels that are not 0 exceed it
    if top > DOUBTFUL * small:
        limit, is_error = limit_of(np.sort(np.append(magnitudes_of(flat, SAMPLE), top)))
    if limit < top:
        is_odd = np.abs(flat) > limit
    elif top in LIMITS:
        is_odd = flat == (high if high == top else low)
        rest = flat[~is_odd]
        largest = float(np.abs(rest).max(initial=0))
        if not ROUNDING * top < largest <= top / BEYOND or rest.min() <= AIR:
            return
    else:
        return
    odd, rest = flat[is_odd], flat[~is_odd]
    values = f"{odd.min():.6g}" if odd.min() == odd.max() else f"{odd.min():.6g} to {odd.max():.6g}"
    verb = "has" if odd.size == 1 else "have"
    message = (
        f"{where}: {odd.size} of {flat.size} voxels {verb} the value {values}, all others are within"
        f" {rest.min():.6g} to {rest.max():.6g}."
    )
    if is_error:
        raise MedsegError(
            f"{message} That is no intensity, but stands for missing data, and the scan's normalisation would be lost"
            " to it. Replace it, for example by the value of the background, in all files of its kind."
        )
    warn(f"{message} If that stands for missing data, replace it, for example by the value of the background.")


def magnitudes_of(flat: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Return the magnitudes of about so many voxels, of all where there are no more."""
    sample = flat if flat.size <= count else flat[np.random.default_rng(0).integers(flat.size, size=count)]
    return np.abs(sample).astype(np.float64)


def limit_of(magnitudes: NDArray[np.float64]) -> tuple[float, bool]:
    """Return the magnitude above which values of a channel are odd, infinite where none are, and whether surely.

    Args:
        magnitudes: of a sample of its voxels with the largest one, sorted.
    """
    top = magnitudes[-1]
    present = magnitudes[magnitudes > (0 if top > LARGE else ROUNDING * top)]
    if not present.size:
        return np.inf, False
    usual = present[int(FEW * (len(present) - 1))]  # of all but a few voxels
    for factor in (IMPLAUSIBLE, DOUBTFUL):
        for gap in np.flatnonzero(present[1:] > factor * present[:-1]):
            below, above = present[: gap + 1], present[gap + 1 :]
            is_filled = len(np.unique(above)) <= FEW_VALUES and len(np.unique(below)) >= LEAST_VALUES
            if above[0] >= ABSURD or (above[0] >= LEAST_FILL and is_filled):
                return float(np.sqrt(below[-1] * above[0])), factor == IMPLAUSIBLE
        if top > factor * usual:
            return float(factor * usual), factor == IMPLAUSIBLE
    return np.inf, False
