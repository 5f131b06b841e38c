"""Files of named segments, whatever the format: which files these are, the segments' names and masks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.damage import reading
from medseg.io.dicom import rtstruct, seg
from medseg.io.dicom.headers import header, is_dicom
from medseg.io.files.read import FILES, suffix
from medseg.io.formats.itk import SEGMENTATION
from medseg.io.segments import seg_nrrd
from medseg.io.segments.segmentation import Segment, Segmentation


@dataclass(frozen=True)
class Reader:
    """How a format is read: the names of all segments of a file, and their masks near the grid of a scan.

    ``kind`` names it in messages.
    """

    kind: str
    names: Callable[[Path], list[str]]
    read: Callable[[Path, Scan], Segmentation]


SEG_NRRD = Reader("NRRD file", seg_nrrd.names, seg_nrrd.read)

BY_MODALITY = {
    "SEG": Reader("DICOM segmentation", seg.names, seg.read),
    "RTSTRUCT": Reader("DICOM structure set", rtstruct.names, rtstruct.read),
}
"""DICOM files are recognised by their content, since their names may be anything."""


def reader_of(path: Path) -> Reader | None:
    """Return how a file of named segments is read, None for all other files."""
    if suffix(path) == SEGMENTATION:
        return SEG_NRRD
    if suffix(path) in FILES or not path.is_file() or not is_dicom(path):
        return None
    return BY_MODALITY.get(header(path).passed)


def segment_names(path: Path) -> list[str]:
    """Return the names of the segments of a file in their order; none for a file that has values instead.

    Raises:
        MedsegError: it cannot be read.
    """
    reader = reader_of(path)
    if reader is None:
        return []
    with reading(path, reader.kind):
        return reader.names(path)


def read_segments(path: Path, like: Scan) -> Segmentation:
    """Read a file of named segments, which are those of a scan.

    Raises:
        MedsegError: it is none, cannot be read, or belongs to something else.
    """
    reader = reader_of(path)
    if reader is None:
        raise MedsegError(f"{path}: no file of named segments.")
    with reading(path, reader.kind):
        segmentation = reader.read(path, like)
    return replace(segmentation, segments=_each(path, reader, segmentation.segments))


def _each(path: Path, reader: Reader, segments: Iterable[Segment]) -> Iterator[Segment]:
    """Yield segments, which are read only now; errors as in ``read_segments``."""
    with reading(path, reader.kind):
        yield from segments
