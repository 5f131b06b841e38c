"""How much coarser than its pixels a picture may be worked on.

Pictures often have more pixels than their objects need. On a CPU a step at half the resolution costs a quarter, so that
the network sees four times as many images; on a GPU the pixels are kept.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.io.labels import IGNORE
from medseg.preprocessing.geometry import Geometry
from medseg.preprocessing.preprocessor import Preprocessor

FACTORS = (2, 3, 4)
FAITHFUL = 0.96
"""Dice of masks with themselves, there and back, from which on a coarser grid is good enough."""
SHORTEST = 96
"""Pixels that the shorter side of the median picture keeps."""


def fidelity(truth: NDArray[np.uint8], geometry: Geometry, n_classes: int) -> tuple[float, ...]:
    """Return for each factor the Dice of class indices (*spatial) with themselves, there and back; NaN without any."""
    truth = np.where(truth == IGNORE, 0, truth).astype(np.uint8)
    found = []
    for factor in FACTORS:
        shape = tuple(max(1, round(length / factor)) for length in geometry.cut_shape)
        coarse = replace(geometry, shape=shape)
        label = Preprocessor(normalize=["none"]).label(truth, coarse, n_classes)
        one_hot = torch.nn.functional.one_hot(label.long(), n_classes).movedim(-1, 0).float()  # (K, *shape)
        [(_, scores)] = coarse.slabs(coarse.in_rows(one_hot), torch.eye(n_classes)[0], most=n_classes * truth.size)
        found.append(mean_dice(scores.argmax(0).numpy(), truth))
    return tuple(found)


def mean_dice(found: NDArray[np.integer], truth: NDArray[np.uint8]) -> float:
    """Return the mean Dice over the foreground classes of the truth, NaN where it has none."""
    classes = [index for index in np.unique(truth) if index]
    masks = [(found == index, truth == index) for index in classes]
    scores = [2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) for ours, theirs in masks]
    return float(np.mean(scores)) if scores else float("nan")


def coarsest(fidelities: Sequence[Sequence[float]], shortest: float) -> int:
    """Return the largest factor that masks bear and that leaves pictures of ``shortest`` pixels large enough, or 1."""
    means = np.nanmean(np.array(fidelities), axis=0)
    return max(
        [f for f, mean in zip(FACTORS, means, strict=True) if mean >= FAITHFUL and shortest / f >= SHORTEST] or [1]
    )
