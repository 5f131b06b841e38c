"""The two forms of truth, classes and regions, as all losses take them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from medseg.errors import MedsegError
from medseg.io.labels import IGNORE


def are_regions(logits: Tensor, target: Tensor) -> bool:
    """Tell whether the truth is a map for each output (B, R, *spatial), and not class indices (B, 1, *spatial).

    Raises:
        MedsegError: the network's outputs are of another number than the maps.
    """
    outputs, maps = logits.shape[1], target.shape[1]
    if maps not in (1, outputs):
        raise MedsegError(
            f"loss: the network has {outputs} outputs, but the truth {maps} regions. Give it one output a region."
        )
    return maps == outputs


def full(logits: Tensor) -> Tensor:
    """Return logits in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


def probabilities_of(logits: Tensor, target: Tensor) -> Tensor:
    """Return the probabilities (B, C, *spatial): sigmoid for regions, else softmax."""
    return torch.sigmoid(logits) if are_regions(logits, target) else torch.softmax(logits, dim=1)


def first_channel(logits: Tensor, target: Tensor, include_background: bool) -> int:
    """Return the first channel that counts: 1 if there is a background to be left out."""
    return 0 if include_background or are_regions(logits, target) else 1


def channels(logits: Tensor, target: Tensor, include_background: bool) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield p, g and what is known of each channel that counts, all (B, *spatial).

    p are the probabilities, g tells as booleans where the class truly is, known is 1 where that is known and 0
    elsewhere. One channel after the other, so that the truth never becomes a float one-hot volume.
    """
    first = first_channel(logits, target, include_background)
    p = probabilities_of(logits, target).unbind(1)
    if are_regions(logits, target):
        for channel, truth in enumerate(target.unbind(1)):
            yield p[channel], truth == 1, truth != IGNORE
    else:
        known = (target[:, 0] != IGNORE).to(logits.dtype)  # once as numbers: products with booleans are slower
        for channel in range(first, len(p)):
            yield p[channel], target[:, 0] == channel, known
