"""Files of named segments: told from others, their names and their masks, whatever the format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import MedsegError
from medseg.io import dicom_seg, nifti, pictures, rtstruct, seg_nrrd
from medseg.io.case import Scan
from medseg.io.dicom_source import storage_class
from medseg.io.segments import Segmentation


@dataclass(frozen=True)
class Reader:
    """How a format is read: the names of all segments of a file, and their masks near the grid of a scan."""

    names: Callable[[Path], list[str]]
    read: Callable[[Path, Scan], Segmentation]


SEG_NRRD = Reader(seg_nrrd.names, seg_nrrd.read)

BY_STORAGE_CLASS = {
    "1.2.840.10008.5.1.4.1.1.66.4": Reader(dicom_seg.names, dicom_seg.read),  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7": Reader(dicom_seg.names, dicom_seg.read),  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.3": Reader(rtstruct.names, rtstruct.read),  # RT Structure Set
}
"""DICOM files are told by what they store, since their names tell nothing."""


def reader_of(path: Path) -> Reader | None:
    """Return how a file of named segments is read, None for all other files."""
    lower = path.name.lower()
    if lower.endswith(seg_nrrd.SUFFIX):
        return SEG_NRRD
    if lower.endswith((*nifti.SUFFIXES, *pictures.SUFFIXES)):
        return None
    return BY_STORAGE_CLASS.get(storage_class(path) or "")


def segment_names(path: Path) -> list[str]:
    """Return the names of the segments of a file in their order; none for a file that has values instead.

    Raises:
        MedsegError: it cannot be read.
    """
    reader = reader_of(path)
    return [] if reader is None else reader.names(path)


def read_segments(path: Path, like: Scan) -> Segmentation:
    """Read a file of named segments, which are those of a scan.

    Raises:
        MedsegError: it holds none, cannot be read, or belongs to something else.
    """
    reader = reader_of(path)
    if reader is None:
        raise MedsegError(f"{path}: no file of named segments.")
    return reader.read(path, like)
