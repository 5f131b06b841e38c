"""Learning-rate schedules: factors of the base rate as functions of progress, 0 (start) to 1 (end of the training).

Progress, not steps, so that a training bounded by time ends its schedule as one bounded by epochs does.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from medseg.config.arguments import check_declared
from medseg.config.schema import Setting

Warmup = Annotated[float, Setting("share of the run over which the rate rises", "[0, 1)")]

_START = 0.01
"""The factor that a warm-up starts from: small, but not a step without effect."""


class Schedule:
    """A factor that rises to 1 in a line over ``warmup``, a fraction of the training, and then follows ``after``."""

    warmup: float

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("scheduler", self)

    def __call__(self, progress: float) -> float:
        """Return the factor at ``progress``; the time used may end a little past its limit, and counts as 1 then."""
        progress = min(max(progress, 0.0), 1.0)
        if progress < self.warmup:
            return (_START + (1 - _START) * progress / self.warmup) * self.after(0.0)
        return self.after((progress - self.warmup) / (1 - self.warmup))

    def after(self, progress: float) -> float:
        """Return the factor at a progress of 0 to 1 that is counted from the end of the warm-up."""
        raise NotImplementedError


@dataclass(frozen=True)
class Polynomial(Schedule):
    """(1 - t)^power, t being the progress since the warm-up; ends at 0. Power 0.9 is DeepLab's and nnU-Net's.

    ``warmup`` is the share of the training over which the factor first rises to 1, in a line.
    """

    power: Annotated[float, Setting("exponent of the decay", "(0, inf)")] = 0.9
    warmup: Warmup = 0.0

    def after(self, progress: float) -> float:
        """Return the polynomial."""
        return float((1 - progress) ** self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 to ``final``, after ``warmup``: Loshchilov & Hutter, "SGDR" (ICLR 2017)."""

    final: Annotated[float, Setting("share of the rate that is left at the end", "[0, 1]")] = 0.0
    warmup: Warmup = 0.0

    def after(self, progress: float) -> float:
        """Return the cosine."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Constant(Schedule):
    """1, after ``warmup``."""

    warmup: Warmup = 0.0

    def after(self, progress: float) -> float:
        """Return 1."""
        return 1.0
