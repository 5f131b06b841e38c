"""Losses of other packages, on classes and regions, with unknown voxels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medseg.io.labels import IGNORE
from medseg.training.losses.reference import are_regions, first_channel, full, probabilities_of


class OnProbabilities(nn.Module):
    """Calls a loss that knows probabilities and one-hot truth only, such as most of MONAI's.

    The loss is given the probabilities (softmax, or sigmoid for regions) and the truth as 0 and 1, both floating-point
    (B, C, *spatial). Unknown voxels are 0 in both, so that no difference is seen there and no gradient comes back;
    where nothing at all is known the loss is 0. So most losses of MONAI's learn regions and bear unknown voxels::

        _target_: medseg.training.losses.OnProbabilities
        include_background: false
        loss:
          _target_: monai.losses.DiceLoss
          jaccard: true

    The loss's own ``softmax``, ``sigmoid`` and ``to_onehot_y`` stay off, its ``include_background`` on, since
    it is given the channels that count. Its mean over voxels counts the unknown ones as right. Losses that
    take logits, such as MONAI's ``FocalLoss``, cannot be used so.

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
        first = first_channel(logits, target, self.include_background)
        p = probabilities_of(logits, target)[:, first:]
        loss = self.loss(p, one_hot(target, logits)[:, first:])
        return torch.where((target != IGNORE).any(), loss, torch.zeros_like(loss))


def one_hot(target: Tensor, logits: Tensor) -> Tensor:
    """Return the truth as 0 and 1, of the shape and type of logits (B, C, *spatial); 0 where it is unknown."""
    if are_regions(logits, target):
        return (target == 1).to(logits.dtype)
    classes = torch.arange(logits.shape[1], device=target.device)
    return (target == classes.view(-1, *[1] * (logits.ndim - 2))).to(logits.dtype)
