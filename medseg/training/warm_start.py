"""A training that begins where another ended: with its weights, its plan and its split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from medseg.config import escape
from medseg.errors import MedsegError, listing
from medseg.inference.checkpoint import locate, read_checkpoint
from medseg.io.labels import LabelMap

Config = dict[str, Any]


def begun_from(config: Config, settings: Config) -> Config:
    """Return the config with the plan and the split of ``finetune.checkpoint``'s run, unless it gives its own.

    The plan is needed for the weights to fit, the split so that no case is tested on that the weights have seen.

    Raises:
        MedsegError: there is no such run.
    """
    start = start_of(settings)
    if start is None:
        return config
    run = locate(start).parent.parent
    files = {"plan": run / "plan.json", "split": run / "splits.json"}
    given = {"plan": settings["plan"]["file"], "split": settings["split"]["file"] or settings["split"]["folds"]}
    if lost := [path.name for node, path in files.items() if not given[node] and not path.is_file()]:
        raise MedsegError(
            f"finetune.checkpoint={start}: {run} has no {' and no '.join(lost)}. Give the directory of a run, or name"
            " plan.file and split.file."
        )
    own = {node: {**config[node], "file": escape(str(path))} for node, path in files.items() if not given[node]}
    return {**config, **own}


def start_of(settings: Config) -> str | None:
    """Return the run whose weights a new training begins with; None: its own, as in runs of older versions."""
    start: str | None = settings.get("finetune", {}).get("checkpoint")
    return None if settings["resume"] else start


def load_start(networks: list[nn.Module], path: str | Path, label_map: LabelMap) -> None:
    """Put the weights of a run, all of them, into networks of the same form.

    Raises:
        MedsegError: there is no such checkpoint, it knows other classes, or its weights do not fit.
    """
    checkpoint = read_checkpoint(path)
    ours, theirs = label_map.outputs, checkpoint.label_map.outputs
    if ours != theirs:
        raise MedsegError(
            f"finetune.checkpoint={path} knows {', '.join(theirs)}; the data have {', '.join(ours)}. They must be"
            " the same, in the same order."
        )
    for network in networks:
        if wrong := misfits(network, checkpoint.weights):
            raise MedsegError(
                f"finetune.checkpoint={path}: {len(wrong)} weights do not fit this network:\n{listing(wrong)}\n"
                "Give the model of that run, and leave the plan to it."
            )
        network.load_state_dict(checkpoint.weights)


def misfits(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Return a line for each weight that only one side has, or that is of another shape."""
    ours = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    return [
        f"{name}: {theirs.get(name, 'none')} in the checkpoint, {ours.get(name, 'none')} here"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]
