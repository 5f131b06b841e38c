"""Networks of ``conf/model``, small enough to train a step in a moment."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from small_networks import small, small_plan

from medseg.cli.overrides import Sources, compose
from medseg.config.check import problems, resolve
from medseg.config.schema import CONF

Planned = Callable[..., dict[str, Any]]


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
