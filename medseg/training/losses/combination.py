"""The weighted sum of losses."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medseg.errors import MedsegError, listing, nearest
from medseg.training.losses.reference import full
from medseg.training.losses.weights import check


class WeightedSum(nn.Module):
    """The sum of losses, each times its weight: ``WeightedSum(weights={"dice": 1.0, "ce": 0.5}, dice=…, ce=…)``.

    Args:
        weights: a number of 0 or more for each loss by its name; at least one is above 0.
        losses: the losses by name, each (logits, target) to a scalar.

    Raises:
        MedsegError: a weight without its loss, a loss without its weight, or weights that do not fit.
    """

    def __init__(self, *, weights: Mapping[str, float], **losses: nn.Module) -> None:
        super().__init__()
        if problems := [*unmatched(weights, losses)]:
            raise MedsegError(f"loss: the weights and the losses do not match:\n{listing(problems)}")
        for name, weight in weights.items():
            check(f"weights.{name}", weight, math.isfinite(weight) and weight >= 0, "0 or more")
        check("weights", dict(weights), any(weights.values()), "at least one above 0")
        self.weights = dict(weights)
        # A loss of weight 0 is not computed: 0 times infinity would be no number.
        self.losses = nn.ModuleDict({name: loss for name, loss in losses.items() if weights[name]})

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, *spatial) and int64 classes or regions -> scalar, float32 (float64 for float64 logits)."""
        logits = full(logits)  # once for all
        return torch.stack([self.weights[name] * loss(logits, target) for name, loss in self.losses.items()]).sum()


def unmatched(weights: Mapping[str, float], losses: Mapping[str, nn.Module]) -> list[str]:
    """Return what is wrong with the names."""
    absent = [name for name in weights if name not in losses]
    unweighted = [name for name in losses if name not in weights]
    return [
        *(f"weights.{name}: there is no loss {name!r}.{nearest(name, losses)}" for name in absent),
        *(f"{name}: it has no weight. Give weights.{name}, a number of 0 or more" for name in unweighted),
    ]
