"""A run's settings for TensorBoard's HPARAMS page, where the runs of a sweep are compared.

TensorBoard makes the table of what each run says of itself, so runs of different networks, with different settings,
stand side by side. A run without an end is one that still goes on, or was stopped. The page shows the first few
scores in the order of the alphabet, so those that runs are compared by are called ``best/…``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

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


def begin_session(loggers: Sequence[Logger], settings: Mapping[str, Any]) -> None:
    """Log a run's settings, its plan filled in."""
    values = hyperparameters(settings)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):  # its own way wants the metrics now, and calls the run ended
            _, start, _ = hparams(values, {})  # type: ignore[no-untyped-call]
            logger.experiment._get_file_writer().add_summary(start)
        else:
            logger.log_hyperparams(values)


def end_session(loggers: Sequence[Logger], scores: Mapping[str, float], step: int) -> None:
    """Log a run's last scores, and that it has come to its end."""
    for logger in loggers:
        logger.log_metrics(dict(scores), step=step)
        if isinstance(logger, TensorBoardLogger):
            _, _, end = hparams({}, {})  # type: ignore[no-untyped-call]
            logger.experiment._get_file_writer().add_summary(end)
        logger.finalize("success")


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
