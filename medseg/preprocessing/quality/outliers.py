"""What is unlike the rest: sizes and intensities far from those of the other cases, and small components of a class.

A small component has a few voxels and lies away from a much larger one, as a slip of the hand or a threshold leaves it.
Those that touch another class do not count: where classes border on each other, voxels of one are cut off by the other.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.preprocessing.fingerprint.components import SMALL, components_by_class, measured
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint

LEAST = 10
"""Cases from which on some can be called usual."""
FAR = 5.0
"""Robust z-score from which on a case is an outlier. Of 1000 cases of a normal distribution none has it."""
LEAST_SD = 0.1
"""Least standard deviation (SD) of logarithms: sizes within 60 % of the median are no outliers."""
CONSISTENT = 0.95
"""Share of cases that must agree before others can be said to disagree."""


def robust_z(values: ArrayLike, least_sd: float = 0.0) -> NDArray[np.float64]:
    """Return how many standard deviations (SD) each of (n,) values is from their median.

    The SD is estimated by the median absolute deviation, which outliers do not change: z = (x - median) / (1.4826 MAD),
    the factor making it that of a normal distribution (Iglewicz and Hoaglin, "How to Detect and Handle Outliers",
    1993). 0 where the SD is 0.
    """
    numbers = np.asarray(values, dtype=float)
    from_median = numbers - np.median(numbers)
    sd = max(1.4826 * float(np.median(np.abs(from_median))), least_sd)
    return np.asarray(from_median / sd if sd else np.zeros_like(from_median))


def odd_sizes(sizes: ArrayLike) -> NDArray[np.float64]:
    """Return the robust z-scores (n,) of logarithms of positive sizes; 0 of those that are no outliers.

    Sizes of structures spread by factors, so that their logarithms are about normal.
    """
    if np.size(sizes) < LEAST:
        return np.zeros(np.size(sizes))
    z = robust_z(np.log(sizes), LEAST_SD)
    return np.where(np.abs(z) > FAR, z, 0.0)


def odd_intensities(low: ArrayLike, high: ArrayLike) -> list[str]:
    """Return of each case (n) how a channel's intensities lie elsewhere than most cases'; "" where they do not.

    ``low`` and ``high`` are the 0.5 and 99.5 percentiles. Nothing is said where the cases do not agree themselves, as
    MRI does without units. This reveals a wrong rescale slope or another type of file.
    """
    floor, span = np.asarray(low, dtype=float), np.asarray(high, dtype=float) - np.asarray(low, dtype=float)
    usual, floors = float(np.median(span)), float(np.median(floor))
    texts = [""] * len(span)
    if len(span) < LEAST or usual <= 0:
        return texts
    if np.mean((span > usual / 2) & (span < 2 * usual)) >= CONSISTENT:
        texts = [f"range {wide:.4g}, median {usual:.4g}" if not usual / 8 < wide < usual * 8 else "" for wide in span]
    if np.mean(np.abs(floor - floors) < usual / 4) >= CONSISTENT:
        shifted = np.abs(floor - floors) > usual / 2
        texts = [
            text or (f"begins at {value:.4g}, median {floors:.4g}" if is_shifted else "")
            for text, value, is_shifted in zip(texts, floor, shifted, strict=True)
        ]
    return texts


FEW_PIECES = 3
"""Components, small ones not counted, up to which small ones are no part of a class's nature."""
LEAST_SIDE = 2
"""Voxels a side of the largest small component, at least."""
PART_OF_USUAL = 1000
PART_OF_LARGEST = 10
"""A component is small beside something larger: at most this part of the class's largest component."""

Cases = Mapping[str, CaseFingerprint]


def small_component_sizes(cases: Cases, n_classes: int) -> dict[int, int]:
    """Return the voxels of the largest small component by class index, of classes whose small components are slips.

    In the median case such a class has few components; lesions or cells are of many, and of small ones, by nature.
    """
    sizes = {}
    for index in range(1, n_classes):
        largest = small_component_size(cases, index)
        counts = [
            len(sizes_of(case, index)) - len(small_components_of(case, index, largest)) for case in cases.values()
        ]
        if np.median([count for count in counts if count] or [0]) <= FEW_PIECES:
            sizes[index] = largest
    return sizes


def small_component_size(cases: Cases, index: int) -> int:
    """Return the voxels up to which a component of a class is small.

    Two voxels a side, or more where this is less than a thousandth of the class's largest component in the median case;
    at most four a side.
    """
    dims = max((len(case.shape) for case in cases.values()), default=3)
    largest = [sizes[0] for case in cases.values() if len(sizes := sizes_of(case, index))]
    return int(np.clip(np.median(largest or [0]) / PART_OF_USUAL, LEAST_SIDE**dims, SMALL**dims))


def small_components_of(case: CaseFingerprint, index: int, most: int) -> NDArray[np.int64]:
    """Return the rows (n, 3 + d) of a case's small components of a class, of at most ``most`` voxels."""
    rows = case.components[case.components[:, 0] == index]
    return rows[is_small_component(rows, most)]


def sizes_of(case: CaseFingerprint, index: int) -> NDArray[np.int64]:
    """Return the voxels (n,) of a class's components in a case, the largest first."""
    return case.components[case.components[:, 0] == index, 1]


def is_small_component(rows: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Return of the components of one class in one case, rows (n, 3 + d), whether they are small and isolated."""
    sizes = rows[:, 1]
    return (rows[:, 2] == 1) & (sizes <= min(most, sizes.max(initial=0) // PART_OF_LARGEST))


def where_small_components(mask: NDArray[np.uint8], most: Mapping[int, int]) -> NDArray[np.bool_]:
    """Return where (*spatial) small components of a mask are; ``most`` has their largest size by class index."""
    where = np.zeros(mask.shape, dtype=bool)
    for index, box, numbered, count in components_by_class(mask, max(most, default=0) + 1):
        rows = measured(mask, index, box, numbered, count)
        where[box] |= np.append(False, is_small_component(rows, most.get(index, 0)))[numbered]
    return where
