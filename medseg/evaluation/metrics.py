"""Overlap of a prediction with the truth, from three counts a class.

The counts are integers, so they can be summed, gathered and stored without loss; the scores follow from them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20
"""Voxels counted at once: bincount widens its input to 64 bit, which a large CT would feel."""


def counts(prediction: NDArray[Any], truth: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Count |P∩G|, |P| and |G| of each class index, in voxels.

    ``prediction`` and ``truth`` hold class indices 0..K-1 in integer arrays of one shape (*spatial).
    Returns int64 (K, 3). Raises ValueError where the shapes differ or an index is not below ``n_classes``.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction and truth differ in shape: {prediction.shape} and {truth.shape}")
    predicted, true = prediction.ravel(), truth.ravel()
    total = np.zeros((3, n_classes), np.int64)
    for start in range(0, predicted.size, CHUNK):
        p, g = predicted[start : start + CHUNK], true[start : start + CHUNK]
        total += [_histogram(p[p == g], n_classes), _histogram(p, n_classes), _histogram(g, n_classes)]
    return total.T  # (K, 3)


def dice(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice coefficient 2|P∩G| / (|P| + |G|) of counts (..., K, 3), as float64 (..., K).

    NaN (undefined) where prediction and truth are both empty, 0 where one of them is.
    Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945).
    """
    intersection, predicted, true = np.moveaxis(counts, -1, 0)  # each (..., K)
    return _ratio(2 * intersection, predicted + true)


def iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union |P∩G| / |P∪G| (Jaccard index) of counts (..., K, 3), as float64 (..., K).

    NaN (undefined) where prediction and truth are both empty, 0 where one of them is.
    Jaccard, "The distribution of the flora in the alpine zone", New Phytologist 11 (1912).
    """
    intersection, predicted, true = np.moveaxis(counts, -1, 0)  # each (..., K)
    return _ratio(intersection, predicted + true - intersection)


def _histogram(indices: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    histogram = np.bincount(indices, minlength=n_classes)
    if len(histogram) > n_classes:
        raise ValueError(f"class index {len(histogram) - 1} found, but there are only {n_classes} classes")
    return histogram


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
