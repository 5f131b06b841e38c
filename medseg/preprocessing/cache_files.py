"""Where the files of the cache lie and what their names mean; free of PyTorch, so that ``medseg cache`` is quick.

    <cache_dir>/v<format>/<name of the data set>/<key>.case.pt          a preprocessed case
                                                 <key>.fingerprint.pt   the fingerprint of a case

A key is 32 hexadecimal digits, a hash of all that the file depends on. Nothing else is ever taken for a file of the
cache: files of formats before 4, ``<cache_dir>/<key>.pt``, and what killed runs leave, whose names begin with a dot.
"""

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.system.file_names import file_name
from medseg.system.files import is_left_over, remove_leftovers
from medseg.system.locks import open_locked

FORMAT = 7
IN_USE = ".lock"
"""The file in a data set's folder that jobs share a lock of while they use what is in it."""

NAME = re.compile(r"(?P<temporary>\.[0-9a-f]{8}-)?[0-9a-f]{32}(\.(?P<kind>case|fingerprint))?\.pt")


@dataclass(frozen=True)
class CacheFile:
    """A file of the cache: its data set and format ("" and 0 where those of old formats lie), size and age."""

    path: Path
    dataset: str
    format: int
    is_case: bool
    is_temporary: bool
    bytes: int
    used: float

    @property
    def days(self) -> float:
        """Days since it was last used."""
        return (time.time() - self.used) / (24 * 3600)

    @property
    def is_outdated(self) -> bool:
        """Whether no run will use it again: of another format, or left by a run that was killed."""
        return is_left_over(self.path) if self.is_temporary else self.format != FORMAT


def dataset_folder(cache_dir: Path, dataset: str) -> Path:
    """Return where the files of a data set lie in this format."""
    return cache_dir / f"v{FORMAT}" / file_name(str(dataset))


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep ``medseg cache`` from removing files in a data set's folder while the block runs; any number of jobs may.

    What killed jobs left half-written in the folder is removed first.
    """
    lock: AbstractContextManager[Any] = nullcontext()
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = open_locked(folder / IN_USE, shared=True)
        except FileNotFoundError:  # the folder has just been removed, since it was empty
            continue
        except OSError:  # no locks, or somebody else's folder; what writes to it says what is wrong
            pass
        break
    with lock:
        remove_leftovers(folder)
        yield


@contextmanager
def out_of_use(folder: Path) -> Iterator[bool]:
    """Return whether no job uses a folder of the cache, and make jobs wait that begin to while the block runs."""
    try:
        file = open_locked(folder / IN_USE, wait=False)
    except BlockingIOError:
        yield False
    except OSError:  # no locks, or a folder that cannot be written
        yield True
    else:
        with file:
            yield True
            (folder / IN_USE).unlink(missing_ok=True)


def cache_files(cache_dir: Path) -> Iterator[CacheFile]:
    """Yield every file of the cache, of any format; what is not one of ours is skipped, as are links."""
    for folder in [cache_dir, *sorted(cache_dir.glob("v*"))]:
        version = re.fullmatch(r"v(\d+)", folder.name) if folder != cache_dir else None
        if folder.is_symlink() or (folder != cache_dir and not version):
            continue
        for path in sorted(folder.rglob("*.pt") if version else folder.glob("*.pt")):
            name = NAME.fullmatch(path.name)
            if not name or path.is_symlink() or bool(version) != bool(name["kind"]):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # another has been quicker
                continue
            dataset = path.parent.relative_to(folder).as_posix() if version else ""
            yield CacheFile(
                path=path,
                dataset=dataset,
                format=int(version[1]) if version else 0,
                is_case=name["kind"] != "fingerprint",
                is_temporary=bool(name["temporary"]),
                bytes=status.st_size,
                used=status.st_mtime,
            )
