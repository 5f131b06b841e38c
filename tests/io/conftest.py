"""Data sets opened as a config would open them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.build import CONF
from medseg.config import resolve
from medseg.io.case import Dataset
from medseg.io.dataset import open_dataset


@pytest.fixture(scope="session")
def opened() -> Callable[..., Dataset]:
    """Return ``opened(name, root, **values)``: the data set of ``conf/dataset/<name>.yaml`` with these values."""

    def open_with(name: str, root: Path, **values: Any) -> Dataset:
        files = [CONF / "common" / "dataset.yaml", CONF / "dataset" / f"{name}.yaml"]
        common, own = (yaml.safe_load(file.read_text("utf-8")) for file in files)
        node = {**common, **own, "root": str(root), **values}
        return open_dataset(resolve({"dataset": {key: node[key] for key in node if key != "defaults"}})["dataset"])

    return open_with
