"""What networks return: a tensor, or several of different resolution for deep supervision."""

from collections.abc import Sequence

from torch import Tensor


def as_list(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return a network's outputs as a list of logits (B, K, *), finest first."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
