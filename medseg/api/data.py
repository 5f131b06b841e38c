"""Data sets from Python: cases that are read when they are asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.cli.keywords import config_of
from medseg.config.check import read_settings
from medseg.config.instantiate import own_targets
from medseg.config.settings import TrainSettings
from medseg.errors import MedsegError, nearest
from medseg.evaluation.images.overlays import notebook_png
from medseg.io.case import Case, Scan
from medseg.io.datasets import dataset as datasets
from medseg.io.datasets.annotations import read_labelled
from medseg.io.labels import LabelMap
from medseg.io.warnings import logged


@dataclass(frozen=True, repr=False)
class LabelledScan:
    """A case in memory: its scan and its annotation, which a notebook shows over the scan.

    ``mask`` holds class indices (*spatial) on the scan's own grid, uint8: 0 the background, 255 where the class is
    unknown.

    >>> case = medseg.open_dataset("phantom", dims=2, cases=10, size=64)[0]
    >>> case
    LabelledScan('case_000', channels=1, shape=(64, 64), classes=['edema', 'core', 'enhancing'])
    >>> case.image.shape, case.mask.shape, case.spacing
    ((1, 64, 64), (64, 64), (1.0, 1.0))
    """

    id: str
    scan: Scan
    mask: NDArray[np.uint8]
    label_map: LabelMap

    def __repr__(self) -> str:
        """Describe the case without its voxels."""
        present = np.unique(self.mask)
        classes = [name for index, name in enumerate(self.label_map.names) if index and index in present]
        return f"LabelledScan({self.id!r}, channels={len(self.image)}, shape={self.scan.shape}, {classes=})"

    def _repr_png_(self) -> bytes:
        return notebook_png(self.scan, self.mask, self.label_map)

    @property
    def image(self) -> NDArray[np.float32]:
        """The channels (C, *spatial), with the values of the files."""
        return self.scan.image

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4, voxel indices to mm in RAS+; the identity for 2D images without a spacing."""
        return self.scan.affine

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring voxel centres along each spatial axis, in mm; 1 for 2D images, in pixels."""
        return self.scan.spacing


@dataclass(frozen=True, repr=False)
class Dataset:
    """The cases of a data set, by number or by id, each read from its files when it is asked for.

    ``label_map`` has the classes, ``cases`` the files of each case, ``problems`` a line for each mistake that shuts a
    case out, ``settings`` what ``train`` is told of the data set.

    >>> dataset = medseg.open_dataset("phantom", dims=2, cases=10, size=64)
    >>> dataset
    Dataset(10 cases, classes=['background', 'edema', 'core', 'enhancing'])
    >>> len(dataset), dataset.ids[0], dataset["case_001"].id
    (10, 'case_000', 'case_001')
    >>> sum(int((case.mask == 2).sum()) for case in dataset) > 0
    True
    """

    cases: tuple[Case, ...]
    label_map: LabelMap
    settings: Mapping[str, Any]
    problems: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Describe the data set by its size and classes."""
        problems = f", {len(self.problems)} problems" if self.problems else ""
        return f"Dataset({len(self)} cases, classes={list(self.label_map.names)}{problems})"

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[LabelledScan]:
        return map(self.read, self.cases)

    def __getitem__(self, which: int | str) -> LabelledScan:
        """Read a case by its number or id.

        Raises:
            IndexError: there is no such number.
            MedsegError: there is no such id, or the case cannot be read.
        """
        if isinstance(which, str) and which not in self.ids:
            raise MedsegError(f"{which!r}: no such case among {len(self)}.{nearest(which, self.ids)}")
        return self.read(self.cases[self.ids.index(which) if isinstance(which, str) else which])

    @property
    def ids(self) -> list[str]:
        """The ids of the cases, in order."""
        return [case.id for case in self.cases]

    def read(self, case: Case) -> LabelledScan:
        """Read the files of a case.

        Raises:
            MedsegError: they cannot be read, or do not fit each other.
        """
        with logged():
            scan, mask = read_labelled(case, self.label_map)
        return LabelledScan(case.id, scan, mask, self.label_map)


def open_dataset(layout: str, root: str | Path | None = None, **settings: Any) -> Dataset:
    """Find the cases of a data set and their classes; a scan is read when it is asked for.

    Masks are read at once only where nothing else tells the classes.

    Args:
        layout: how its files lie: "folder", "decathlon", "nnunet", "brats" or "table", or the synthetic "phantom".
        root: its folder; the phantom has one by default.
        settings: what the command line has below ``dataset``, such as ``labels={"background": 0, "nucleus": 255}`` or
            ``modality="ct"``.

    Raises:
        MedsegError: no case is found, or the settings cannot be used.

    >>> medseg.open_dataset("phantom", dims=2, cases=10, size=64).label_map.names
    ('background', 'edema', 'core', 'enhancing')
    >>> medseg.open_dataset("foldr", "/data")
    Traceback (most recent call last):
    medseg.errors.MedsegError: dataset=foldr: no such option. Did you mean 'folder'? Options: ...
    """
    named = {"dataset": layout, **{f"dataset.{name}": value for name, value in settings.items()}}
    if root is not None:
        named["dataset.root"] = str(root)
    config, _ = config_of("inspect", named)
    assert config is not None  # which only a resumed run can lack
    found = datasets.open_dataset(read_settings(TrainSettings, config).dataset, own_targets(config))
    return Dataset(found.cases, datasets.label_map(found), named, found.problems)
