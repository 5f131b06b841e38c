"""Numbers far from those of the other cases."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST = 10
"""Cases from which on some can be called usual."""
FAR = 5.0
"""Robust z-score from which on a case is an outlier. Of 1000 cases of a normal distribution none has it."""
LEAST_DEVIATION = 0.1
"""Standard deviation of logarithms that is counted at least: sizes within 60 % of the median are no outliers."""
CONSISTENT = 0.95
"""Share of cases that must agree before others can be said to disagree."""


def robust_z(values: ArrayLike, least_deviation: float = 0.0) -> NDArray[np.float64]:
    """Return how many standard deviations (n,) values are from their median.

    The deviation is told by the median absolute deviation, which outliers do not change: z = (x - median) / (1.4826
    MAD), the factor making it that of a normal distribution (Iglewicz and Hoaglin, "How to Detect and Handle Outliers",
    1993). 0 where it is 0.
    """
    found = np.asarray(values, dtype=float)
    from_median = found - np.median(found)
    deviation = max(1.4826 * float(np.median(np.abs(from_median))), least_deviation)
    return np.asarray(from_median / deviation if deviation else np.zeros_like(from_median))


def odd_sizes(sizes: ArrayLike) -> NDArray[np.float64]:
    """Return the robust z-scores (n,) of logarithms of positive sizes; 0 of those that are no outliers.

    Sizes of structures spread by factors, so that their logarithms are about normal.
    """
    if np.size(sizes) < LEAST:
        return np.zeros(np.size(sizes))
    z = robust_z(np.log(sizes), LEAST_DEVIATION)
    return np.where(np.abs(z) > FAR, z, 0.0)


def odd_intensities(low: ArrayLike, high: ArrayLike) -> list[str]:
    """Say of each case (n) how a channel's intensities lie elsewhere than most cases'; "" where they do not.

    ``low`` and ``high`` are the 0.5 and 99.5 percentiles. Nothing is said where the cases do not agree themselves, as
    MRI does without units. Found is what a wrong rescale slope or another type of file does.
    """
    floor, span = np.asarray(low, dtype=float), np.asarray(high, dtype=float) - np.asarray(low, dtype=float)
    usual, floors = float(np.median(span)), float(np.median(floor))
    texts = [""] * len(span)
    if len(span) < LEAST or usual <= 0:
        return texts
    if share((span > usual / 2) & (span < 2 * usual)) >= CONSISTENT:
        texts = [f"range {wide:.4g}, median {usual:.4g}" if not usual / 8 < wide < usual * 8 else "" for wide in span]
    if share(np.abs(floor - floors) < usual / 4) >= CONSISTENT:
        shifted = np.abs(floor - floors) > usual / 2
        told = [f"begins at {value:.4g}, median {floors:.4g}" for value in floor]
        texts = [text or (one if odd else "") for text, one, odd in zip(texts, told, shifted, strict=True)]
    return texts


def share(agree: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Return the share of cases that agree."""
    return float(np.mean(agree))
