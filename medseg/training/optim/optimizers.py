"""Optimizers from their description, in the form that is fastest on the device."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import torch

from medseg.config.instantiate import build
from medseg.system.memory import attempted

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
    optimizer.step = partial(step_within_memory, optimizer, optimizer.step)  # type: ignore[method-assign]
    return optimizer


def step_within_memory(
    optimizer: torch.optim.Optimizer, step: Callable[..., Any], closure: Callable[[], Any] | None = None
) -> Any:
    """Do the first step of an optimizer, which allocates its state, and do it once more where memory runs out.

    By then the backward pass is over, and what it held can be freed. Later steps allocate nothing that lasts.
    """
    optimizer.step = step  # type: ignore[method-assign]
    if optimizer.state:  # of a run that is resumed
        return step(closure)
    loss = closure() if closure else None
    done = (lambda: loss) if closure else None  # for optimizers that ask for the loss
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # Of several groups the first may have made its step before memory ran out
    weights = [parameter.detach().clone() for parameter in parameters]
    if attempted(lambda: [step(done)]) is None:
        optimizer.state.clear()
        with torch.no_grad():
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.copy_(weight)
        step(done)
    return loss
