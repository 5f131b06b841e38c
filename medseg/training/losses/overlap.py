"""Losses on the overlap of prediction and truth: Dice, Tversky and generalised Dice."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.training.losses.base import ClassWeighted, any_known, channels, check, full, weighted_mean


@dataclass(frozen=True)
class Overlap:
    """Sums over the known voxels by class and sample, each (C, S); S is 1 for a batch as a whole."""

    both: Tensor
    """sum(p g), p being the probabilities and g the truth as 0 and 1"""
    predicted: Tensor
    """sum(p), or sum(p^2)"""
    true: Tensor
    """sum(g)"""


class OverlapLoss(ClassWeighted):
    """Minus the mean over classes of a ratio that is 1 where prediction and truth agree; from -1 (perfect) to 0.

    A class that is nowhere in the truth has a numerator of ``smooth`` alone: it costs nothing where it is not predicted
    (ratio 1) and gives next to no gradient where it is (ratio near 0), as in nnU-Net. False positives of such a class
    are left to the cross-entropy, and to ``batch``, which makes absence rarer.

    Args:
        batch: one ratio for the whole batch instead of one a sample.
        include_background: count class 0 as well; regions have no background.
        class_weights: a number for each output channel; None: all are equal.
        smooth: added to numerator and denominator, above 0.
    """

    squared = False

    def __init__(
        self, batch: bool, include_background: bool, class_weights: Sequence[float] | None, smooth: float
    ) -> None:
        super().__init__(class_weights)
        check("smooth", smooth, smooth > 0, "above 0")
        self.batch, self.include_background, self.smooth = batch, include_background, smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, *spatial) and int64 classes or regions -> scalar, float32 (float64 for float64 logits)."""
        logits = full(logits)
        sums = [self.sums(p, g) for p, g in channels(logits, target, self.include_background)]
        both, predicted, true = torch.stack(sums, dim=1)  # of (C, S) each
        weights = self.weights_for(logits)[-len(sums) :, None] * any_known(target, self.batch)
        return -self.agreement(Overlap(both, predicted, true), weights)

    def sums(self, p: Tensor, g: Tensor) -> Tensor:
        """Return the overlap of p and g, both (B, *spatial), and their sizes: (3, S)."""
        axes = tuple(range(0 if self.batch else 1, p.ndim))
        size = (p.square() if self.squared else p).sum(axes)
        sums = [(p * g).sum(axes), size, g.sum(axes)]
        return torch.stack([value.reshape(-1) for value in sums])

    def agreement(self, overlap: Overlap, weights: Tensor) -> Tensor:
        """Return the mean ratio with these weights of classes and samples (C, S), 0 where nothing is known."""
        return weighted_mean(self.ratio(overlap), weights)

    def ratio(self, overlap: Overlap) -> Tensor:
        """Return each class's ratio, (C, S)."""
        raise NotImplementedError


class DiceLoss(OverlapLoss):
    """L = -2 sum(p g) / (sum(p^2) + sum(g^2)), the mean over classes; from -1 (perfect) to 0.

    p are the probabilities, g the truth as 0 and 1. The squares are Milletari et al.'s, "V-Net" (3DV 2016); without
    them the loss is nnU-Net's: L = -2 sum(p g) / (sum(p) + sum(g)).

    Args:
        squared: squares in the denominator.
        batch: one ratio for the whole batch instead of one a sample.
        include_background: count class 0 as well; regions have no background.
        class_weights: a number for each output channel; None: all are equal.
        smooth: added to numerator and denominator, above 0.
    """

    def __init__(
        self,
        *,
        squared: bool = True,
        batch: bool = True,
        include_background: bool = False,
        class_weights: Sequence[float] | None = None,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__(batch, include_background, class_weights, smooth)
        self.squared = squared

    def ratio(self, overlap: Overlap) -> Tensor:
        """Return the soft Dice coefficients, (C, S)."""
        return (2 * overlap.both + self.smooth) / (overlap.predicted + overlap.true + self.smooth)


class TverskyLoss(OverlapLoss):
    """L = -TP / (TP + alpha FP + beta FN), the mean over classes; from -1 (perfect) to 0.

    TP = sum(p g), FP = sum(p (1 - g)), FN = sum((1 - p) g): Salehi et al., "Tversky loss function for image
    segmentation using 3D fully convolutional deep networks" (MLMI 2017), whose best weights are the defaults. At one
    half each it is the Dice loss without squares; more beta finds more of small lesions, at the price of false ones.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        batch: one ratio for the whole batch instead of one a sample.
        include_background: count class 0 as well; regions have no background.
        class_weights: a number for each output channel; None: all are equal.
        smooth: added to numerator and denominator, above 0.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        batch: bool = True,
        include_background: bool = False,
        class_weights: Sequence[float] | None = None,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__(batch, include_background, class_weights, smooth)
        for name, weight in {"alpha": alpha, "beta": beta}.items():
            check(name, weight, weight > 0, "above 0")
        self.alpha, self.beta = alpha, beta

    def ratio(self, overlap: Overlap) -> Tensor:
        """Return the soft Tversky indices, (C, S)."""
        false_positive, false_negative = overlap.predicted - overlap.both, overlap.true - overlap.both
        errors = self.alpha * false_positive + self.beta * false_negative
        return (overlap.both + self.smooth) / (overlap.both + errors + self.smooth)


class GeneralizedDiceLoss(OverlapLoss):
    """L = -2 sum_k w_k sum(p g) / sum_k w_k (sum(p) + sum(g)), w_k = 1 / (class k's voxels)^2; from -1 (perfect) to 0.

    Sudre et al., "Generalised Dice overlap as a deep learning loss function for highly unbalanced segmentations"
    (DLMIA 2017): one ratio for all classes, each weighted against its size, and the background among them. A class
    that is absent weighs as the smallest one that is there, as in MONAI. The weights are taken relative to that, which
    leaves the ratio as it is and ``smooth`` small against it.

    Args:
        batch: one ratio for the whole batch instead of one a sample.
        include_background: count class 0 as well; regions have no background.
        class_weights: a number for each output channel; None: all are equal.
        smooth: added to numerator and denominator, above 0.
    """

    def __init__(
        self,
        *,
        batch: bool = True,
        include_background: bool = True,
        class_weights: Sequence[float] | None = None,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__(batch, include_background, class_weights, smooth)

    def agreement(self, overlap: Overlap, weights: Tensor) -> Tensor:
        """Return the mean over the samples of one ratio for all classes."""
        known = weights.any(0)
        weights = weights * inverse_squares(overlap.true)
        both = (weights * overlap.both).sum(0)
        size = (weights * (overlap.predicted + overlap.true)).sum(0)
        ratio = (2 * both + self.smooth) / (size + self.smooth)  # (S,)
        return weighted_mean(ratio, known)


def inverse_squares(sizes: Tensor) -> Tensor:
    """Return the inverse squares of sizes (C, S) relative to the smallest that is not 0; 1 for those that are."""
    present = sizes > 0
    smallest = torch.where(present, sizes, torch.inf).amin(0)
    return torch.where(present, smallest / sizes, 1).square()
