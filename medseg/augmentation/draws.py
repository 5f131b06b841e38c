"""What all augmentations share: which samples of a batch are drawn, how strongly, and what ranges are allowed."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medseg.errors import MedsegError


def chosen(batch: int, probability: float, generator: torch.Generator) -> Tensor:
    """The indices of the samples drawn, each with ``probability``: int64 on the CPU."""
    return (torch.rand(batch, generator=generator) < probability).nonzero().squeeze(1)


def uniform(bounds: Sequence[float], shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Numbers between the ``bounds`` [low, high], float32 on the CPU."""
    low, high = bounds
    return torch.rand(*shape, generator=generator) * (high - low) + low


def log_uniform(bounds: Sequence[float], shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Factors between the ``bounds`` [low, high], of which a half is as likely as a double, float32 on the CPU."""
    return uniform([math.log(bound) for bound in bounds], shape, generator).exp()


def change(image: Tensor, indices: Tensor, strength: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Replace samples of ``image`` (B, C, *spatial) by ``function(samples, strength)``; the others keep their bits.

    ``indices`` (n,) and ``strength`` (B, C) are on the CPU; ``function`` gets n samples and their strengths in a shape
    that broadcasts, (n, C, 1, ..., 1).
    """
    if not len(indices):
        return image
    per_channel = strength[indices].to(image.device, image.dtype, non_blocking=True)
    per_channel = per_channel.reshape(*per_channel.shape, *[1] * (image.ndim - 2))  # (n, C, 1, ..., 1)
    indices = indices.to(image.device, non_blocking=True)
    return image.index_copy(0, indices, function(image[indices], per_channel))


def check(transform: object, name: str, value: object, fits: bool, allowed: str) -> None:
    """Raise MedsegError, naming the value and what is allowed, unless it ``fits``."""
    if not fits:
        kind = type(transform).__name__
        raise MedsegError(f"augment: {name} of {kind} is {value}; allowed: {allowed}. Change it in the augment group.")


def check_probability(transform: object, probability: float) -> None:
    """Raise MedsegError unless ``probability`` is one."""
    check(transform, "probability", probability, 0 <= probability <= 1, "from 0 to 1")


def check_range(transform: object, name: str, bounds: Sequence[float]) -> None:
    """Raise MedsegError unless ``bounds`` are [low, high], both above 0."""
    fits = len(bounds) == 2 and 0 < bounds[0] <= bounds[1] < math.inf
    check(transform, name, list(bounds), fits, "[low, high] with 0 < low <= high")
