"""Losses, called like MONAI's: ``loss(logits, target)``, logits (B, K, *spatial), class indices (B, 1, *spatial).

Each is computed in float32 at least, whatever the precision of the network: a half-precision sum over a patch stops
growing long before it is complete.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.errors import MedsegError


class DiceLoss(nn.Module):
    """L = -2 sum(p g) / (sum(p^2) + sum(g^2)), the mean over classes; from -1 (perfect) to 0.

    p are the softmax probabilities, g the true classes as 0 and 1. The squares are Milletari et al.'s, "V-Net"
    (3DV 2016); without them the loss is nnU-Net's: L = -2 sum(p g) / (sum(p) + sum(g)).

    A class that is nowhere in the truth has a numerator of ``smooth`` alone: it costs nothing where it is not predicted
    (ratio 1) and gives next to no gradient where it is (ratio near 0), as in nnU-Net. False positives of such a class
    are left to the cross-entropy, and to ``batch``, which makes absence rarer.

    Args:
        squared: squares in the denominator.
        batch: one ratio for the whole batch instead of one a sample.
        include_background: count class 0 as well.
        smooth: added to numerator and denominator, above 0.
    """

    def __init__(
        self, *, squared: bool = True, batch: bool = True, include_background: bool = False, smooth: float = 1e-5
    ) -> None:
        super().__init__()
        _check("smooth", smooth, smooth > 0, "above 0")
        self.squared, self.batch, self.smooth = squared, batch, smooth
        self.first = 0 if include_background else 1

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, K, *spatial) and int64 (B, 1, *spatial) -> scalar, float32 (float64 for float64 logits)."""
        if logits.shape[1] <= self.first:
            raise MedsegError(
                "loss: DiceLoss leaves out the background, and the network has no other class. "
                "Give the network one output a class, background included, or set loss.include_background=true."
            )
        probabilities = torch.softmax(_full(logits), dim=1)
        sums = [self._sums(p, target[:, 0] == k) for k, p in enumerate(probabilities.unbind(1)) if k >= self.first]
        overlap, size = torch.stack(sums).unbind(-1)  # (classes, B), or (classes,)
        return -((2 * overlap + self.smooth) / (size + self.smooth)).mean()

    def _sums(self, p: Tensor, g: Tensor) -> Tensor:
        """One class's p and g, each (B, *spatial) -> sum(p g) and the denominator: (B, 2), or (2,) for the batch."""
        axes = tuple(range(0 if self.batch else 1, p.ndim))
        # By class and with g as booleans, so that the truth never becomes a float one-hot volume.
        overlap = (p * g).sum(axes)
        size = (p.square() if self.squared else p).sum(axes) + g.sum(axes)
        return torch.stack([overlap, size], dim=-1)


class CrossEntropyLoss(nn.Module):
    """The mean of -log p over all voxels, p being the probability of the true class.

    With label smoothing s the truth is 1 - s + s / K for the true class and s / K for the others: Szegedy et al.,
    "Rethinking the Inception Architecture" (CVPR 2016), section 7.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        _check("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "from 0 to below 1")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, K, *spatial) and int64 (B, 1, *spatial) -> scalar, float32 (float64 for float64 logits)."""
        # Not F.cross_entropy: on spatial axes it has no deterministic form on a GPU.
        log_p = F.log_softmax(_full(logits), dim=1)
        loss = -log_p.gather(1, target).mean()
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * log_p.mean()
        return loss


class DiceCELoss(nn.Module):
    """``dice_weight`` times the Dice loss plus ``ce_weight`` times the cross-entropy, nnU-Net's default."""

    def __init__(
        self, *, dice_weight: float = 1.0, ce_weight: float = 1.0, squared: bool = False, batch: bool = True
    ) -> None:
        super().__init__()
        for name, weight in {"dice_weight": dice_weight, "ce_weight": ce_weight}.items():
            _check(name, weight, weight >= 0, "0 or more")
        self.dice_weight, self.ce_weight = dice_weight, ce_weight
        self.dice, self.ce = DiceLoss(squared=squared, batch=batch), CrossEntropyLoss()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, K, *spatial) and int64 (B, 1, *spatial) -> scalar, float32 (float64 for float64 logits)."""
        logits = _full(logits)
        return self.dice_weight * self.dice(logits, target) + self.ce_weight * self.ce(logits, target)


def _full(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _check(name: str, value: float, fits: bool, allowed: str) -> None:
    if not fits:
        raise MedsegError(f"loss: {name} is {value}; allowed: {allowed}. Change it in the loss group of the config.")
