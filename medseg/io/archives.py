"""Files in folders and in zip archives alike: a file in an archive has the path ``scan.zip/inner/IM0001``.

Archives are read in memory, one file at a time; nothing is unpacked onto the disk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile, ZipInfo

from medseg.errors import MedsegError

MOST_BYTES, MOST_RATIO, HARMLESS = 32 << 30, 200, 256 << 20
"""What an archive may unpack to: bytes in all, and times its size where that is not harmless. Scans are packed to a
half, empty ones to a 100th."""

DAMAGE = (OSError, BadZipFile, RuntimeError, NotImplementedError, EOFError, KeyError, ValueError)
"""What ``zipfile`` raises on archives that are damaged, encrypted or packed in a way that Python does not know."""


def archive_of(path: Path) -> Path | None:
    """Return the archive that a path is of or leads into, None for one on the disk."""
    return next((place for place in (path, *path.parents) if place.suffix.lower() == ".zip" and place.is_file()), None)


def on_disk(path: Path) -> Path:
    """Return the file on the disk that holds a file."""
    return archive_of(path) or path


def is_file(path: Path) -> bool:
    """Tell whether there is a file, on the disk or in an archive."""
    archive = archive_of(path)
    return path.is_file() if archive is None else path == archive or path in members(archive)


def files_below(place: Path) -> list[Path]:
    """Return the visible files below a folder, in an archive, or below a folder in one, sorted; none if it is neither.

    Raises:
        MedsegError: the archive is damaged, encrypted or unpacks to too much.
    """
    archive = archive_of(place)
    if archive is not None:
        return [path for path in members(archive) if path.is_relative_to(place) and path != place]
    return sorted(path for path in place.rglob("*") if is_visible(path, place) and path.is_file())


def members(archive: Path) -> list[Path]:
    """Return the visible files in an archive, sorted; errors as in ``files_below``."""
    try:
        with ZipFile(archive) as zipped:
            entries = [entry for entry in zipped.infolist() if not entry.is_dir()]
    except DAMAGE as error:
        raise MedsegError(f"{archive}: no readable zip file; damaged or truncated? {error}") from error
    check_entries(archive, entries)
    paths = [archive / entry.filename for entry in entries]
    return sorted(path for path in paths if is_visible(path, archive) and ".." not in path.parts)


def check_entries(archive: Path, entries: list[ZipInfo]) -> None:
    """Refuse an archive that is encrypted, or unpacks to more than scans do, as bombs are made to."""
    if any(entry.flag_bits & 1 for entry in entries):
        raise MedsegError(f"{archive}: the zip file is encrypted. Unpack it with its password first.")
    total, packed = sum(entry.file_size for entry in entries), archive.stat().st_size
    if total > min(MOST_BYTES, max(MOST_RATIO * packed, HARMLESS)):
        raise MedsegError(
            f"{archive}: {packed} bytes unpack to {total}; allowed are {MOST_RATIO} times its size, and"
            f" {MOST_BYTES >> 30} GiB. Is this a scan? Then unpack it first."
        )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file on the disk or in an archive, for reading bytes."""
    archive = archive_of(path)
    if archive is None or archive == path:
        with path.open("rb") as file:
            yield file
        return
    with ZipFile(archive) as zipped:
        content = zipped.read(path.relative_to(archive).as_posix())  # checks its checksum
    yield BytesIO(content)


def is_visible(path: Path, root: Path) -> bool:
    """Tell whether neither a file nor a folder above it, up to ``root``, is hidden."""
    return not any(part.startswith(".") for part in path.relative_to(root).parts)
