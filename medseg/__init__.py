"""Train, test and apply segmentation networks on medical scans, every choice a config value.

>>> import medseg
>>> run = medseg.Run.open("outputs/nuclei")  # or medseg.train(...)
>>> run.predictor(device="cpu")("scan.png").save("mask.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg import metrics as metrics
    from medseg.api.data import Dataset as Dataset
    from medseg.api.data import LabelledScan as LabelledScan
    from medseg.api.data import open_dataset as open_dataset
    from medseg.api.patches import Patches as Patches
    from medseg.api.patches import patches as patches
    from medseg.api.runs import Run as Run
    from medseg.api.runs import RunComparison as RunComparison
    from medseg.api.runs import compare as compare
    from medseg.api.runs import evaluate as evaluate
    from medseg.api.runs import train as train
    from medseg.errors import MedsegError as MedsegError
    from medseg.evaluation.report.files import Report as Report
    from medseg.inference.predictor import Mask as Mask
    from medseg.inference.predictor import Predictor as Predictor
    from medseg.io.case import Scan as Scan
    from medseg.io.files.scans import read_scan as read_scan
    from medseg.io.labels import LabelMap as LabelMap

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "medseg.api.data",
    "LabelMap": "medseg.io.labels",
    "LabelledScan": "medseg.api.data",
    "Mask": "medseg.inference.predictor",
    "MedsegError": "medseg.errors",
    "Patches": "medseg.api.patches",
    "Predictor": "medseg.inference.predictor",
    "Report": "medseg.evaluation.report.files",
    "Run": "medseg.api.runs",
    "RunComparison": "medseg.api.runs",
    "Scan": "medseg.io.case",
    "compare": "medseg.api.runs",
    "evaluate": "medseg.api.runs",
    "open_dataset": "medseg.api.data",
    "patches": "medseg.api.patches",
    "read_scan": "medseg.io.files.scans",
    "train": "medseg.api.runs",
}
"""The module of each public name, imported with all that it needs, such as torch, where the name is first used."""

__all__ = ["__version__", "metrics", *_HOMES]


def __dir__() -> list[str]:
    """List what the package offers, imported or not."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("medseg.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module 'medseg' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
