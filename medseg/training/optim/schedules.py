"""Learning-rate schedules: factors of the base rate as functions of progress, 0 (start) to 1 (end of the training).

Progress, not steps, so that a training bounded by time ends its schedule as one bounded by epochs does.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from medseg.config.schema import Setting
from medseg.errors import MedsegError

Warmup = Annotated[float, Setting("share of the run over which the rate rises", "[0, 1)")]

_START = 0.01
"""The factor that a warm-up starts from: small, but not a step without effect."""


@dataclass(frozen=True)
class Polynomial:
    """(1 - t)^power, t being the progress since the warm-up; ends at 0. Power 0.9 is DeepLab's and nnU-Net's.

    ``warmup`` is the share of the training over which the factor first rises to 1, in a line.
    """

    power: Annotated[float, Setting("exponent of the decay", "(0, inf)")] = 0.9
    warmup: Warmup = 0.0

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        _check(self, "power", self.power, self.power > 0, "above 0")
        _check_warmup(self, self.warmup)

    def __call__(self, progress: float) -> float:
        """The factor at ``progress``, which counts as 1 from there on."""
        rise, rest = _phases(progress, self.warmup)
        return rise * (1 - rest) ** self.power


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to ``final``, after ``warmup``: Loshchilov & Hutter, "SGDR" (ICLR 2017)."""

    final: Annotated[float, Setting("share of the rate that is left at the end", "[0, 1]")] = 0.0
    warmup: Warmup = 0.0

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        _check(self, "final", self.final, 0 <= self.final <= 1, "from 0 to 1")
        _check_warmup(self, self.warmup)

    def __call__(self, progress: float) -> float:
        """The factor at ``progress``, which counts as 1 from there on."""
        rise, rest = _phases(progress, self.warmup)
        return rise * (self.final + (1 - self.final) * (1 + math.cos(math.pi * rest)) / 2)


@dataclass(frozen=True)
class Constant:
    """1, after ``warmup``."""

    warmup: Warmup = 0.0

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        _check_warmup(self, self.warmup)

    def __call__(self, progress: float) -> float:
        """The factor at ``progress``, which counts as 1 from there on."""
        return _phases(progress, self.warmup)[0]


def _phases(progress: float, warmup: float) -> tuple[float, float]:
    """How far the warm-up has risen, up to 1, and what share of the time after it has gone, from 0.

    The time used may end a little past its limit, hence the cut at 1.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return _START + (1 - _START) * progress / warmup, 0.0
    return 1.0, (progress - warmup) / (1 - warmup)


def _check_warmup(schedule: object, warmup: float) -> None:
    _check(schedule, "warmup", warmup, 0 <= warmup < 1, "a share of the training, from 0 to below 1")


def _check(schedule: object, name: str, value: float, fits: bool, allowed: str) -> None:
    if not fits:
        kind = type(schedule).__name__
        raise MedsegError(f"scheduler: {name} of {kind} is {value}; allowed: {allowed}. Change scheduler.{name}.")
