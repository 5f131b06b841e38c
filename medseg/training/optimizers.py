"""Optimizers from their description, in the form that is fastest on the device."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from medseg.build import build, locate


def make_optimizer(
    spec: dict[str, Any], parameters: Iterable[torch.nn.Parameter], *, fused: bool
) -> torch.optim.Optimizer:
    """Build an optimizer.

    Args:
        spec: a mapping with ``_target_``, and its arguments.
        parameters: what it optimizes.
        fused: let PyTorch's own optimizers do a step in one kernel for all parameters, where they can.
    """
    can_fuse = spec["_target_"].startswith("torch.optim.") and "fused" in accepted(spec["_target_"])
    extra: dict[str, Any] = {"fused": True} if fused and can_fuse and "fused" not in spec else {}
    optimizer: torch.optim.Optimizer = build(spec, parameters, **extra)
    return optimizer


def accepted(target: str) -> set[str]:
    """Return the names of the arguments that a class or function takes."""
    return set(inspect.signature(locate(target)).parameters)
