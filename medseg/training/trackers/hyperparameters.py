"""What runs differ in: the settings that trackers compare them by."""

from collections.abc import Iterator, Mapping
from typing import Any

VARIED = (
    "seed",
    "finetune",
    "split",
    "preprocessing",
    "plan",
    "model",
    "pretext",
    "reconstruction",
    "loss",
    "optimizer",
    "scheduler",
    "augment",
    "trainer",
    "inference",
    "postprocess",
)
"""The nodes of the config that runs are compared by. Of the data set it is the name."""


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, str | float | bool]:
    """Return what differs from run to run by its dotted path: numbers and texts, lists as text, no nulls.

    An object stands under its own path with the name of its class. What the network takes from the plan is there once.

    >>> hyperparameters({"dataset": {"name": "heart"}, "model": {"_target_": "medseg.models.UNet", "depth": 4}})
    {'dataset': 'heart', 'model': 'UNet', 'model.depth': 4}
    """
    values = dict(leaves({name: settings[name] for name in VARIED if name in settings}))
    repeated = {name for name in values if name.replace("model.", "plan.", 1) in values.keys() - {name}}
    return {"dataset": settings["dataset"]["name"], **{name: values[name] for name in values if name not in repeated}}


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, str | float | bool]]:
    """Yield the values in nested mappings and lists of mappings with their dotted paths."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            if name == "_target_":
                yield path, child.rpartition(".")[2]
            else:
                yield from leaves(child, f"{path}.{name}" if path else name)
    elif isinstance(node, list) and node and all(isinstance(item, Mapping) for item in node):
        for index, item in enumerate(node):
            yield from leaves(item, f"{path}.{index}")
    elif node is not None:
        yield path, node if isinstance(node, str | int | float) else str(node)
