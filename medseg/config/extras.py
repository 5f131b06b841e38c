"""The packages that only some settings need, and that ``pip install 'medseg[EXTRA]'`` brings."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from medseg.config.instantiate import targets

EXTRAS = {
    "dicom": (("pydicom", "highdicom", "pylibjpeg"), "DICOM images, SEG and RTSTRUCT"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "medseg export, and ONNX files as models"),
    "mlflow": (("mlflow", "sqlalchemy", "alembic"), "logger=mlflow"),
    "wandb": (("wandb",), "logger=wandb"),
}
"""The packages of each extra of medseg's, and what they are for."""

OF_TARGETS = {"medseg.training.trackers.MLFlow": "mlflow", "medseg.training.trackers.WandB": "wandb"}
"""The extra of each object that ``conf/`` names and that needs one."""


def missing_packages(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed."""
    return [package for package in EXTRAS[extra][0] if find_spec(package) is None]


def missing_extras(config: dict[str, Any]) -> Iterator[str]:
    """Yield, of each extra that the objects of a config need and that is not installed, what to do."""
    for extra in dict.fromkeys(OF_TARGETS[name] for name in targets(config) if name in OF_TARGETS):
        if missing := missing_packages(extra):
            yield f"{EXTRAS[extra][1]}: not installed ({', '.join(missing)}). Do: pip install 'medseg[{extra}]'."
