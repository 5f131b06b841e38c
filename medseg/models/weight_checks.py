"""Weights from files: where they lie, that they are finite, and that a network described by a file is no larger."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from medseg.errors import MedsegError

MAX_LISTED = 3


NESTS = ("state_dict", "network_weights", "model_state_dict", "model_state", "model", "network", "net", "weights")
"""Keys under which programs keep the weights in a file that holds more."""


def weights_in(content: Any, nests: Sequence[str] = NESTS) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name, which may lie in a nest, and in that in another; empty without."""
    if not isinstance(content, Mapping):
        return {}
    for nest in nests:  # before the tensors beside it, such as the number of the epoch
        if weights := weights_in(content.get(nest), [name for name in nests if name != nest]):
            return weights
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the floating-point tensors that hold NaN or infinity; a GPU is waited for once.

    The smallest and the largest value are NaN where any value is, so that one pass over each tensor is enough.
    """
    names = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()]
    if not names:
        return []
    device = tensors[names[0]].device
    are_finite = [torch.stack(torch.aminmax(tensors[name].detach())).isfinite().all().to(device) for name in names]
    return [name for name, is_finite in zip(names, torch.stack(are_finite).tolist(), strict=True) if not is_finite]


def check_finite(file: Path, weights: Mapping[str, Tensor], key: str = "") -> None:
    """Check the weights of a network that a file holds.

    ``key`` is the option that names the file, if its name shall stand before it.

    Raises:
        MedsegError: some are NaN or infinite.
    """
    if wrong := not_finite(weights):
        listed = ", ".join(wrong[:MAX_LISTED]) + (", ..." if len(wrong) > MAX_LISTED else "")
        raise MedsegError(
            f"{key}{'=' if key else ''}{file}: {len(wrong)} of its {len(weights)} weights hold NaN or infinity "
            f"({listed}): the training that wrote them diverged. Nothing that such a network predicts means anything. "
            "Use another checkpoint of that training, or train again with a lower optimizer.lr or "
            "trainer.precision=fp32."
        )


FACTOR, MORE = 2, 1000
"""Parameters may be replaced while a network is built, or be shared, and so be counted more often than stored."""


@contextmanager
def limit_parameters(weights: Mapping[str, Tensor], path: Path) -> Iterator[None]:
    """Stop what builds a network in this block when it has more parameters than a file's ``weights``.

    Each is counted before it is filled, so that neither a million blocks nor a huge one take time or memory.

    Raises:
        MedsegError: it has.
    """
    tensors, numbers = len(weights), sum(weight.numel() for weight in weights.values())
    left = [FACTOR * tensors + MORE, FACTOR * numbers + MORE]

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        left[0] -= 1
        left[1] -= 0 if parameter is None else parameter.numel()
        if min(left) < 0:
            raise MedsegError(
                f"{path}: it describes a network of more than {tensors} weights of {numbers} numbers in all, which is"
                " what it holds. It is damaged, or made to fill the memory."
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
