"""How far two ways of computing the same model agree on a scan."""

from dataclasses import dataclass

import numpy as np

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
        for (_, ours), (_, theirs) in zip(one.slabs(prepared), other.slabs(prepared), strict=True):
            score = float(np.maximum(score, float((ours - theirs).abs().max())))  # keeps a NaN
            shape = ours.shape[1:]
            slab = slice(0, shape[-1])
            labels = [one.segmenter.predict_labels(iter([(slab, probs)]), shape) for probs in (ours, theirs)]
            differ = (labels[0] != labels[1]).reshape(-1, *shape).any(0)  # of regions, in any of their masks
            unequal += int(differ.sum())
            voxels += differ.size
    return Agreement(score, unequal, voxels)
