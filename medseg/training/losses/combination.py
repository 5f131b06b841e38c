"""Losses made of others: weighted sums of losses and over resolutions, losses of other packages on our targets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from medseg.config.arguments import check_argument, check_declared
from medseg.config.schema import Setting
from medseg.errors import MedsegError, listing, nearest
from medseg.io.labels import IGNORE
from medseg.training.losses.base import IncludeBackground, are_regions, first_channel, full, probabilities_of


class WeightedSum(nn.Module):
    """The sum of losses, each times its weight: ``WeightedSum(weights={"dice": 1.0, "ce": 0.5}, dice=…, ce=…)``.

    Args:
        weights: a number of 0 or more for each loss by its name; at least one is above 0.
        losses: the losses by name, each (logits, target) to a scalar.

    Raises:
        MedsegError: a weight without its loss, a loss without its weight, or weights that do not fit.
    """

    def __init__(
        self,
        *,
        weights: Annotated[Mapping[str, float], Setting("the weight of each loss by its name", "[0, inf)")],
        **losses: nn.Module,
    ) -> None:
        super().__init__()
        problems = []
        for name in [*weights, *losses]:
            if name not in losses:
                problems.append(f"weights.{name}: there is no loss {name!r}.{nearest(name, losses)}")
            elif name not in weights:
                problems.append(f"{name}: it has no weight. Give weights.{name}, a number of 0 or more")
        if problems:
            raise MedsegError(f"loss: the weights and the losses do not match:\n{listing(problems)}")
        check_declared("loss", self, weights=dict(weights))
        check_argument("loss", self, "weights", dict(weights), any(weights.values()), "at least one above 0")
        self.weights = dict(weights)
        # A loss of weight 0 is not computed: 0 times infinity would be no number.
        self.losses = nn.ModuleDict({name: loss for name, loss in losses.items() if weights[name]})

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, *spatial) and int64 classes or regions -> scalar, float32 (float64 for float64 logits)."""
        logits = full(logits)  # once for all
        return torch.stack([self.weights[name] * loss(logits, target) for name, loss in self.losses.items()]).sum()


class OnProbabilities(nn.Module):
    """Calls a loss that takes probabilities and a one-hot reference only, such as most of MONAI's.

    The loss gets the probabilities (softmax, or sigmoid for regions) and the reference as 0 and 1, both floating-point
    (B, C, *spatial). Unknown voxels are 0 in both, so that no difference is seen there and no gradient comes back;
    where nothing at all is known the loss is 0. So most of MONAI's losses learn regions and tolerate unknown voxels::

        _target_: medseg.training.losses.OnProbabilities
        include_background: false
        loss:
          _target_: monai.losses.DiceLoss
          jaccard: true

    The loss's own ``softmax``, ``sigmoid`` and ``to_onehot_y`` stay off, its ``include_background`` on, since
    it is given the channels that count. Its mean over voxels counts the unknown ones as right. Losses that
    take logits, such as MONAI's ``FocalLoss``, cannot be used so.

    Args:
        loss: (probabilities, reference) to a scalar.
        include_background: show the loss class 0 as well; regions have no background.
    """

    def __init__(
        self, *, loss: Callable[[Tensor, Tensor], Tensor], include_background: IncludeBackground = False
    ) -> None:
        super().__init__()
        self.loss, self.include_background = loss, include_background

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, *spatial) and int64 classes or regions -> scalar, float32 (float64 for float64 logits)."""
        logits = full(logits)
        first = first_channel(logits, target, self.include_background)
        p = probabilities_of(logits, target)[:, first:]
        # The reference as 0 and 1, of the shape and type of the logits; 0 where it is unknown.
        if are_regions(logits, target):
            one_hot = (target == 1).to(logits.dtype)
        else:
            classes = torch.arange(logits.shape[1], device=target.device)
            one_hot = (target == classes.view(-1, *[1] * (logits.ndim - 2))).to(logits.dtype)
        loss = self.loss(p, one_hot[:, first:])
        return torch.where((target != IGNORE).any(), loss, torch.zeros_like(loss))


def deep_supervision(outputs: Sequence[Tensor], loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the loss over all outputs, finest first, each coarser one at half the weight of the one before.

    As in nnU-Net (Isensee et al., 2021); the weights sum to 1.
    """
    weights = [0.5**level for level in range(len(outputs))]
    total = torch.zeros((), device=outputs[0].device)
    for weight, output in zip(weights, outputs, strict=True):
        total = total + weight / sum(weights) * loss_of(output)
    return total
