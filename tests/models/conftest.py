"""Networks of ``conf/model``, small enough to train a step in a moment."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import pytest

from medseg.cli.overrides import Sources, compose
from medseg.config.check import problems, resolve
from medseg.config.schema import CONF

Planned = Callable[..., dict[str, Any]]

NARROW = {
    "swin_unetr": {"base_channels": 12},
    "unetr": {"hidden_size": 24, "mlp_dim": 24, "num_heads": 4},
    "flexible_unet": {"backbone": "resnet10"},
}


@pytest.fixture(scope="session")
def planned() -> Planned:
    """Return ``planned(name, dims, *settings)``: the resolved config of a network under a plan of a small patch.

    Two channels, three classes; strides and kernels spare the first axis of the finest level, as for thick slices.
    """
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


def small(model: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the arguments that make a network small, as far as it has them."""
    usual = {key: value for key, value in {"depth": 2, "base_channels": 4}.items() if key in model}
    return usual | NARROW.get(name, {})


def small_plan(dims: int, divisor: int) -> dict[str, Any]:
    """Return a plan of two levels whose patch has two voxels at the bottom."""
    return {
        "in_channels": 2,
        "out_channels": 3,
        "patch_size": [2 * divisor, *[divisor] * (dims - 1)],
        "strides": [[1, *[2] * (dims - 1)], [2] * dims],
        "kernel_sizes": [[1, *[3] * (dims - 1)], [3] * dims, [3] * dims],
    }
