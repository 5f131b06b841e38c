"""Schedules against PyTorch's own, and at the points that define them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch.optim import lr_scheduler

from medseg.errors import MedsegError
from medseg.training.optim import schedules
from medseg.training.optim.schedules import Constant, Cosine, Polynomial

Schedule = Callable[[float], float]
STEPS = 20


def factors_of_pytorch(build: Callable[[torch.optim.Optimizer], Any]) -> list[float]:
    """The rates that a scheduler of PyTorch gives an optimizer of rate 1, from the start to the end."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build(optimizer)
    factors = []
    for _ in range(STEPS + 1):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_polynomial_is_that_of_pytorch(power: float) -> None:
    expected = factors_of_pytorch(lambda o: lr_scheduler.PolynomialLR(o, total_iters=STEPS, power=power))
    assert [Polynomial(power=power)(step / STEPS) for step in range(STEPS + 1)] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_that_of_pytorch(final: float) -> None:
    expected = factors_of_pytorch(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS, eta_min=final))
    assert [Cosine(final=final)(step / STEPS) for step in range(STEPS + 1)] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("schedule", [Polynomial(warmup=0.2), Cosine(warmup=0.2), Constant(warmup=0.2)])
def test_the_warm_up_is_a_line_from_near_zero_to_one(schedule: Schedule) -> None:
    assert schedule(0) == pytest.approx(0.01)
    assert schedule(0.1) == pytest.approx((0.01 + 1) / 2)
    assert schedule(0.2) == 1
    assert schedule(0.2 - 1e-9) == pytest.approx(1)


def test_the_decay_takes_what_the_warm_up_leaves() -> None:
    assert Polynomial(power=0.9, warmup=0.2)(0.6) == pytest.approx(0.5**0.9)
    assert Cosine(final=0.2, warmup=0.2)(0.6) == pytest.approx(0.6)
    assert Cosine(final=0.2, warmup=0.2)(0.4) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert Constant(warmup=0.2)(0.6) == 1


@pytest.mark.parametrize(("schedule", "end"), [(Polynomial(warmup=0.03), 0), (Cosine(final=0.1), 0.1), (Constant(), 1)])
def test_the_end_and_what_lies_past_it(schedule: Schedule, end: float) -> None:
    assert schedule(1) == pytest.approx(end)
    assert schedule(1.01) == pytest.approx(end), "time used may end a little past its limit"


@pytest.mark.parametrize("name", ["poly", "cosine", "constant"])
def test_the_config_builds(name: str) -> None:
    config = OmegaConf.load(Path(__file__).parents[3] / f"conf/scheduler/{name}.yaml")
    module, _, kind = config.pop("_target_").rpartition(".")
    assert module == schedules.__name__
    assert 0 <= getattr(schedules, kind)(**config)(0.5) <= 1


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Polynomial(power=0), r"power of Polynomial is 0; allowed: a number in \(0, inf\)"),
        (lambda: Polynomial(warmup=1), "warmup of Polynomial is 1"),
        (lambda: Cosine(final=1.5), r"final of Cosine is 1.5; allowed: a number in \[0, 1\]"),
        (lambda: Cosine(warmup=-0.1), "warmup of Cosine is -0.1"),
        (lambda: Constant(warmup=2), "warmup of Constant is 2"),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], Any], words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        build()
