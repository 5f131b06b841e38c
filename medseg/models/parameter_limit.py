"""Networks that files describe are built with no more parameters than these files have weights for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from medseg.errors import MedsegError

FACTOR, MORE = 2, 1000
"""Parameters may be replaced while a network is built, or be shared, and so be counted more often than stored."""


@contextmanager
def no_more_than(weights: Mapping[str, Tensor], path: Path) -> Iterator[None]:
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
