"""The DICOM series that a mask is of: what DICOM SEG and RTSTRUCT refer to, and are checked against."""

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.dicom.attributes import FORMS, clock, day, patient_and_study, text_of
from medseg.io.dicom.headers import numbers_of, pydicom, readable_numbers_of
from medseg.io.dicom.image import DicomLayout, dataset_of
from medseg.io.grids.alignment import grid_of, name
from medseg.io.grids.grid import FLIP, TOLERANCE, Grid, as_volume

log = logging.getLogger(__name__)

Dataset = Any
"""A ``pydicom.Dataset``; pydicom is an extra, and not imported before it is needed."""

Privacy = Literal["keep", "strip"]
"""Whether objects say of patient and study what the standard has them say, or leave all of it empty."""


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
    """The images that the slices of a scan come from, and its grid, on which every slice lies.

    ``datasets`` are in the slices' order and without pixels, or the one of a multi-frame image; ``frames`` then is the
    number of each slice's frame, from 1, and otherwise None. With ``privacy="strip"`` nothing is taken from them that
    is not needed to refer to them.
    """

    datasets: tuple[Dataset, ...]
    frames: tuple[int, ...] | None
    grid: Grid
    privacy: Privacy = "keep"

    @property
    def first(self) -> Dataset:
        """One of the images, for what they have in common."""
        return self.datasets[0]

    @cached_property
    def series(self) -> str:
        """The UID of the series; like those below, made from the images where these, against the rules, have none."""
        return text_of(self.first, "SeriesInstanceUID") or derived_uid("series", *self.uids)

    @cached_property
    def study(self) -> str:
        """The UID of the study."""
        return text_of(self.first, "StudyInstanceUID") or derived_uid("study", self.series)

    @cached_property
    def frame_of_reference(self) -> str:
        """The UID of the coordinate system."""
        return text_of(self.first, "FrameOfReferenceUID") or derived_uid("frame of reference", self.series)

    @property
    def number(self) -> int:
        """The number of the series, 0 where it has none."""
        return int(next(iter(readable_numbers_of(self.first, 0, "", "SeriesNumber")), 0))

    @cached_property
    def patient_and_study(self) -> dict[str, str]:
        """What a derived object must say of patient and study, in valid form; see ``dicom_values``."""
        return dict.fromkeys(FORMS, "") if self.privacy == "strip" else patient_and_study(self.first)[0]

    @property
    def date(self) -> str:
        """A date that a derived object may have: it must not depend on when it was made."""
        keywords = ("SeriesDate", "StudyDate", "AcquisitionDate", "ContentDate") if self.privacy == "keep" else ()
        return next((date for key in keywords if (date := day(text_of(self.first, key)))), "19700101")

    @property
    def time(self) -> str:
        """Likewise a time."""
        keywords = ("SeriesTime", "StudyTime") if self.privacy == "keep" else ()
        return next((time for key in keywords if (time := clock(text_of(self.first, key)))), "000000")

    @cached_property
    def uids(self) -> list[str]:
        """The UID of each image."""
        return [str(reference_to(dataset).ReferencedSOPInstanceUID) for dataset in self.datasets]

    def reference(self, slice_index: int) -> Dataset:
        """Return an item that refers to the image of a slice."""
        image = self.datasets[0 if self.frames else slice_index]
        item = reference_to(image)
        if self.frames:
            item.ReferencedFrameNumber = self.frames[slice_index]
        return item

    def log_changes(self, scan: str) -> None:
        """Log once which attributes are not written as they are. Their values stay out of logs: they are of persons."""
        if self.privacy == "strip":
            return
        _, mended, emptied = patient_and_study(self.first)
        if mended:
            log.info("%s: %s: written in the form that DICOM demands", scan, ", ".join(mended))
        if emptied:
            reasons = ", ".join(f"{keyword} (not {FORMS[keyword][0]})" for keyword in emptied)
            log.warning("%s: left empty, since what the images say is not certain: %s", scan, reasons)


def reference_to(image: Dataset) -> Dataset:
    """Return an item that refers to an image, by UIDs as the image has them, even where these break the rules.

    Raises:
        MedsegError: the image has no UID to refer to.
    """
    item = pydicom().Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        uid = text_of(image, keyword) or text_of(image.file_meta, f"MediaStorage{keyword}")
        if not uid:
            file = getattr(image, "filename", None) or "a DICOM image"
            raise MedsegError(
                f"{file}: it has no {keyword}, so that no DICOM object can refer to it."
                " Take format=seg.nrrd or format=nifti."
            )
        setattr(item, f"Referenced{keyword}", uid)
    return item


def source_of(like: Scan, kind: str, privacy: Privacy = "keep") -> Source:
    """Return the images of a scan that was read from DICOM, those of its slices in their order.

    Raises:
        MedsegError: it was not, or not voxel by voxel; ``kind`` names the format that needs them.
    """
    if not isinstance(like.layout, DicomLayout):
        raise MedsegError(
            f"format={kind} refers to a DICOM series, which {name(like)} is not. Take format=seg.nrrd or format=nifti."
        )
    datasets = [dataset_of(path, pixels=False) for path in like.layout.paths]
    grid = as_volume(grid_of(like))
    order = slice_order(datasets, grid)
    if order is None:
        raise MedsegError(
            f"{name(like)}: its voxels are not those of the DICOM images, but brought onto another grid, so that"
            f" format={kind} cannot refer to them. Take format=seg.nrrd or format=nifti."
        )
    if len(datasets) == 1 and "NumberOfFrames" in datasets[0]:
        return Source((datasets[0],), tuple(index + 1 for index in order), grid, privacy)
    return Source(tuple(datasets[index] for index in order), None, grid, privacy)


def slice_order(datasets: Sequence[Dataset], grid: Grid) -> list[int] | None:
    """Return which image, or frame of a single one, each slice of a grid is; None where they do not fit."""
    positions = [position for dataset in datasets for position in positions_of(dataset)]
    shape = (datasets[0].Columns, datasets[0].Rows)
    if shape != grid.shape[:2]:
        return None
    if not all(positions):
        return [0] if len(positions) == grid.shape[2] == 1 else None
    to_voxels = np.linalg.inv(grid.affine)
    corners = np.array(positions) @ FLIP @ to_voxels[:3, :3].T + to_voxels[:3, 3]  # (images, 3), in voxels
    slices = np.outer(np.arange(grid.shape[2]), [0, 0, 1])
    distances = np.abs(slices[:, None] - corners).max(axis=-1)  # (slices, images)
    if (distances.min(axis=1) > TOLERANCE).any():
        return None
    return [int(index) for index in distances.argmin(axis=1)]


def positions_of(dataset: Dataset) -> list[tuple[float, ...]]:
    """Return the position (3) of each frame of an image in mm, LPS; () where it has none."""
    frames = range(int(dataset.get("NumberOfFrames") or 1))
    return [numbers_of(dataset, frame, "PlanePositionSequence", "ImagePositionPatient") for frame in frames]


def belongs(like: Scan, frames_of_reference: Collection[str], series: Collection[str]) -> bool:
    """Return whether an object that refers to these belongs to a scan: to its coordinate system or to its series.

    Scans that were not read from DICOM, or have neither, do not tell, and are taken at their word.
    """
    if not isinstance(like.layout, DicomLayout):
        return True
    image = dataset_of(like.layout.paths[0], pixels=False)
    own, frame = text_of(image, "SeriesInstanceUID"), text_of(image, "FrameOfReferenceUID")
    if own in series or (not own and not frame):
        return True
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
