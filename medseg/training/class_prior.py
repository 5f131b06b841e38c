"""The first biases of a network's head: untrained, it predicts each class as often as the class occurs in the patches.

Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), section 3.3, for every class. From biases of 0 the
first steps lower the outputs of all classes but the background everywhere. The features learn to be near 0 where a rare
class is, too, and a short training may never find it again: its Dice stays 0.
"""

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from medseg.io.labels import IGNORE

LEAST = 5e-3
"""No class begins rarer than this: a softmax passes hardly any gradient of the Dice loss on to an output near 0, and a
class that the patches at hand do not hold is to be learned as well."""


def class_frequencies(targets: Iterable[Tensor], outputs: int) -> Tensor:
    """Return the share of the known voxels that each class or region has, (K,) for ``outputs`` = K.

    Args:
        targets: int64 class indices (B, 1, *spatial), or regions (B, K, *spatial); see ``medseg.training.losses``.
        outputs: number of the network's output channels.
    """
    counts, known = torch.zeros(outputs, dtype=torch.float64), torch.zeros(outputs, dtype=torch.float64)
    for target in targets:
        is_known = target != IGNORE
        if target.shape[1] == outputs:
            counts += (target == 1).sum((0, *range(2, target.ndim)))
            known += is_known.sum((0, *range(2, target.ndim)))
        else:
            counts += torch.bincount(target[is_known], minlength=outputs)
            known += is_known.sum()
    return counts / known.clamp(min=1)


@torch.no_grad()
def begin_at(
    frequencies: Tensor,
    networks: Iterable[nn.Module],
    axes: Mapping[str, tuple[int, ...]],
    *,
    regions: bool,
    trained: Collection[str] = (),
) -> None:
    """Set the biases of the heads so that features of 0 give the frequencies as probabilities.

    Args:
        frequencies: (K,) shares, of all classes in a softmax or of each region in a sigmoid.
        networks: of the same kind; those without biases in their heads stay as they are.
        axes: of each weight that grows with the number of outputs, along which of its axes it does.
        regions: whether the outputs are regions.
        trained: names of weights that have been trained elsewhere; such a head keeps its biases.
    """
    p = frequencies.clamp(LEAST, 1 - LEAST)
    bias = torch.logit(p) if regions else p.log()
    for network in networks:
        weights = network.state_dict()
        heads = {key.removesuffix("weight") for key in axes if key.endswith("weight") and weights[key].ndim > 2}
        # A convolution from K channels to K, as VNet has one, comes last; that before it is no head.
        last = {head for head in heads if len(axes[head + "weight"]) == 2} or heads
        for key in (head + "bias" for head in last):
            if key in axes and key not in trained:
                weights[key].copy_(bias)
