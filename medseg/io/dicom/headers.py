"""DICOM files one by one: which files are DICOM, and which image they belong to by their headers."""

import logging
import math
import re
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from medseg.errors import MedsegError
from medseg.io.formats.archives import HARMLESS, MOST_RATIO, beginning, file_length, on_disk, opened
from medseg.system.memory import is_out_of_memory

log = logging.getLogger(__name__)

SUFFIXES = (".dcm", ".dicom", ".ima", ".zip")
"""Names that DICOM files may have. Many have none, or numbers; archives are looked into."""

NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "ANN", "REG", "FID", "DOC")
"""Modalities of DICOM objects that refer to images, and are none that could be segmented."""

SEGMENTATIONS = ("SEG", "RTSTRUCT")
"""Those that say what is where in an image."""

LOCALIZER = re.compile(
    r"localizer|localiser|scout|topogram|surview|scanogram|\bloc\b|survey|3[ -]?plane", re.IGNORECASE
)
"""Words in the description of series that only show where others lie."""

TAGS = [
    "SOPClassUID",
    "Modality",
    "ImageType",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]

FIRST_GROUPS = (b"\x08\0", b"\0\x08", b"\x02\0", b"\0\x02")
"""Group numbers that a file without preamble begins with, in either byte order."""

DEFLATED = b"1.2.840.10008.1.2.1.99"
"""The transfer syntax of files whose whole data set is packed."""

META, LONG = b"\x02\0", (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""The group of the file meta information, and the value representations whose lengths take four bytes."""

BEGINNING, PIECE = 2048, 1 << 18  # bytes

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """The attributes of a file that decide which image it belongs to.

    ``orientation`` (6) and ``position`` (3) are those of a single slice, empty where there is none or are several.
    ``passed`` says why the file belongs to no image, and is empty otherwise.
    """

    path: Path
    study: str = ""
    series: str = ""
    number: int = 0
    description: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: Vector = ()
    position: Vector = ()
    frames: int = 1
    modality: str = ""
    passed: str = ""


def is_dicom(path: Path) -> bool:
    """Recognise DICOM by the letters after the preamble, or by the suffix where it has none; not an index of files."""
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        return beginning(path, 132)[128:] == b"DICM"
    except OSError:
        return False


def pydicom() -> Any:
    """Import pydicom, which takes headers with small faults as they are, and does not warn of them.

    Raises:
        MedsegError: it is not installed.
    """
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise MedsegError("reading DICOM takes more packages: pip install 'medseg[dicom]'") from error
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    return pydicom


def header(path: Path) -> Header:
    """Return the header of a file, read once until the file changes."""
    status = on_disk(path).stat()
    return _header(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=200_000)
def _header(path: Path, size: int, changed: int) -> Header:
    pydicom()  # an error where it is not installed
    try:
        return described(path, read_dataset(path, stop_before_pixels=True, specific_tags=TAGS))
    except Exception as error:  # pydicom raises nearly anything on damaged files
        if is_out_of_memory(error):
            raise
        log.debug("%s: %s", path, error)
        return Header(path)


def read_dataset(path: Path, **options: Any) -> Any:
    """Read the data set of a file on the disk or in an archive, with pydicom's ``options``.

    Raises:
        ValueError: it is no DICOM file, or a deflated one that unpacks to more than scans do.
        Exception: whatever pydicom raises on damaged files.
    """
    library = pydicom()
    with opened(path) as file:
        start = file.read(BEGINNING)
        if start[128:132] != b"DICM" and start[:2] not in FIRST_GROUPS:  # pydicom would read anything
            raise ValueError(f"it begins with {start[:8].hex(' ')}, and not as DICOM does")
        if DEFLATED in start or not _ends_in(start):
            _check_deflated(file, file_length(path))
        file.seek(0)
        return library.dcmread(file, force=True, **options)


def _ends_in(start: bytes) -> bool:
    """Return whether the file meta information, which names the transfer syntax, ends in the beginning of a file.

    It may hold any text before that name, in elements of 64 kB. False, too, where they have no value representations.
    """
    at = 132 if start[128:132] == b"DICM" else 0
    while start[at : at + 2] == META:
        kind = start[at + 4 : at + 6]
        if not (kind.isalpha() and kind.isupper()):
            return False
        is_long = kind in LONG
        value = at + (12 if is_long else 8)
        at = value + int.from_bytes(start[value - (4 if is_long else 2) : value], "little")
    return at + 2 <= len(start) or len(start) < BEGINNING


def _check_deflated(file: BinaryIO, size: int) -> None:
    """Reject a deflated file that unpacks to more than ``archives`` lets zip files unpack to; ValueError."""
    reader = pydicom().filereader
    file.seek(0)
    reader.read_preamble(file, force=True)
    if reader._read_file_meta_info(file).get("TransferSyntaxUID") != DEFLATED.decode():
        return
    unpacker, unpacked, packed = zlib.decompressobj(-zlib.MAX_WBITS), 0, b""
    while not unpacker.eof and (packed or (packed := file.read(PIECE))):
        unpacked += len(unpacker.decompress(packed, PIECE))
        packed = unpacker.unconsumed_tail
        if unpacked > max(MOST_RATIO * size, HARMLESS):
            raise ValueError(f"{size} deflated bytes unpack to more than {unpacked}")


def described(path: Path, dataset: Any) -> Header:
    """Return what a file's data set says of the image it belongs to."""
    modality, description = str(dataset.get("Modality", "")), str(dataset.get("SeriesDescription") or "")
    kind, is_image = dataset.get("SOPClassUID"), "Rows" in dataset
    class_name = getattr(kind, "name", "")  # of a class that is not known the UID
    if not is_image and modality not in NO_IMAGES and (class_name in ("", kind) or "Image Storage" in class_name):
        return Header(path)  # damaged: whoever reads it will say so
    passed = ""
    if not is_image or modality in NO_IMAGES:
        passed = modality or "unknown"
    elif "LOCALIZER" in listed(dataset.get("ImageType")) or LOCALIZER.search(description):
        passed = "localizer"
    frames = int(dataset.get("NumberOfFrames") or 1)
    single: Any = dataset if frames == 1 else {}
    return Header(
        path,
        study=str(dataset.get("StudyInstanceUID", "")),
        series=str(dataset.get("SeriesInstanceUID", "")),
        number=int(next(iter(readable_numbers_of(dataset, 0, "", "SeriesNumber")), 0)),
        description=description,
        size=(int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0)),
        orientation=numbers_of(single, 0, "PlaneOrientationSequence", "ImageOrientationPatient"),
        position=numbers_of(single, 0, "PlanePositionSequence", "ImagePositionPatient"),
        frames=frames,
        modality=modality,
        passed=passed,
    )


def of_frame(dataset: Any, number: int, sequence: str, keyword: str) -> Any:
    """Return an attribute of frame ``number`` (from 0): its own, else that of all frames, else the file's, or None.

    ``sequence`` is the functional group that holds it in multi-frame objects (PS3.3, C.7.6.16), "" for none.
    """
    own, shared = (dataset.get(f"{kind}FunctionalGroupsSequence") for kind in ("PerFrame", "Shared"))
    groups = [own[number]] if own and number < len(own) else []
    for group in [*groups, *(shared or [])]:
        items = group.get(sequence) if sequence else None
        if items and keyword in items[0]:
            return items[0].get(keyword)
    return dataset.get(keyword)


def numbers_of(dataset: Any, number: int, sequence: str, keyword: str) -> Vector:
    """Return the numbers of an attribute as in ``of_frame``, none where it is missing or empty.

    Raises:
        ValueError: one is no finite number.
    """
    numbers = tuple(float(value) for value in listed(of_frame(dataset, number, sequence, keyword)))
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{keyword} is {numbers}")
    return numbers


def readable_numbers_of(dataset: Any, number: int, sequence: str, keyword: str) -> Vector:
    """Return numbers as ``numbers_of``, none where they cannot be read: for attributes that only describe an image."""
    try:
        return numbers_of(dataset, number, sequence, keyword)
    except (ValueError, TypeError, OverflowError):
        return ()


def listed(value: Any) -> list[Any]:
    """Return the values of an attribute, which has none, one or several."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)
