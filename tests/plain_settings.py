"""The settings of a plain command line, for tests that change some of them."""

from copy import deepcopy
from functools import cache
from typing import Any

from medseg.cli.sources import Sources, compose
from medseg.config.check import resolve
from medseg.config.schema import CONF, typed
from medseg.config.settings import PretrainSettings, TrainingSettings, TrainSettings

OBJECTS = ("model", "pretext", "optimizer", "scheduler", "loss", "logger")


@cache
def composed(command: str, *arguments: str) -> dict[str, Any]:
    sources = Sources(CONF, command)
    return compose(sources, sources.loader(), list(arguments))


def training_settings(**nodes: Any) -> TrainingSettings:
    """Return the settings of a training on a folder of scans, with other values in some nodes, or other objects."""
    command, dataset, group = ("train", "folder", TrainSettings)
    if "pretext" in nodes:
        command, dataset, group = ("pretrain", "scans", PretrainSettings)
    config = resolve(deepcopy(composed(command, f"dataset={dataset}", "dataset.root=x")))
    for name, node in nodes.items():
        config[name] = {**config[name], **node} if isinstance(node, dict) and name not in OBJECTS else node
    return typed(group, config)
