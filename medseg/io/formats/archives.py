"""Files in folders and in zip archives alike: a file in an archive has the path ``scan.zip/inner/IM0001``.

Archives are read in memory, one file at a time; nothing is unpacked onto the disk.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader, BytesIO
from os import fstat
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

from medseg.errors import MedsegError

MOST_BYTES, MOST_RATIO, HARMLESS = 32 << 30, 200, 256 << 20
"""What an archive may unpack to: bytes in all, and times its size where that is not harmless. Scans are packed to a
half, empty ones to a 100th."""

HARMLESS_READ = 1 << 20
"""Bytes that may be asked for without a look at a file's length."""

DAMAGE = (OSError, BadZipFile, RuntimeError, NotImplementedError, EOFError, LookupError, ValueError, zlib.error)
"""What ``zipfile`` raises on archives that are damaged, encrypted or packed in a way that Python does not know."""


def archive_of(path: Path) -> Path | None:
    """Return the archive that a path is of or leads into, None for one on the disk."""
    return next((each for each in (path, *path.parents) if each.suffix.lower() == ".zip" and each.is_file()), None)


def on_disk(path: Path) -> Path:
    """Return the file on the disk that holds a file."""
    return archive_of(path) or path


def is_file(path: Path) -> bool:
    """Return whether there is a file, on the disk or in an archive."""
    archive = archive_of(path)
    return path.is_file() if archive is None else path == archive or path in members(archive)


def file_length(path: Path) -> int:
    """Return how many bytes a file has, on the disk or unpacked from its archive."""
    archive = archive_of(path)
    if archive is None or archive == path:
        return path.stat().st_size
    return unzipped(archive).getinfo(path.relative_to(archive).as_posix()).file_size


def files_below(folder: Path) -> list[Path]:
    """Return the visible files below a folder, in an archive, or below a folder in one, sorted; none if it is neither.

    Raises:
        MedsegError: the archive is damaged or encrypted.
    """
    archive = archive_of(folder)
    if archive is not None:
        return [path for path in members(archive) if path.is_relative_to(folder) and path != folder]
    return sorted(path for path in folder.rglob("*") if is_visible(path, folder) and path.is_file())


def members(archive: Path) -> list[Path]:
    """Return the visible files in an archive, sorted, but those whose names lead out of it; errors as above."""
    try:
        entries = [entry for entry in unzipped(archive).infolist() if entry.filename and not entry.is_dir()]
    except DAMAGE as error:
        raise MedsegError(f"{archive}: no readable zip file; damaged or truncated? {error}") from error
    if any(entry.flag_bits & 1 for entry in entries):
        raise MedsegError(f"{archive}: the zip file is encrypted. Unpack it with its password first.")
    names = [entry.filename for entry in entries]
    paths = [archive / name for name in names if not name.startswith("/") and ".." not in name.split("/")]
    return sorted(path for path in paths if is_visible(path, archive))


def check_size(archive: Path) -> None:
    """Reject an archive that unpacks to more than scans do, as bombs are made to; MedsegError."""
    total, packed = sum(entry.file_size for entry in unzipped(archive).infolist()), archive.stat().st_size
    if total > min(MOST_BYTES, max(MOST_RATIO * packed, HARMLESS)):
        raise MedsegError(
            f"{archive}: {packed} bytes unpack to {total}; allowed are {MOST_RATIO} times its size, and"
            f" {MOST_BYTES >> 30} GiB. Is this a scan? Then unpack it first."
        )


class BoundedReader(BufferedReader):
    """Reads from a file, and allocates no more than it holds: Python's own allocates first what a damaged file asks."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes, or as many as there are."""
        if size is not None and size > HARMLESS_READ:
            size = max(0, min(size, fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file on the disk or in an archive, for reading bytes; OSError where it is damaged, too."""
    archive = archive_of(path)
    if archive is None or archive == path:
        with path.open("rb", buffering=0) as raw, BoundedReader(raw) as file:
            yield file
        return
    try:
        content = unzipped(archive).read(path.relative_to(archive).as_posix())  # checks its checksum
    except DAMAGE as error:
        raise OSError(f"{archive}: {error}") from error
    yield BytesIO(content)


def beginning(path: Path, count: int) -> bytes:
    """Return the first bytes of a file on the disk or in an archive; OSError as in ``opened``."""
    archive = archive_of(path)
    try:
        with (
            path.open("rb") if archive is None else unzipped(archive).open(path.relative_to(archive).as_posix()) as file
        ):
            return file.read(count)
    except DAMAGE as error:
        raise OSError(f"{path}: {error}") from error


def unzipped(archive: Path) -> ZipFile:
    """Return an open archive, which several threads may read at a time; its list of files is read but once."""
    status = archive.stat()
    return _unzipped(archive, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _unzipped(archive: Path, size: int, changed: int) -> ZipFile:
    opened_archive = ZipFile(archive)
    if any(entry.compress_size > size for entry in opened_archive.infolist()):
        opened_archive.close()
        raise BadZipFile("a member has more bytes than the file")  # zipfile would allocate what a member claims
    return opened_archive


def is_visible(path: Path, root: Path) -> bool:
    """Return whether neither a file nor a folder above it, up to ``root``, is hidden."""
    return not any(part.startswith(".") for part in path.relative_to(root).parts)
