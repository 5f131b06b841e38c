"""Probabilities of regions in a byte a voxel: how many thresholds of a ladder they exceed.

From them regions come out, at every threshold of the ladder, as they would from the probabilities themselves.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.inference.segmenter import Regions


def rungs_of(scores: Tensor, ladder: Sequence[float], regions: Regions) -> Tensor:
    """Return uint8 (R, *) of probabilities (R, *): how many of the rising thresholds in ``ladder`` each exceeds.

    Of regions that exclude each other, all but the likeliest are 0.
    """
    rungs = torch.zeros(scores.shape, dtype=torch.uint8, device=scores.device)
    for threshold in ladder:
        rungs += scores > threshold
    if regions.are_disjoint:
        likeliest = torch.zeros_like(rungs).scatter_(0, scores.max(0).indices[None], 1)
        rungs *= likeliest
    return rungs


def decided(
    rungs: NDArray[np.uint8], ladder: Sequence[float], thresholds: Sequence[float], regions: Regions
) -> NDArray[np.uint8]:
    """Return what ``Segmenter.decide`` would at these thresholds, one a region and each in the ladder.

    ``rungs`` is (R, *spatial). Returns a mask of each region (R, *spatial), or class indices (*spatial) of regions that
    exclude each other; uint8.
    """
    masks = np.stack([(of_region > ladder.index(cut)) for of_region, cut in zip(rungs, thresholds, strict=True)]).view(
        np.uint8
    )
    if not regions.are_disjoint:
        return masks
    painted = np.array(regions.painted, np.uint8).reshape(-1, *[1] * (rungs.ndim - 1))
    return (masks * painted).max(0)  # only one of them is there
