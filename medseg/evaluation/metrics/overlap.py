"""Overlap of a prediction with the ground truth, from three counts a class.

The counts are integers, so they can be summed, gathered and stored without loss; the scores follow from them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.io.labels import IGNORE

CHUNK = 1 << 20
"""Voxels counted at once: bincount widens its input to 64 bit, which a large CT would feel."""


def counts(
    prediction: NDArray[Any], reference: NDArray[Any], n_classes: int, unions: Iterable[Sequence[int]] | None = None
) -> NDArray[np.int64]:
    """Count |P∩G|, |P| and |G| of each class, or of each union of class indices, in voxels.

    ``prediction`` and ``reference`` hold class indices 0..K-1 in integer arrays of one shape (*spatial); voxels whose
    ground truth is IGNORE are left out of all three.
    Returns int64 (K or number of unions, 3). Raises ValueError where the shapes differ or an index is not below
    ``n_classes``.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction and ground truth differ in shape: {prediction.shape} and {reference.shape}")
    together = np.zeros((n_classes, n_classes), np.int64)  # (reference, prediction)
    flat = prediction.ravel(), reference.ravel()
    for start in range(0, prediction.size, CHUNK):
        predicted, true = (array[start : start + CHUNK] for array in flat)
        known = true != IGNORE
        if not known.all():
            predicted, true = predicted[known], true[known]
        highest = max(predicted.max(initial=0), true.max(initial=0))
        if highest >= n_classes:
            raise ValueError(f"class index {highest} found, but there are only {n_classes} classes")
        pairs = true.astype(np.int32) * n_classes + predicted
        together += np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
    members = [list(union) for union in unions] if unions is not None else [[index] for index in range(n_classes)]
    sizes = [(together[np.ix_(own, own)].sum(), together[:, own].sum(), together[own].sum()) for own in members]
    return np.array(sizes, dtype=np.int64).reshape(-1, 3)


def dice(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice coefficient 2|P∩G| / (|P| + |G|) of counts (..., K, 3), as float64 (..., K).

    NaN (undefined) where prediction and ground truth are both empty, 0 where one of them is.
    Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945).
    """
    intersection, predicted, true = np.moveaxis(counts, -1, 0)  # each (..., K)
    return _ratio(2 * intersection, predicted + true)


def iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union |P∩G| / |P∪G| (Jaccard index) of counts (..., K, 3), as float64 (..., K).

    NaN (undefined) where prediction and ground truth are both empty, 0 where one of them is.
    Jaccard, "The distribution of the flora in the alpine zone", New Phytologist 11 (1912).
    """
    intersection, predicted, true = np.moveaxis(counts, -1, 0)  # each (..., K)
    return _ratio(intersection, predicted + true - intersection)


def sensitivity(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share |P∩G| / |G| of the ground truth that was found, of counts (..., K, 3), as float64 (..., K).

    NaN without ground truth.
    """
    intersection, _, true = np.moveaxis(counts, -1, 0)
    return _ratio(intersection, true)


def precision(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share |P∩G| / |P| of the prediction that is right, of counts (..., K, 3), as float64 (..., K).

    NaN without a prediction.
    """
    intersection, predicted, _ = np.moveaxis(counts, -1, 0)
    return _ratio(intersection, predicted)


def relative_difference(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Volume difference 100·(|P| - |G|) / |G| in percent, of counts (..., K, 3), as float64 (..., K).

    NaN without ground truth.
    """
    _, predicted, true = np.moveaxis(counts, -1, 0)
    return 100 * _ratio(predicted - true, true)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
