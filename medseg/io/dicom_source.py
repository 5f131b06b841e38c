"""The DICOM series that a mask is of: what DICOM SEG and RTSTRUCT refer to, and are checked against."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from medseg.errors import MedsegError
from medseg.io.alignment import name
from medseg.io.case import Scan
from medseg.io.dicom import DicomLayout, dataset_of
from medseg.io.dicom_headers import numbers_of, pydicom
from medseg.io.grids import Grid, as_volume

Dataset = Any
"""A ``pydicom.Dataset``; pydicom is an extra, and not imported before it is needed."""

FLIP = np.diag([-1.0, -1.0, 1.0])
"""RAS to LPS, DICOM's coordinates, and back."""
TOLERANCE = 0.1
"""Part of a voxel by which a slice may lie beside that of its source."""


def highdicom() -> Any:
    """Import highdicom; MedsegError where it is not installed."""
    pydicom()
    try:
        import highdicom
    except ImportError as error:
        raise MedsegError("writing DICOM SEG takes more packages: pip install 'medseg[dicom]'") from error
    return highdicom


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
    item = pydicom().Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item


def source_of(like: Scan, kind: str) -> Source:
    """Return the images of a scan that was read from DICOM, those of its slices in their order.

    Raises:
        MedsegError: it was not, or not voxel by voxel; ``kind`` names the format that needs them.
    """
    if not isinstance(like.layout, DicomLayout):
        raise MedsegError(
            f"format={kind} refers to a DICOM series, which {name(like)} is not. Take format=seg.nrrd or format=nifti."
        )
    datasets = [dataset_of(path, pixels=False) for path in like.layout.paths]
    grid = as_volume(Grid(like.shape, like.affine))
    order = slice_order(datasets, grid)
    if order is None:
        raise MedsegError(
            f"{name(like)}: its voxels are not those of the DICOM images, but brought onto another grid, so that"
            f" format={kind} cannot refer to them. Take format=seg.nrrd or format=nifti."
        )
    if len(datasets) == 1 and "NumberOfFrames" in datasets[0]:
        return Source((datasets[0],), tuple(place + 1 for place in order))
    return Source(tuple(datasets[place] for place in order), None)


def slice_order(datasets: Sequence[Dataset], grid: Grid) -> list[int] | None:
    """Return which image, or frame of a single one, each slice of a grid is; None where they do not fit."""
    positions = [position for dataset in datasets for position in positions_of(dataset)]
    shape = (datasets[0].Columns, datasets[0].Rows)
    if shape != grid.shape[:2]:
        return None
    if not all(positions):
        return [0] if len(positions) == grid.shape[2] == 1 else None
    origins = np.array([grid.to_mm(np.array([[0, 0, k]]))[0] for k in range(grid.shape[2])]) @ FLIP
    distances = np.linalg.norm(origins[:, None] - np.array(positions), axis=-1)  # (slices, images)
    if (distances.min(axis=1) > TOLERANCE * grid.spacing.min()).any():
        return None
    return [int(place) for place in distances.argmin(axis=1)]


def positions_of(dataset: Dataset) -> list[tuple[float, ...]]:
    """Return the position (3) of each frame of an image in mm, LPS; () where it has none."""
    frames = range(int(dataset.get("NumberOfFrames") or 1))
    return [numbers_of(dataset, frame, "PlanePositionSequence", "ImagePositionPatient") for frame in frames]


def belongs(like: Scan, frames_of_reference: Collection[str], series: Collection[str]) -> bool:
    """Tell whether an object that refers to these belongs to a scan: to its coordinate system or to its series.

    Scans that were not read from DICOM do not tell, and are taken at their word.
    """
    if not isinstance(like.layout, DicomLayout):
        return True
    image = dataset_of(like.layout.paths[0], pixels=False)
    if image.get("SeriesInstanceUID") in series:
        return True
    frame = image.get("FrameOfReferenceUID")
    return frame in frames_of_reference if frame and frames_of_reference else not series


def derived_uid(*parts: Any) -> str:
    """Return a UID that is the same for the same parts, text or bytes, so that what is made again is the same file.

    >>> derived_uid("a", "b") == derived_uid("a", "b") != derived_uid("a", "c")
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return str(pydicom().uid.generate_uid(entropy_srcs=[digest.hexdigest()]))
