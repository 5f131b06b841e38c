"""Losses of other packages, on classes and regions, with unknown voxels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medseg.io.labels import IGNORE
from medseg.training.losses.truth import are_regions, first_channel, full, probabilities_of


class OnProbabilities(nn.Module):
    """Calls a loss that knows probabilities and one-hot truth only, such as most of MONAI's.

    The loss is given the probabilities (softmax, or sigmoid for regions) and the truth as 0 and 1, both (B, C, *spatial)
    in floating point. Unknown voxels are 0 in both, so that no difference is seen there and no gradient comes back;
    where nothing at all is known the loss is 0. So any loss of MONAI's learns regions and bears unknown voxels::

        _target_: medseg.training.losses.OnProbabilities
        include_background: false
        loss:
          _target_: monai.losses.DiceLoss
          jaccard: true

    Leave the loss's own ``softmax``, ``sigmoid``, ``to_onehot_y`` and ``include_background`` at what leaves its input as
    it is; ``include_background: true`` where false is the loss's default. Losses that take logits, such as MONAI's
    ``FocalLoss``, cannot be used so.

    Args:
        loss: (probabilities, truth) to a scalar.
        include_background: show the loss class 0 as well; regions have no background.
    """

    def __init__(self, *, loss: Callable[[Tensor, Tensor], Tensor], include_background: bool = False) -> None:
        super().__init__()
        self.loss, self.include_background = loss, include_background

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, *spatial) and int64 classes or regions -> scalar, float32 (float64 for float64 logits)."""
        logits = full(logits)
        known = target != IGNORE  # (B, 1 or C, *spatial)
        first = first_channel(logits, target, self.include_background)
        p = torch.where(known, probabilities_of(logits, target), 0)[:, first:]
        loss = self.loss(p, one_hot(target, logits)[:, first:])
        return torch.where(known.any(), loss, torch.zeros_like(loss))


def one_hot(target: Tensor, logits: Tensor) -> Tensor:
    """Return the truth as 0 and 1, of the shape and type of logits (B, C, *spatial); 0 where it is unknown."""
    if are_regions(logits, target):
        return (target == 1).to(logits.dtype)
    classes = torch.arange(logits.shape[1], device=target.device)
    return (target == classes.view(-1, *[1] * (logits.ndim - 2))).to(logits.dtype)
