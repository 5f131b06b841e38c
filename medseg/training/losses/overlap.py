"""Losses on the overlap of prediction and reference: Dice, Tversky and generalised Dice."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from medseg.config.arguments import check_argument, check_declared
from medseg.config.schema import Setting
from medseg.training.losses.base import (
    Batch,
    ClassWeighted,
    ClassWeights,
    IncludeBackground,
    any_known,
    channels,
    full,
    weighted_mean,
)


class RatioLoss(ClassWeighted):
    """Minus the mean over classes of a ratio that is 1 where prediction and reference agree; from -1 (perfect) to 0.

    Args:
        batch: one ratio for the whole batch instead of one a sample.
        include_background: count class 0 as well; regions have no background.
        class_weights: a number for each output channel; None: all are equal.
        smooth: added to numerator and denominator, above 0.
    """

    def __init__(
        self, batch: bool, include_background: bool, class_weights: Sequence[float] | None, smooth: float
    ) -> None:
        super().__init__(class_weights)
        check_argument("loss", self, "smooth", smooth, smooth > 0, "above 0")
        self.batch, self.include_background, self.smooth = batch, include_background, smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, *spatial) and int64 classes or regions -> scalar, float32 (float64 for float64 logits)."""
        logits = full(logits)
        sums = torch.stack([self.sums(p, g) for p, g in channels(logits, target, self.include_background)], dim=1)
        weights = self.weights_for(logits)[-sums.shape[1] :, None] * any_known(target, self.batch)  # (C, S)
        return -self.agreement(sums, weights)

    def sums(self, p: Tensor, g: Tensor) -> Tensor:
        """Return what a class's ratio is made of: (n, S), S being 1 for a batch as a whole, else the samples.

        ``p`` are its probabilities and ``g`` is its reference, bool, both (B, *spatial), and 0 where that is unknown.
        """
        raise NotImplementedError

    def ratio(self, sums: Tensor) -> Tensor:
        """Return each class's ratio, (C, S), from its ``sums`` (n, C, S)."""
        raise NotImplementedError

    def agreement(self, sums: Tensor, weights: Tensor) -> Tensor:
        """Return the mean ratio with these weights of classes and samples (C, S), 0 where nothing is known."""
        return weighted_mean(self.ratio(sums), weights)

    def total(self, values: Tensor) -> Tensor:
        """Sum values (B, *spatial) to (S,)."""
        return values.sum(tuple(range(0 if self.batch else 1, values.ndim))).reshape(-1)


class OverlapLoss(RatioLoss):
    """A loss on the sums of p g, p (or p^2) and g over the known voxels.

    A class that is nowhere in the reference has a numerator of ``smooth`` alone: it costs nothing where it is not
    predicted (ratio 1) and gives next to no gradient where it is (ratio near 0), as in nnU-Net. False positives of such
    a class are left to the cross-entropy, and to ``batch``, which makes absence rarer.
    """

    squared = False

    def sums(self, p: Tensor, g: Tensor) -> Tensor:
        """Return sum(p g), sum(p) or sum(p^2), and sum(g): (3, S)."""
        return torch.stack([self.total(values) for values in (p * g, p.square() if self.squared else p, g)])


class DiceLoss(OverlapLoss):
    """L = -2 sum(p g) / (sum(p^2) + sum(g^2)), the mean over classes; from -1 (perfect) to 0.

    p are the probabilities, g the reference as 0 and 1. The squares are Milletari et al.'s, "V-Net" (3DV 2016); without
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
        squared: Annotated[bool, Setting("squares in the denominator")] = True,
        batch: Batch = True,
        include_background: IncludeBackground = False,
        class_weights: ClassWeights = None,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__(batch, include_background, class_weights, smooth)
        self.squared = squared

    def ratio(self, sums: Tensor) -> Tensor:
        """Return the soft Dice coefficients, (C, S)."""
        both, predicted, true = sums
        return (2 * both + self.smooth) / (predicted + true + self.smooth)


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
        alpha: Annotated[float, Setting("weight of false positives", "(0, inf)")] = 0.3,
        beta: Annotated[float, Setting("weight of false negatives", "(0, inf)")] = 0.7,
        batch: Batch = True,
        include_background: IncludeBackground = False,
        class_weights: ClassWeights = None,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__(batch, include_background, class_weights, smooth)
        check_declared("loss", self, alpha=alpha, beta=beta)
        self.alpha, self.beta = alpha, beta

    def ratio(self, sums: Tensor) -> Tensor:
        """Return the soft Tversky indices, (C, S)."""
        both, predicted, true = sums
        errors = self.alpha * (predicted - both) + self.beta * (true - both)
        return (both + self.smooth) / (both + errors + self.smooth)


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
        batch: Batch = True,
        include_background: IncludeBackground = True,
        class_weights: ClassWeights = None,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__(batch, include_background, class_weights, smooth)

    def agreement(self, sums: Tensor, weights: Tensor) -> Tensor:
        """Return the mean over the samples of one ratio for all classes."""
        both, predicted, true = sums
        known = weights.any(0)
        present = true > 0
        smallest = torch.where(present, true, torch.inf).amin(0)
        weights = weights * torch.where(present, smallest / true, 1).square()
        ratio = (2 * (weights * both).sum(0) + self.smooth) / ((weights * (predicted + true)).sum(0) + self.smooth)
        return weighted_mean(ratio, known)  # over (S,)
