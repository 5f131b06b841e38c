"""Real data, where it is present; small networks of ``conf/model``; property tests that draw the same examples."""

import signal
from collections.abc import Callable, Generator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from small_networks import small, small_plan

from medseg.cli.sources import Sources, compose
from medseg.config.check import problems, resolve
from medseg.config.schema import CONF

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("thorough", settings.get_profile("repeatable"), max_examples=2000)  # --hypothesis-profile=
settings.load_profile("repeatable")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background is started to ignore Ctrl-C

Planned = Callable[..., dict[str, Any]]

REAL = Path(__file__).parents[1] / "../shared/data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data, or skip the test with a word."""
    if not REAL.is_dir():
        pytest.skip(f"real data is not at {REAL}")
    return REAL.resolve()


@pytest.fixture(scope="session")
def planned() -> Planned:
    """Return ``planned(name, dims, *settings)``: the resolved config of a network under ``small_plan``."""
    sources = Sources(CONF, "train")
    loader = sources.loader()

    @cache
    def composed(name: str, *settings: str) -> dict[str, Any]:
        config = compose(sources, loader, [f"model={name}", *settings])
        assert not [problem for key, problem in problems(config).items() if key.startswith(("model.", "plan."))]
        return config

    def plan(name: str, dims: int, *settings: str) -> dict[str, Any]:
        config = deepcopy(composed(name, *settings))
        config["model"] |= small(config["model"], name) | {"spatial_dims": dims}
        return resolve(config, {"plan": small_plan(dims, config["plan"]["divisor"] or 4)})

    return plan


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what no UTF-8 can hold in what a test printed: reports travel between processes as UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
