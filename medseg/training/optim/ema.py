"""Weight averaging: the network that is validated, kept and used is the mean of the last ones that were trained.

An exponential moving average over the steps: Polyak & Juditsky, "Acceleration of stochastic approximation by averaging"
(SIAM J. Control Optim. 1992); Morales-Brotons et al., "Exponential Moving Average of Weights in Deep Learning" (TMLR
2024). It removes the noise that a high learning rate leaves in the weights, so that a validation in mid-training is
worth about as much as one after the rate has fallen.
"""

from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor, nn

WARMUP = 9
"""At step n the average reaches back (n + 9) / 10 steps at most, so that it soon forgets the random first weights."""


def decay(step: int, horizon: float) -> float:
    """Return what the average keeps of itself at ``step`` (counted from one), with a horizon in steps."""
    return 1 - 1 / max(1.0, min(horizon, (step + WARMUP) / 10))


@torch.no_grad()
def average_into(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the network's: average = decay · average + (1 - decay) · network."""
    ours: list[Tensor] = [*average.parameters()]
    theirs: list[Tensor] = [*network.parameters()]
    torch._foreach_lerp_(ours, theirs, 1 - decay)


def has_batch_statistics(network: nn.Module, frozen: Collection[str] = ()) -> bool:
    """Tell whether a network keeps running statistics, which hold for the weights that they were taken with only.

    Those of the modules named ``frozen`` do not count, as theirs stay.
    """
    return bool(batch_norms(network, frozen))


def batch_norms(network: nn.Module, frozen: Collection[str]) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the norms that keep running statistics and are not ``frozen``."""
    kind = nn.modules.batchnorm._BatchNorm
    return [module for name, module in network.named_modules() if isinstance(module, kind) and name not in frozen]


@torch.no_grad()
def estimate_statistics(
    network: nn.Module,
    forward: Callable[[Tensor], object],
    batches: Iterable[Tensor],
    frozen: Collection[str] = (),
) -> None:
    """Take BatchNorm's running statistics anew, as plain means over ``batches`` of input sent ``forward``.

    The modules named ``frozen`` keep theirs, and normalise by them.
    """
    norms = batch_norms(network, frozen)
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.train()
    for name in frozen:
        network.get_submodule(name).eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's way to say: the mean of all batches
    for batch in batches:
        forward(batch)
    network.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
