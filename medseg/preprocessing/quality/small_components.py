"""Specks: components of a few voxels away from a much larger one, as a slip of the hand or a threshold leaves them.

Those that touch another class are none: where classes border on each other, voxels of one are cut off by the other.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medseg.preprocessing.fingerprint.components import SMALL, measured, parts_of
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint

FEW_PIECES = 3
"""Components, not counting specks, up to which specks of a class are no part of its nature."""
LEAST = 2
"""Voxels a side of the largest speck, at least."""
PART_OF_USUAL = 1000
PART_OF_LARGEST = 10
"""A speck is a speck beside something larger: at most so small a part of the class's largest component."""

Cases = Mapping[str, CaseFingerprint]


def speck_sizes(cases: Cases, n_classes: int) -> dict[int, int]:
    """Return the voxels of the largest speck by class index, of classes whose specks are slips.

    In the median case such a class has few components; lesions or cells are of many, and of small ones, by nature.
    """
    most = {index: speck_size(cases, index) for index in range(1, n_classes)}
    return {index: size for index, size in most.items() if usual_pieces(cases, index, size) <= FEW_PIECES}


def speck_size(cases: Cases, index: int) -> int:
    """Return the voxels of the largest speck of a class.

    Two voxels a side, or more where this is less than a thousandth of the class's largest component in the median case;
    at most four a side.
    """
    dims = max((len(case.shape) for case in cases.values()), default=3)
    largest = [sizes[0] for found in cases.values() if len(sizes := sizes_of(found, index))]
    return int(np.clip(np.median(largest or [0]) / PART_OF_USUAL, LEAST**dims, SMALL**dims))


def usual_pieces(cases: Cases, index: int, most: int) -> float:
    """Return how many components that are no specks a class has in the median case of those that have it."""
    pieces = [len(sizes_of(found, index)) - len(specks_of(found, index, most)) for found in cases.values()]
    return float(np.median([number for number in pieces if number] or [0]))


def specks_of(found: CaseFingerprint, index: int, most: int) -> NDArray[np.int64]:
    """Return the rows (n, 3 + d) of a case's components that are specks of a class."""
    rows = found.components[found.components[:, 0] == index]
    return rows[is_speck(rows, most)]


def sizes_of(found: CaseFingerprint, index: int) -> NDArray[np.int64]:
    """Return the voxels (n,) of a class's components in a case, the largest first."""
    return found.components[found.components[:, 0] == index, 1]


def is_speck(rows: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Tell of the components of one class in one case, rows (n, 3 + d), whether they are specks."""
    sizes = rows[:, 1]
    return (rows[:, 2] == 1) & (sizes <= min(most, sizes.max(initial=0) // PART_OF_LARGEST))


def where_specks(truth: NDArray[np.uint8], most: Mapping[int, int]) -> NDArray[np.bool_]:
    """Return where (*spatial) the specks of the classes in ``most`` are, which has their largest size."""
    found = np.zeros(truth.shape, dtype=bool)
    for index, box, parts, number in parts_of(truth, max(most, default=0) + 1):
        rows = measured(truth, index, box, parts, number)
        found[box] |= np.append(False, is_speck(rows, most.get(index, 0)))[parts]
    return found
