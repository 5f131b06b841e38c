"""Layouts: functions from a root folder to a Dataset. Nothing past them knows how files are named."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.io.case import Dataset
from medseg.io.layouts.brats_cases import brats
from medseg.io.layouts.csv_table import table
from medseg.io.layouts.decathlon_json import decathlon
from medseg.io.layouts.groups import assign_groups
from medseg.io.layouts.image_folder import folder
from medseg.io.layouts.nnunet_raw import nnunet

SYNTHETIC = "medseg.io.layouts.phantom"
"""The layout that writes its data itself."""

__all__ = ["brats", "decathlon", "folder", "nnunet", "phantom", "table"]


def phantom(*, root: str | Path, dims: int, channels: int, cases: int, size: int, seed: int) -> Dataset:
    """Write the synthetic data set of these arguments below ``root``, unless it is there, and read it.

    Raises:
        MedsegError: an argument is out of its range, or ``root`` cannot be written.
    """
    from medseg.io.layouts.synthetic import LABELS, write_phantom

    arguments = {"dims": dims, "channels": channels, "cases": cases, "size": size, "seed": seed}
    written = write_phantom(phantom_folder(root=root, **arguments), **arguments)
    dataset = decathlon(written) if dims == 3 else folder(written)
    patients = assign_groups(dataset.cases, file=written / "groups.csv")
    return replace(dataset, cases=patients, labels=dict(LABELS), modality=("mri",) * channels)


def phantom_folder(*, root: str | Path, dims: int, channels: int, cases: int, size: int, seed: int) -> Path:
    """Return where the synthetic data set of these arguments lies below ``root``."""
    return Path(root) / f"{dims}d-{channels}-channels-{cases}-cases-size-{size}-seed-{seed}"


def phantom_is_there(layout: Mapping[str, Any]) -> bool:
    """Return whether the synthetic data set that a ``layout`` node describes has been written."""
    arguments = {name: value for name, value in layout.items() if name != "_target_"}
    return (phantom_folder(**arguments) / "phantom.json").is_file()
