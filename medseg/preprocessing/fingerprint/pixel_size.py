"""How much coarser than its pixels a 2D image may be processed.

2D images often have more pixels than their objects need. On a CPU a step at half the resolution costs a quarter, so
that the network sees four times as many images; on a GPU the pixels are kept.
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
"""Dice of masks with themselves, down- and upsampled, from which on a coarser grid is good enough."""
SHORTEST = 96
"""Pixels that the shorter side of the median image keeps."""


def fidelity(mask: NDArray[np.uint8], geometry: Geometry, n_classes: int) -> tuple[float, ...]:
    """Return for each factor the mean Dice of a mask's classes (*spatial) with themselves, down- and upsampled.

    NaN for a mask without foreground.
    """
    mask = np.where(mask == IGNORE, 0, mask).astype(np.uint8)
    classes = [index for index in np.unique(mask) if index]
    if not classes:
        return (float("nan"),) * len(FACTORS)
    means = []
    for factor in FACTORS:
        shape = tuple(max(1, round(length / factor)) for length in geometry.cut_shape)
        coarse = replace(geometry, shape=shape)
        label = Preprocessor(normalize=["none"]).label(mask, coarse, n_classes)
        one_hot = torch.nn.functional.one_hot(label.long(), n_classes).movedim(-1, 0).float()  # (K, *shape)
        [(_, probs)] = coarse.slabs(coarse.in_one_block(one_hot), torch.eye(n_classes)[0], most=n_classes * mask.size)
        back = probs.argmax(0).numpy()
        pairs = [(back == index, mask == index) for index in classes]
        means.append(float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])))
    return tuple(means)


def coarsest(fidelities: Sequence[Sequence[float]], shortest: float) -> int:
    """Return the largest factor that masks survive and that leaves images of ``shortest`` pixels large enough, or 1."""
    means = np.nanmean(np.array(fidelities), axis=0)
    return max(
        [f for f, mean in zip(FACTORS, means, strict=True) if mean >= FAITHFUL and shortest / f >= SHORTEST] or [1]
    )
