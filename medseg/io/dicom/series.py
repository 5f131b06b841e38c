"""DICOM files at or below a folder: which of them form which image, by their headers and not by their names.

An image of several files has the path of the folder that holds it and no other image. Where a folder holds several,
each has a path that no file has: the series' description in this folder, ``study/T1 MPRAGE.dicom``. An image of one
file has that file's own path. ``medseg.io.dicom.image`` sorts the slices of an image and reads them.
"""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.errors import MedsegError, nearest
from medseg.io.dicom.headers import SEGMENTATIONS, Header, header, is_dicom
from medseg.io.formats.archives import archive_of, check_size, files_below, is_file, members
from medseg.system.file_names import file_name

log = logging.getLogger(__name__)

NAMED = ".dicom"
"""Suffix of the path of one of several series in a folder."""

SAME_DIRECTION = 1e-3  # of direction cosines, which differ by less within a series
SAME_PLACE = 0.01  # mm


@dataclass(frozen=True)
class Series:
    """An image: the path that names it, and its files."""

    path: Path
    files: tuple[Path, ...]


def find_series(files: Iterable[Path]) -> list[Series]:
    """Sort files, of which some are DICOM or zip archives with DICOM in them, into images, sorted by path.

    Localizers, and objects that are no images, are skipped with a line in the log, and so are 2D images without a
    position in a folder with slices of the same study: screenshots and dose reports. A file that cannot be read is an
    image by itself, so that it is missed where all are read.

    Raises:
        MedsegError: there is DICOM, but pydicom is not installed.
    """
    there = [path for path in files if is_dicom(path)]
    headers = headers_of(path for path in there if path.suffix.lower() != ".zip")
    skipped = [each for each in headers if each.passed]
    for reason, count in Counter(each.passed for each in skipped).items():
        first = next(each.path for each in skipped if each.passed == reason)
        log.info("skipped %d DICOM files (%s), such as %s", count, reason, first)
    images = sorted_into_images(headers)
    for archive in (path for path in there if path.suffix.lower() == ".zip"):
        images += in_archive(archive)
    return sorted(images, key=lambda series: series.path)


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
    images = _below(path) if path.is_dir() or archive_of(path) else []
    if not images and path.suffix == NAMED:
        images = [series for series in _below(path.parent) if series.path == path]
    if len(images) > 1:
        names = ", ".join(series.path.name for series in images[:10])
        raise MedsegError(f"{path}: it holds {len(images)} images: {names}. Name one, for example {images[0].path}.")
    return images[0].files if images else ()


def nearest_series(path: Path) -> str:
    """Return a hint at the image beside ``path`` whose name is closest, or an empty string."""
    return nearest(path.name, [series.path.name for series in _below(path.parent)]) if path.suffix == NAMED else ""


def in_archive(archive: Path) -> list[Series]:
    """Return the images in an archive; its own path names the only one, and an archive that cannot be read."""
    try:
        if not any(is_dicom(path) for path in members(archive)):
            return []
        images = _below(archive)
    except MedsegError as error:
        log.debug("%s", error)  # raised again where the archive is read
        return [Series(archive, (archive,))]
    return [Series(archive, images[0].files)] if len(images) == 1 else images


def headers_of(files: Iterable[Path]) -> list[Header]:
    """Return the headers of DICOM files, of which 2D images beside slices of their study are to be skipped."""
    headers = [header(path) for path in files]
    studies = {(each.path.parent, each.study) for each in headers if each.position and not each.passed}
    for index, each in enumerate(headers):
        # a single frame without a position, in the folder of slices of its study, is a screenshot or a dose report
        is_picture = not each.position and each.frames == 1 and each.series != ""
        if is_picture and (each.path.parent, each.study) in studies and not each.passed:
            headers[index] = replace(each, passed="picture beside slices")
    return headers


def sorted_into_images(headers: Iterable[Header]) -> list[Series]:
    """Put the files of each image together and give it its path."""
    images = [each for each in headers if not each.passed]
    return named([[each] for each in images if not each.position] + stacks(each for each in images if each.position))


def stacks(slices: Iterable[Header]) -> list[list[Header]]:
    """Put slices of one series, size and orientation together."""
    groups_of: dict[tuple[str, tuple[int, int]], list[list[Header]]] = defaultdict(list)
    for one in slices:
        for group in groups_of[one.series, one.size]:
            pairs = [*zip(group[0].orientation, one.orientation, strict=False)]
            is_same_length = len(group[0].orientation) == len(one.orientation)
            if is_same_length and all(abs(a - b) < SAME_DIRECTION for a, b in pairs):
                group.append(one)
                break
        else:
            groups_of[one.series, one.size].append([one])
    return [part for groups in groups_of.values() for group in groups for part in by_folder(group)]


def by_folder(group: list[Header]) -> list[list[Header]]:
    """Split a series by folders where two of them hold the same position: copies, or patients made anonymous."""
    folders: dict[Path, list[Header]] = defaultdict(list)
    for one in group:
        folders[one.path.parent].append(one)
    positions = Counter(
        position
        for several in folders.values()
        for position in {tuple(round(value / SAME_PLACE) for value in one.position) for one in several}
    )
    return [group] if len(folders) == 1 or max(positions.values()) == 1 else list(folders.values())


def named(groups: Sequence[list[Header]]) -> list[Series]:
    """Give each image its path."""
    folders = [Path(os.path.commonpath({one.path.parent for one in group})) for group in groups]
    below: Counter[Path] = Counter()
    for folder in folders:
        below.update([folder, *folder.parents])
    series, several = [], defaultdict(list)
    for group, folder in zip(groups, folders, strict=True):
        files = tuple(sorted(one.path for one in group))
        if len(files) == 1 or below[folder] == 1:
            series.append(Series(files[0] if len(files) == 1 else folder, files))
        else:
            several[folder].append(group)
    return series + [one for folder, parts in several.items() for one in with_descriptions(folder, parts)]


def with_descriptions(folder: Path, groups: Sequence[list[Header]]) -> list[Series]:
    """Name the series of one folder by their descriptions, with the number where these are equal, or else counted."""
    groups = sorted(groups, key=lambda group: (group[0].number, group[0].series, min(one.path for one in group)))
    names = [plain_name(group[0].description) or f"series {group[0].number}" for group in groups]
    for more in ("number", "position"):
        taken = Counter(map(str.casefold, names))
        names = [
            f"{name} ({group[0].number if more == 'number' else position})" if taken[name.casefold()] > 1 else name
            for position, (name, group) in enumerate(zip(names, groups, strict=True), 1)
        ]
    return [
        Series(folder / f"{name}{NAMED}", tuple(sorted(one.path for one in group)))
        for name, group in zip(names, groups, strict=True)
    ]


def plain_name(text: str) -> str:
    """Return a description as it may stand in a file name, empty where nothing is left of it.

    >>> plain_name("AX T1/T2 *fs* +C "), plain_name("Schädel, 1.5 mm")
    ('AX T1_T2 _fs_ +C', 'Schädel, 1.5 mm')
    """
    plain = re.sub(r"[^\w.,()+= -]", "_", text).strip(" .")
    return file_name(plain) if plain else ""


def _below(folder: Path) -> list[Series]:
    files = [path for path in files_below(folder) if path.suffix.lower() != ".zip"]
    if archive := archive_of(folder):
        check_size(archive)
    return sorted_into_images(headers_of(path for path in files if is_dicom(path)))
