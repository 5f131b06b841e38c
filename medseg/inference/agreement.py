"""How far two ways of computing the same model agree on a scan."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medseg.inference.predictor import Predictor, Prepared

SCORE = 1e-3
"""Probabilities that differ by no more agree."""

UNEQUAL = 1e-4
"""The share of voxels whose labels may differ."""


@dataclass(frozen=True)
class Agreement:
    """The greatest difference of two probabilities, and in how many of all voxels the labels differ."""

    score: float
    unequal: int
    voxels: int

    def __bool__(self) -> bool:
        """Tell whether it is close enough."""
        return self.score <= SCORE and self.unequal <= UNEQUAL * self.voxels  # NaN is not

    def __str__(self) -> str:
        """The numbers, and what is allowed."""
        return (
            f"scores differ by at most {self.score:.1e} (allowed: {SCORE:g}), labels in {self.unequal} of "
            f"{self.voxels} voxels (allowed: 1 in {1 / UNEQUAL:.0f})"
        )


def agreement(one: Predictor, other: Predictor, prepared: Prepared) -> Agreement:
    """Compare what two predictors of the same grids make of a prepared scan, before post-processing, slab by slab."""
    score, unequal, voxels = 0.0, 0, 0
    with one.computing(prepared):
        for (_, ours), (_, theirs) in zip(one.scores(prepared), other.scores(prepared), strict=True):
            score = float(np.maximum(score, float((ours - theirs).abs().max())))  # keeps a NaN
            differ = (labels(one, ours) != labels(one, theirs)).reshape(-1, *ours.shape[1:]).any(0)
            unequal += int(differ.sum())
            voxels += differ.size
    return Agreement(score, unequal, voxels)


def labels(predictor: Predictor, scores: Tensor) -> NDArray[np.uint8]:
    """Return the labels (*native grid, some slices) of a slab's probabilities (K, *), of regions a mask each."""
    thickness = scores.shape[-1]
    return predictor.segmenter.decide(iter([(slice(0, thickness), scores)]), scores.shape[1:])
