"""Hashes of the files of a data set, kept in the cache, so that files that have not changed are not read again.

A file is taken to be unchanged while its size, its inode and its times, of change of the content and of the inode, are
those of when it was read. Of these the time of the inode's change cannot be set, so that a file is noticed, too, that
another of equal size and time was copied over. ``dataset.verify=true`` asks for all files to be read again.

A clock goes on in ticks, of two seconds at most (FAT). A file that changed within the tick that it is read in could
change once more without its times telling, so its hash counts for this once only, as in git ("racy" entries).
"""

import json
import logging
import os
import threading
import time
from functools import cache
from pathlib import Path

from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.system.files import file_hash, write_text

log = logging.getLogger(__name__)

NAME = "hashes.json"
"""In the data set's folder of the cache: by path the numbers of ``file_state`` and the hash."""
TICK = 2_000_000_000
"""Nanoseconds within which two changes of a file may have the same time."""
INTERVAL = 60.0
"""Seconds of hashing after which what is known is written: 100 GB take minutes, and a job may be killed."""

State = tuple[int, int, int, int]


def file_state(file: Path) -> State:
    """Return what tells whether a file has changed: size, inode, and both times of change in ns."""
    status = file.stat()
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


class FileHashes:
    """The SHA-256 of files, each read once as long as it stays the same; used by several threads.

    Several jobs may use the same file of hashes: it is replaced as a whole, with what others have added since it was
    read. What two write at the same moment may be lost, and is hashed again then.

    Args:
        path: where they are kept; None: in this process alone.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.own: dict[str, tuple[State, str]] = {}  # of files that this process has asked for
        self.kept: dict[str, tuple[State, str]] | None = None  # read at the first question
        self.is_verifying = False
        self.n_new = 0
        self.saved_at = time.monotonic()
        self.lock = threading.Lock()

    def verify(self) -> None:
        """Read each file anew when it is asked for next, whatever is known of it."""
        self.own, self.kept, self.is_verifying = {}, None, True

    def of(self, file: Path) -> str:
        """Return the hash of a file's bytes in hexadecimal digits.

        Raises:
            OSError: the file cannot be read.
        """
        with self.lock:
            if self.kept is None:
                self.kept = self.read()
        name, state, now = str(file.absolute()), file_state(file), time.time_ns()
        own, before = self.own.get(name), self.kept.get(name)
        known = own or (None if self.is_verifying else before)
        if known and known[0] == state:
            self.own[name] = known
            return known[1]
        code = file_hash(file)
        if self.is_verifying and before and before[0] == state and before[1] != code:
            log.warning("%s: its bytes have changed, though size and times have not; is the disk sound?", file)
        if max(state[2:]) < now - TICK and file_state(file) == state:
            self.own[name] = (state, code)
            self.n_new += 1
            if time.monotonic() - self.saved_at > INTERVAL:
                self.save()
        return code

    def save(self) -> None:
        """Write what is known, if anything is new, without the files that are gone.

        Gone are those that lie in the folder of all files that were asked for, and are not there. Others may be of a
        machine that has the data elsewhere.
        """
        if not self.path or not self.n_new:
            return
        with self.lock:
            own, self.n_new, self.saved_at = dict(self.own), 0, time.monotonic()
            folder = Path(os.path.commonpath({Path(name).parent for name in own}))
            kept = {
                name: entry
                for name, entry in self.read().items()
                if folder not in Path(name).parents or Path(name).exists()
            }
            content = {name: [*state, code] for name, (state, code) in (kept | own).items()}
            try:
                write_text(self.path, json.dumps({"format": 1, "files": content}))
            except MedsegError as error:  # somebody else's cache may be read all the same
                log.warning("the files are hashed again next time: %s", error)

    def read(self) -> dict[str, tuple[State, str]]:
        """Return what the file of hashes holds; a damaged one is logged, and written anew."""
        if not self.path or not self.path.is_file():
            return {}
        try:
            files = read_json_object(self.path)["files"]
            return {name: ((int(a), int(b), int(c), int(d)), str(code)) for name, (a, b, c, d, code) in files.items()}
        except (MedsegError, LookupError, TypeError, ValueError, AttributeError):
            log.warning("%s: these hashes of files are damaged; the files are read again", self.path)
            return {}


@cache
def hashes_in(folder: Path | None) -> FileHashes:
    """Return the hashes of files that a data set's folder of the cache holds, or with None those of this process."""
    return FileHashes(folder / NAME if folder else None)
