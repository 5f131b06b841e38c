"""What all losses share: the two forms of their reference, unknown voxels, weights of the output channels."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from medseg.config.arguments import check_argument, check_declared
from medseg.config.schema import Setting
from medseg.errors import MedsegError
from medseg.io.labels import IGNORE

ClassWeights = Annotated[
    Sequence[float] | None, Setting("the weight of each output channel", "[0, inf)", "all are equal")
]
Batch = Annotated[bool, Setting("sum over the batch too")]
IncludeBackground = Annotated[bool, Setting("count the background as a class")]


class ClassWeighted(nn.Module):
    """A loss whose classes (or regions) may count differently.

    Args:
        class_weights: a number for each output channel of the network, the background included where it has one; None:
            all are equal. Losses are weighted means, so that only the ratios of the weights matter.

    Raises:
        MedsegError: a weight is negative or no number, or all are 0.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: ClassWeights = None) -> None:
        super().__init__()
        if class_weights is not None:
            check_declared("loss", self, class_weights=list(class_weights))
            check_argument("loss", self, "class_weights", class_weights, any(class_weights), "at least one above 0")
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


def are_regions(logits: Tensor, target: Tensor) -> bool:
    """Tell whether the reference is a map for each output (B, R, *spatial), and not class indices (B, 1, *spatial).

    Raises:
        MedsegError: the network's outputs are of another number than the maps.
    """
    outputs, maps = logits.shape[1], target.shape[1]
    if maps not in (1, outputs):
        raise MedsegError(
            f"loss: the network has {outputs} outputs, but the reference {maps} regions. Give it one output a region."
        )
    return maps == outputs


def full(logits: Tensor) -> Tensor:
    """Return logits in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


def all_known(target: Tensor) -> bool:
    """Tell if the reference is known everywhere, so that no masks are needed; always False on a GPU."""
    # Asking costs a CPU little, but a GPU would have to be waited for. IGNORE is above every class.
    return target.device.type == "cpu" and int(target.amax()) < IGNORE


def any_known(target: Tensor, batch: bool) -> Tensor:
    """Tell of each channel of the reference and sample, or the batch as one, if anything is known: (C, S) or (1, S)."""
    if all_known(target):
        return torch.ones(target.shape[1], 1 if batch else len(target), dtype=torch.bool)
    known = (target != IGNORE).flatten(2).any(2).T
    return known.any(1, keepdim=True) if batch else known


def probabilities_of(logits: Tensor, target: Tensor) -> Tensor:
    """Return probabilities (B, C, *spatial), sigmoid for regions, else softmax; 0 where the reference is unknown."""
    p = torch.sigmoid(logits) if are_regions(logits, target) else torch.softmax(logits, dim=1)
    return p if all_known(target) else p.masked_fill(target == IGNORE, 0)


def first_channel(logits: Tensor, target: Tensor, include_background: bool) -> int:
    """Return the first channel that counts: 1 if there is a background to be left out."""
    return 0 if include_background or are_regions(logits, target) else 1


def channels(logits: Tensor, target: Tensor, include_background: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the probabilities p and the reference g as booleans, both (B, *spatial), of each channel that counts.

    Where the reference is unknown, p is 0 and g false. By channel, so that the reference never becomes a float one-hot
    volume.
    """
    first = first_channel(logits, target, include_background)
    for channel, p in enumerate(probabilities_of(logits, target).unbind(1)):
        if channel >= first:
            yield p, target[:, channel] == 1 if are_regions(logits, target) else target[:, 0] == channel
