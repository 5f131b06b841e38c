"""Configs composed as the command line would, small enough to run in seconds."""

import itertools
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from medseg.config.schema import CONF

Compose = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def composed() -> Compose:
    """Return ``composed(command, *overrides)``: the unresolved plain config that a job takes."""

    @cache
    def compose_once(command: str, *overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = OmegaConf.to_container(compose(command, list(overrides)))
        assert isinstance(config, dict)
        return {str(key): value for key, value in config.items()}

    return lambda *arguments: deepcopy(compose_once(*arguments))


SMALL = (
    "model.depth=2",
    "model.base_channels=4",
    "trainer.max_time=null",
    "trainer.max_epochs=2",
    "trainer.steps_per_epoch=3",
    "trainer.validation_interval=1",
    "trainer.averaging=0.5",
    "trainer.accelerator=cpu",
    "plan.batch_size=2",
)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the jobs of a session share, so that phantom and cache are made once."""
    return tmp_path_factory.mktemp("work place (1)")


@pytest.fixture(scope="session")
def small(composed: Compose, workplace: Path) -> Compose:
    """Return ``small(dims, *overrides)``: the config of a training run of a few seconds on the phantom."""

    def compose_small(dims: int, *overrides: str) -> dict[str, Any]:
        config = composed(
            "train",
            *SMALL,
            f"dataset.dims={dims}",
            "dataset.cases=10",
            f"dataset.size={32 if dims == 3 else 64}",
            *overrides,
        )
        config["dataset"]["root"] = str(workplace / "phantom")
        config["cache_dir"] = str(workplace / "cache")
        return config

    return compose_small


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time that ``trainer.max_time`` limits pass by looking at it, a hundredth of a second each time."""
    from medseg.training.callbacks.progress import Progress

    looks = itertools.count()
    assert Progress.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Progress.__init__.__kwdefaults__, "clock", lambda: next(looks) / 100)


@pytest.fixture(scope="session", params=[2, 3])
def trained(request: pytest.FixtureRequest, small: Compose, workplace: Path) -> Path:
    """Return the directory of a finished training run, in 2D and in 3D."""
    from medseg.jobs.train import train

    run_dir = workplace / f"run {request.param}d"
    if not run_dir.exists():  # pytest makes a fixture anew where its parameters alternate
        train.run(small(request.param) | {"run_dir": str(run_dir)})
    return run_dir
