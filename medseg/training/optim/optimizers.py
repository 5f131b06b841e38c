"""Optimizers from their description, in the form that is fastest on the device."""

from collections.abc import Collection, Iterable
from typing import Any

import torch

from medseg.config.instantiate import build

FUSED = ("torch.optim.AdamW", "torch.optim.Adam", "torch.optim.SGD")
"""Those that PyTorch can fuse on CPUs and GPUs alike."""


def make_optimizer(
    spec: dict[str, Any],
    parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]],
    *,
    fused: bool,
    trust: Collection[str] = (),
) -> torch.optim.Optimizer:
    """Build an optimizer.

    Args:
        spec: a mapping with ``_target_``, and its arguments.
        parameters: what it optimizes, or groups of these (see ``torch.optim``).
        fused: let PyTorch's own optimizers do a step in one kernel for all parameters, where they can.
        trust: names that may be built beside those of ``conf/optimizer``.
    """
    is_settled = {"fused", "foreach", "differentiable"} & spec.keys()
    extra: dict[str, Any] = {"fused": True} if fused and spec["_target_"] in FUSED and not is_settled else {}
    optimizer: torch.optim.Optimizer = build(spec, "optimizer", trust, parameters, **extra)
    return optimizer
