"""Weights of the output channels, and means that are taken with them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.errors import MedsegError


class ClassWeighted(nn.Module):
    """A loss whose classes (or regions) may count differently.

    Args:
        class_weights: a number for each output channel of the network, the background included where it has one; None:
            all are equal. Losses are weighted means, so that only the ratios of the weights matter.

    Raises:
        MedsegError: a weight is negative or no number, or all are 0.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if class_weights is not None:
            fits = all(math.isfinite(weight) and weight >= 0 for weight in class_weights) and any(class_weights)
            check("class_weights", class_weights, fits, "numbers of 0 or more, at least one above 0")
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        # Not persistent: the weights are the config's, and a checkpoint is loaded whatever the loss.
        self.register_buffer("class_weights", weights, persistent=False)

    def weights_for(self, logits: Tensor) -> Tensor:
        """Return the weight of each channel (C,) of logits (B, C, *spatial).

        Raises:
            MedsegError: there are more or fewer weights than channels.
        """
        count = logits.shape[1]
        if self.class_weights is None:
            return logits.new_ones(count)
        if len(self.class_weights) != count:
            raise MedsegError(
                f"loss: class_weights has {len(self.class_weights)} numbers, but the network has {count} output "
                f"channels. Give {count} numbers, one for each class (the background first) or for each region."
            )
        return self.class_weights.to(logits)


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of values, 0 where no weight is above 0; weights None: all are equal."""
    if weights is None:
        return values.mean()
    total = (values * weights).sum()
    return total / weights.sum().to(total).clamp(min=torch.finfo(total.dtype).tiny)


def check(name: str, value: object, fits: bool, allowed: str) -> None:
    """Raise MedsegError for an argument of a loss that does not fit."""
    if not fits:
        raise MedsegError(f"loss: {name} is {value}; allowed: {allowed}. Change it in the loss group of the config.")
