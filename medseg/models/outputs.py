"""What networks return: a tensor, or several of different resolution for deep supervision."""

from collections.abc import Sequence

from torch import Tensor


def as_list(outputs: Tensor | Sequence[Tensor], patches: Tensor) -> list[Tensor]:
    """Return what a network made of ``patches`` (B, C, *) as a list of logits (B, K, *), finest first.

    MONAI's DynUNet stacks the outputs of deep supervision into one tensor (B, n, K, *).
    """
    if not isinstance(outputs, Tensor):
        return list(outputs)
    return list(outputs.unbind(1)) if outputs.ndim > patches.ndim else [outputs]
