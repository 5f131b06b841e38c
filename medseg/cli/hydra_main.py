"""Hydra as medseg calls it: it composes configs, and gives each to a task."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medseg.cli.overrides import explicit_keys
from medseg.cli.sources import Sources, with_mappings
from medseg.config.instantiate import named_targets, with_current_names
from medseg.config.schema import CONF
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from omegaconf import DictConfig

RAISING = "HYDRA_FULL_ERROR"
"""The variable by which Hydra raises errors instead of printing them, and of ours their tracebacks."""


def hand_over(arguments: list[str], task: "Callable[[DictConfig], Any] | None" = None) -> int:
    """Let Hydra compose, and call the task with each config.

    Raises:
        MedsegError: Hydra or OmegaConf cannot do what the arguments say; other errors are the task's own.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    saved = sys.argv[:], os.environ.get(RAISING)
    sys.argv[1:] = arguments  # which is where Hydra looks
    os.environ[RAISING] = "1"
    try:
        with unchecked_help():
            hydra.main(config_path=str(CONF), version_base="1.3")(task or (lambda composed: None))()
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
        raise MedsegError("\n".join(str(each).strip() for each in (error, cause) if each)) from error
    finally:
        sys.argv[:] = saved[0]
        os.environ.pop(RAISING)
        if saved[1] is not None:
            os.environ[RAISING] = saved[1]
    return 0


@contextmanager
def unchecked_help() -> Iterator[None]:
    """Let Hydra make its parser: Python 3.14 checks help texts at once, and one of Hydra 1.3's is no ``str``."""
    check = getattr(ArgumentParser, "_check_help", None)
    if check is None:
        yield
        return
    ArgumentParser._check_help = lambda parser, action: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        ArgumentParser._check_help = check  # type: ignore[attr-defined]


def plain(composed: "DictConfig", sources: Sources, settings: list[str]) -> dict[str, Any]:
    """Return what Hydra has composed of settings as plain containers, unresolved: the job resolves it with its plan."""
    from omegaconf import OmegaConf

    config: dict[str, Any] = with_current_names(OmegaConf.to_container(composed, resolve=False))
    own = with_mappings({name: node for name, node in config.items() if name != "hydra"})
    return completed(own, sources, settings)


def completed(config: dict[str, Any], sources: Sources, settings: list[str]) -> dict[str, Any]:
    """Return a composed config with what is known of its sources: the user's trust, and the keys that the user chose.

    What the user's own ``--config-dir`` names may be built from a checkpoint.
    """
    if sources.config_dir and "trust" in config:
        config["trust"] = [*config["trust"], *sorted(named_targets(sources.config_dir))]
    if isinstance(config.get("explicit_keys"), list):
        keys = explicit_keys(sources, config["command"], settings)
        config["explicit_keys"] = list(dict.fromkeys([*config["explicit_keys"], *keys]))
    return config
