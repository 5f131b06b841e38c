"""DICOM files at or below a folder: which of them form which image, told by their headers and not by their names.

An image of several files has the path of the folder that holds it and no other image. Where a folder holds several,
each has a path that no file has: the series' description in this folder, ``study/T1 MPRAGE.dicom``. An image of one
file has that file's own path.
"""

import logging
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError, nearest
from medseg.io.archives import archive_of, beginning, check_size, files_below, is_file, members, on_disk, opened

log = logging.getLogger(__name__)

NAMED = ".dicom"
"""Suffix of the path of one of several series in a folder."""

SUFFIXES = (".dcm", NAMED, ".ima", ".zip")

NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "ANN", "REG", "FID", "DOC")
"""Modalities of DICOM objects that refer to images, and are none that could be segmented."""

SEGMENTATIONS = ("SEG", "RTSTRUCT")
"""Those that say what is where in an image."""

LOCALIZER = re.compile(
    r"localizer|localiser|scout|topogram|surview|scanogram|\bloc\b|survey|3[ -]?plane", re.IGNORECASE
)
"""Words in the description of series that only show where others lie."""

SAME_DIRECTION = 1e-3  # of direction cosines, which differ by less within a series
SAME_PLACE = 0.01  # mm

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

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """What tells of a file which image it belongs to.

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
    passed: str = ""


@dataclass(frozen=True)
class Series:
    """An image: the path that names it, and its files."""

    path: Path
    files: tuple[Path, ...]


def find_series(files: Iterable[Path]) -> list[Series]:
    """Sort files, of which some are DICOM or zip archives with DICOM in them, into images, sorted by path.

    Localizers, and objects that are no images, are passed over with a word in the log, and so are pictures without a
    position in a folder with slices of the same study: screenshots and dose reports. A file that cannot be read is an
    image by itself, so that it is missed where all are read.

    Raises:
        MedsegError: there is DICOM, but pydicom is not installed.
    """
    there = [path for path in files if is_dicom(path)]
    found = sorted_into_images([path for path in there if path.suffix.lower() != ".zip"])
    for archive in (path for path in there if path.suffix.lower() == ".zip"):
        found += in_archive(archive)
    return sorted(found, key=lambda series: series.path)


def find_segmentations(files: Iterable[Path]) -> list[Path]:
    """Return those files that are DICOM SEG or RTSTRUCT; MedsegError as in ``find_series``."""
    there = (path for path in files if is_dicom(path) and path.suffix.lower() != ".zip")
    return sorted(path for path in there if header(path).passed in SEGMENTATIONS)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files, on the disk or in an archive, of the image that has this path; none where there is none.

    Raises:
        MedsegError: the folder or archive holds several images, of which it does not tell one.
    """
    if path.suffix.lower() != ".zip" and is_file(path):
        return (path,)
    found = _below(path) if path.is_dir() or archive_of(path) else []
    if not found and path.suffix == NAMED:
        found = [series for series in _below(path.parent) if series.path == path]
    if len(found) > 1:
        names = ", ".join(series.path.name for series in found[:10])
        raise MedsegError(f"{path}: it holds {len(found)} images: {names}. Name one, for example {found[0].path}.")
    return found[0].files if found else ()


def nearest_series(path: Path) -> str:
    """Return a hint at the image beside ``path`` whose name is closest, or an empty string."""
    return nearest(path.name, [series.path.name for series in _below(path.parent)]) if path.suffix == NAMED else ""


def is_dicom(path: Path) -> bool:
    """Tell DICOM by the letters that follow the preamble, or by the suffix where it has none; not an index of files."""
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
    library = pydicom()
    try:
        with opened(path) as file:
            dataset = library.dcmread(file, stop_before_pixels=True, force=True, specific_tags=TAGS)
        return described(path, dataset)
    except Exception as error:  # pydicom raises nearly anything on damaged files
        log.debug("%s: %s", path, error)
        return Header(path)


def described(path: Path, dataset: Any) -> Header:
    """Return what a file's data set says of the image it belongs to."""
    modality, description = str(dataset.get("Modality", "")), str(dataset.get("SeriesDescription") or "")
    kind, is_image = dataset.get("SOPClassUID"), "Rows" in dataset
    is_known = kind is not None and kind.name != str(kind)
    if not is_image and modality not in NO_IMAGES and (not is_known or "Image Storage" in kind.name):
        return Header(path)  # damaged: whoever reads it will say so
    passed = ""
    if not is_image or modality in NO_IMAGES:
        passed = modality or "unknown"
    elif "LOCALIZER" in listed(dataset.get("ImageType")) or LOCALIZER.search(description):
        passed = "localizer"
    frames = int(dataset.get("NumberOfFrames") or 1)
    return Header(
        path,
        study=str(dataset.get("StudyInstanceUID", "")),
        series=str(dataset.get("SeriesInstanceUID", "")),
        number=int(dataset.get("SeriesNumber") or 0),
        description=description,
        size=(int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0)),
        orientation=numbers_of(dataset, 0, "PlaneOrientationSequence", "ImageOrientationPatient")
        if frames == 1
        else (),
        position=numbers_of(dataset, 0, "PlanePositionSequence", "ImagePositionPatient") if frames == 1 else (),
        frames=frames,
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
    """Return the numbers of an attribute as in ``of_frame``, none where it is missing or empty."""
    return tuple(float(value) for value in listed(of_frame(dataset, number, sequence, keyword)))


def in_archive(archive: Path) -> list[Series]:
    """Return the images in an archive; its own path names the only one, and an archive that cannot be read."""
    try:
        if not any(is_dicom(path) for path in members(archive)):
            return []
        found = _below(archive)
    except MedsegError as error:
        log.debug("%s", error)  # raised again where the archive is read
        return [Series(archive, (archive,))]
    return [Series(archive, found[0].files)] if len(found) == 1 else found


def sorted_into_images(files: Sequence[Path]) -> list[Series]:
    """Sort DICOM files into images."""
    headers = [header(path) for path in files]
    tell_passed([each for each in headers if each.passed])
    slices = [each for each in headers if each.position and not each.passed]
    others = [each for each in headers if not each.position and not each.passed]
    beside = {(each.path.parent, each.study) for each in slices}
    is_picture = [
        each.frames == 1 and each.series != "" and (each.path.parent, each.study) in beside for each in others
    ]
    if any(is_picture):
        first = others[is_picture.index(True)].path
        log.info("passed over %d pictures beside slices of the same study, such as %s", sum(is_picture), first)
    alone = [[each] for each, passed in zip(others, is_picture, strict=True) if not passed]
    return named(alone + stacks(slices))


def tell_passed(headers: Sequence[Header]) -> None:
    """Log what is passed over, and why."""
    for reason, count in Counter(each.passed for each in headers).items():
        first = next(each.path for each in headers if each.passed == reason)
        log.info("passed over %d DICOM files of the kind %s, such as %s", count, reason, first)


def stacks(slices: Iterable[Header]) -> list[list[Header]]:
    """Put slices of one series, size and orientation together."""
    found: dict[tuple[str, tuple[int, int]], list[list[Header]]] = defaultdict(list)
    for one in slices:
        alike = found[one.series, one.size]
        fitting = next((group for group in alike if same_direction(group[0], one)), None)
        if fitting is None:
            alike.append([one])
        else:
            fitting.append(one)
    return [part for alike in found.values() for group in alike for part in by_folder(group)]


def same_direction(one: Header, other: Header) -> bool:
    """Tell whether slices are parallel and turned alike."""
    pairs = zip(one.orientation, other.orientation, strict=False)
    return len(one.orientation) == len(other.orientation) and all(abs(a - b) < SAME_DIRECTION for a, b in pairs)


def by_folder(group: list[Header]) -> list[list[Header]]:
    """Part a series by folders where two of them hold the same place: these are copies, or patients made anonymous."""
    folders: dict[Path, list[Header]] = defaultdict(list)
    for one in group:
        folders[one.path.parent].append(one)
    places = Counter(
        place
        for several in folders.values()
        for place in {tuple(round(value / SAME_PLACE) for value in one.position) for one in several}
    )
    return [group] if len(folders) == 1 or max(places.values()) == 1 else list(folders.values())


def named(groups: Sequence[list[Header]]) -> list[Series]:
    """Give each image its path."""
    folders = [Path(os.path.commonpath({one.path.parent for one in group})) for group in groups]
    below: Counter[Path] = Counter()
    for folder in folders:
        below.update([folder, *folder.parents])
    found, several = [], defaultdict(list)
    for group, folder in zip(groups, folders, strict=True):
        files = tuple(sorted(one.path for one in group))
        if len(files) == 1 or below[folder] == 1:
            found.append(Series(files[0] if len(files) == 1 else folder, files))
        else:
            several[folder].append(group)
    return found + [series for folder, parts in several.items() for series in with_descriptions(folder, parts)]


def with_descriptions(folder: Path, groups: Sequence[list[Header]]) -> list[Series]:
    """Name the series of one folder by their descriptions, with the number where these are equal, or else counted."""
    groups = sorted(groups, key=lambda group: (group[0].number, group[0].series, min(one.path for one in group)))
    names = [plain_name(group[0].description) or f"series {group[0].number}" for group in groups]
    for more in ("number", "place"):
        taken = Counter(names)
        names = [
            f"{name} ({group[0].number if more == 'number' else place})" if taken[name] > 1 else name
            for place, (name, group) in enumerate(zip(names, groups, strict=True), 1)
        ]
    return [
        Series(folder / f"{name}{NAMED}", tuple(sorted(one.path for one in group)))
        for name, group in zip(names, groups, strict=True)
    ]


def plain_name(text: str) -> str:
    """Return a description as it may stand in a file name.

    >>> plain_name("AX T1/T2 *fs* +C "), plain_name("Schädel, 1.5 mm")
    ('AX T1_T2 _fs_ +C', 'Schädel, 1.5 mm')
    """
    return re.sub(r"[^\w.,()+= -]", "_", text).strip(" .")


def _below(place: Path) -> list[Series]:
    if archive := archive_of(place):
        members(archive)  # is it one?
        check_size(archive)
    return sorted_into_images([path for path in files_below(place) if is_dicom(path) and path.suffix.lower() != ".zip"])


def listed(value: Any) -> list[Any]:
    """Return the values of an attribute, which has none, one or several."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)
