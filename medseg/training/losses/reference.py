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


def all_known(target: Tensor) -> bool:
    """Tell if the truth is known everywhere, so that no masks are needed; always False on a GPU."""
    # Asking costs a CPU little, but a GPU would have to be waited for. IGNORE is above every class.
    return target.device.type == "cpu" and int(target.amax()) < IGNORE


def any_known(target: Tensor, batch: bool) -> Tensor:
    """Tell of each channel of the truth and sample, or the batch as one, if anything is known: (C, S) or (1, S)."""
    if all_known(target):
        return torch.ones(target.shape[1], 1 if batch else len(target), dtype=torch.bool)
    known = (target != IGNORE).flatten(2).any(2).T
    return known.any(1, keepdim=True) if batch else known


def probabilities_of(logits: Tensor, target: Tensor) -> Tensor:
    """Return the probabilities (B, C, *spatial), sigmoid for regions, else softmax; 0 where the truth is unknown."""
    p = torch.sigmoid(logits) if are_regions(logits, target) else torch.softmax(logits, dim=1)
    return p if all_known(target) else p.masked_fill(target == IGNORE, 0)


def first_channel(logits: Tensor, target: Tensor, include_background: bool) -> int:
    """Return the first channel that counts: 1 if there is a background to be left out."""
    return 0 if include_background or are_regions(logits, target) else 1


def channels(logits: Tensor, target: Tensor, include_background: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the probabilities p and the truth g as booleans, both (B, *spatial), of each channel that counts.

    Where the truth is unknown, p is 0 and g false. By channel, so that the truth never becomes a float one-hot volume.
    """
    first = first_channel(logits, target, include_background)
    for channel, p in enumerate(probabilities_of(logits, target).unbind(1)):
        if channel >= first:
            yield p, target[:, channel] == 1 if are_regions(logits, target) else target[:, 0] == channel
