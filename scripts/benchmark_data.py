"""The data sets of the benchmarks: how each tool is told of them, and the one split that all of them use."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from medseg.config.check import read_settings
from medseg.config.schema import CONF
from medseg.config.settings import TrainSettings
from medseg.io.case import Dataset
from medseg.io.datasets.dataset import open_dataset
from medseg.io.datasets.splits import Split, make_split


@dataclass(frozen=True)
class BenchmarkData:
    """A data set: medseg's settings, with ``{root}`` for its folder, and nnU-Net's number, name and configuration."""

    name: str
    settings: tuple[str, ...]
    number: int
    title: str
    configuration: str
    channels: tuple[str, ...]
    suffix: str

    @property
    def nnunet_name(self) -> str:
        """The name of its folder in nnU-Net."""
        return f"Dataset{self.number:03d}_{self.title}"

    def overrides(self, root: Path, work: Path) -> list[str]:
        """Return what to add to ``medseg train``; a table that the data set lacks is written to ``work``."""
        if self.name == "ms_lesions":
            write_table(root, work / "ms_lesions.csv", self.channels)
        return [setting.format(root=root, work=work) for setting in self.settings]


def write_table(root: Path, path: Path, channels: tuple[str, ...]) -> None:
    """Write a table of a data set of one case, which trains and validates: its scores are of no interest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder,) = [file.parent for file in root.glob("*/lesions.nii.gz")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "group", "split", *(f"image_{channel}" for channel in channels), "label"])
        for part in ("train", "val"):
            images = [folder / f"{channel}.nii.gz" for channel in channels]
            writer.writerow([f"case_{part}", part, part, *images, folder / "lesions.nii.gz"])


DATA = {
    data.name: data
    for data in (
        BenchmarkData(
            "hippocampus",
            ("dataset=decathlon", "dataset.root={root}", "dataset.group_file={root}/groups.csv"),
            number=4,
            title="Hippocampus",
            configuration="3d_fullres",
            channels=("MRI",),
            suffix=".nii.gz",
        ),
        BenchmarkData(
            "nuclei",
            ("dataset=folder", "dataset.root={root}"),
            number=900,
            title="Nuclei",
            configuration="2d",
            channels=("R", "G", "B"),
            suffix=".png",
        ),
        BenchmarkData(
            "cardiac_slices",
            (
                "dataset=folder",
                "dataset.root={root}",
                "dataset.images=Images",
                "dataset.masks=Labels",
                "dataset.group='^(.+?)-IM-'",
            ),
            number=902,
            title="CardiacSlices",
            configuration="2d",
            channels=("MRI",),
            suffix=".png",
        ),
        BenchmarkData(
            "phantom",
            ("dataset=phantom", "dataset.root={work}/phantom", "plan.device=null"),
            number=903,
            title="Phantom",
            configuration="3d_fullres",
            channels=("MRI",),
            suffix=".nii.gz",
        ),
        BenchmarkData(
            "ms_lesions",
            ("dataset=table", "dataset.root={root}", "dataset.table={work}/ms_lesions.csv"),
            number=901,
            title="MSLesions",
            configuration="3d_fullres",
            channels=("FLAIR", "T1", "T1POST", "T2"),
            suffix=".nii.gz",
        ),
    )
}
TESTED = ("hippocampus", "nuclei", "cardiac_slices", "phantom")
"""Those with enough cases to test; the others are for measuring steps."""


def composed(overrides: list[str]) -> dict[str, Any]:
    """Compose the config of ``medseg train`` as the command line would; nothing is resolved yet."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", overrides))
    return config


def opened(data: BenchmarkData, root: Path, work: Path) -> tuple[Dataset, Split]:
    """Return the cases and medseg's default split of them: seed 0, by group, a fifth to test, a tenth to validate."""
    dataset = open_dataset(read_settings(TrainSettings, composed(data.overrides(root, work))).dataset)
    return dataset, make_split(dataset.cases, val=0.1, test=0.2, seed=0)
