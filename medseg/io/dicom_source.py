"""The DICOM series that a mask is of: what DICOM SEG and RTSTRUCT refer to, and are checked against."""

import importlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import MedsegError
from medseg.io.alignment import name
from medseg.io.case import Scan
from medseg.io.grids import Grid, as_volume

Dataset = Any
"""A ``pydicom.Dataset``; pydicom is an extra, and not imported before it is needed."""

FLIP = np.diag([-1.0, -1.0, 1.0])
"""RAS to LPS, DICOM's coordinates, and back."""
TOLERANCE = 0.1
"""Part of a voxel by which a slice may lie beside that of its source."""


def dicom(module: str) -> Any:
    """Import pydicom or highdicom; MedsegError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MedsegError(f"DICOM files need further packages ({error.name}): pip install 'medseg[dicom]'.") from error


def open_dataset(path: Path, **options: Any) -> Dataset:
    """Read a DICOM file; ``options`` are those of ``pydicom.dcmread``. MedsegError where it is none."""
    pydicom = dicom("pydicom")
    try:
        return pydicom.dcmread(path, **options)
    except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise MedsegError(f"{path}: no readable DICOM file; damaged or something else? {error}") from error


def storage_class(path: Path) -> str | None:
    """Return the UID of what a DICOM file stores, None for other files."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
    return str(open_dataset(path, specific_tags=["SOPClassUID"], stop_before_pixels=True).get("SOPClassUID", ""))


@dataclass(frozen=True)
class Source:
    """The images that the slices of a scan come from.

    ``datasets`` are in the slices' order and without pixels, or the one of a multi-frame image; ``frames`` then is the
    number of each slice's frame, from 1, and otherwise None.
    """

    datasets: tuple[Dataset, ...]
    frames: tuple[int, ...] | None

    @property
    def first(self) -> Dataset:
        """One of the images, for what they have in common."""
        return self.datasets[0]

    @cached_property
    def frame_of_reference(self) -> str:
        """The UID of the coordinate system; one made from the series where the images, against the rules, have none."""
        return self.first.get("FrameOfReferenceUID") or derived_uid("frame of reference", self.first.SeriesInstanceUID)

    @property
    def date(self) -> str:
        """A date that a derived object may have: it must not depend on when it was made."""
        dates = (self.first.get(key) for key in ("SeriesDate", "StudyDate", "AcquisitionDate", "ContentDate"))
        return next((str(date) for date in dates if date), "19700101")

    @property
    def time(self) -> str:
        """Likewise a time."""
        return next((str(time) for key in ("SeriesTime", "StudyTime") if (time := self.first.get(key))), "000000")

    @property
    def uids(self) -> list[str]:
        """The UID of each image."""
        return [str(dataset.SOPInstanceUID) for dataset in self.datasets]

    def reference(self, slice_index: int) -> Dataset:
        """Return an item that refers to the image of a slice."""
        image = self.datasets[0 if self.frames else slice_index]
        item = reference_to(image)
        if self.frames:
            item.ReferencedFrameNumber = self.frames[slice_index]
        return item


def reference_to(image: Dataset) -> Dataset:
    """Return an item that refers to an image."""
    item = dicom("pydicom").Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item


def source_of(like: Scan, kind: str) -> Source:
    """Return the images of a scan that was read from DICOM, those of its slices in their order.

    Raises:
        MedsegError: it was not, or not voxel by voxel; ``kind`` names the format that needs them.
    """
    paths = getattr(like.layout, "paths", None)
    if paths is None:
        raise MedsegError(
            f"format={kind} refers to a DICOM series, which {name(like)} is not. Take format=seg.nrrd or format=nifti."
        )
    datasets = [open_dataset(path, stop_before_pixels=True) for path in paths]
    grid = as_volume(Grid(like.shape, like.affine))
    order = slice_order(datasets, grid)
    if order is None:
        raise MedsegError(
            f"{name(like)}: its voxels are not those of the DICOM images, but brought onto another grid, so that"
            f" format={kind} cannot refer to them. Take format=seg.nrrd or format=nifti."
        )
    if len(datasets) == 1:
        return Source(tuple(datasets), tuple(place + 1 for place in order) if "NumberOfFrames" in datasets[0] else None)
    return Source(tuple(datasets[place] for place in order), None)


def slice_order(datasets: Sequence[Dataset], grid: Grid) -> list[int] | None:
    """Return which image, or frame of a single one, each slice of a grid is; None where they do not fit."""
    positions = [position for dataset in datasets for position in positions_of(dataset)]
    shape = (datasets[0].Columns, datasets[0].Rows)
    if shape != grid.shape[:2]:
        return None
    if positions in ([], [None]):
        return [0] if grid.shape[2] == 1 else None
    if any(position is None for position in positions):
        return None
    origins = np.array([grid.to_mm(np.array([[0, 0, k]]))[0] for k in range(grid.shape[2])]) @ FLIP
    distances = np.linalg.norm(origins[:, None] - np.array(positions, dtype=float), axis=-1)  # (slices, images)
    if (distances.min(axis=1) > TOLERANCE * grid.spacing.min()).any():
        return None
    return [int(place) for place in distances.argmin(axis=1)]


def positions_of(dataset: Dataset) -> Iterable[Any]:
    """Return the position of an image, or of each of its frames; None where it has none."""
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return [dataset.get("ImagePositionPatient")]
    return [position_of(frame, dataset) for frame in dataset.PerFrameFunctionalGroupsSequence]


def position_of(frame: Dataset, dataset: Dataset) -> Any:
    """Return the position of a frame in mm, LPS; None where it has none."""
    item = functional_group(frame, dataset, "PlanePositionSequence")
    return None if item is None else item.get("ImagePositionPatient")


def functional_group(frame: Dataset, dataset: Dataset, keyword: str) -> Dataset | None:
    """Return what a multi-frame image says of a frame, of it alone or of all."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for place in (frame, *shared):
        if found := place.get(keyword):
            return found[0]
    return None


def belongs(like: Scan, frames_of_reference: Collection[str], series: Collection[str]) -> bool:
    """Tell whether an object that refers to these belongs to a scan: to its coordinate system or to its series.

    Scans that were not read from DICOM do not tell, and are taken at their word.
    """
    paths = getattr(like.layout, "paths", None)
    if not paths:
        return True
    tags = ["FrameOfReferenceUID", "SeriesInstanceUID"]
    image = open_dataset(paths[0], specific_tags=tags, stop_before_pixels=True)
    if image.get("SeriesInstanceUID") in series:
        return True
    frame = image.get("FrameOfReferenceUID")
    return frame in frames_of_reference if frame and frames_of_reference else not series


def derived_uid(*parts: Any) -> str:
    """Return a UID that is the same for the same parts, text or bytes, so that what is made again is the same file.

    >>> derived_uid("a", "b") == derived_uid("a", "b") != derived_uid("a", "c")
    True
    """
    import hashlib

    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return str(dicom("pydicom").uid.generate_uid(entropy_srcs=[digest.hexdigest()]))
