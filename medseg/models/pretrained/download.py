"""Files of published weights: downloaded once into a cache folder, whole and as published.

What has arrived of an interrupted download stays beside the file as ``.part``, and the next attempt or run continues
from there (HTTP ranges, RFC 9110). Its time is the server's ``Last-Modified``, so that ``If-Range`` keeps two
versions of a file apart.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock

from medseg import __version__
from medseg.errors import MedsegError
from medseg.models.pretrained.catalogue import published
from medseg.system.files import file_hash

log = logging.getLogger(__name__)

Watch = Callable[[Iterable[bytes], int, int | None, str], Iterable[bytes]]
"""(chunks, bytes already there, bytes in all, what is done) to the same chunks, shown as they come."""

ALGORITHMS = ("sha256", "md5", "sha1", "sha512")
CHUNK = 1 << 20
ATTEMPTS = 4
TIMEOUT = 30.0
"""Seconds without an answer."""
START_OVER = 416  # HTTP: what is there is as long as the whole or longer
RESUMED = 206


@dataclass(frozen=True)
class Source:
    """A published file: its address, ``algorithm:digest`` or the digest's beginning (None: unknown), its path here."""

    url: str
    checksum: str | None
    path: Path

    def unavailable(self, reason: str) -> MedsegError:
        """Return the error that says how to come by the file all the same."""
        checksum = f"its checksum is {self.checksum}" if self.checksum else "no checksum of it is published"
        return MedsegError(
            f"{self.url} cannot be had: {reason}.\nDownload it elsewhere and put it at {self.path} ({checksum}), or "
            "give its path as model.weights=FILE. A mirror's address goes into weights.published."
        )


def weights_file(settings: dict[str, Any], watch: Watch | None = None) -> Path | None:
    """Return the file that ``model.pretrained`` means, downloaded where need be; None where nothing is asked for.

    Args:
        settings: ``model``, with ``weights`` a file that is there already; ``weights``: ``folder`` and ``published``.
        watch: shows the download.

    Raises:
        MedsegError: the file is not there and cannot be had, or is another than was published.
    """
    model = settings["model"]
    if published(model) is None:
        return None
    if model["weights"]:
        entry_of(model, settings["weights"])  # an entry written wrongly is an error now
        path = Path(model["weights"])
        if not path.is_file():
            raise MedsegError(f"model.weights={path}: no such file.")
        return path
    return fetch(source_of(model, settings["weights"]), watch or (lambda chunks, *_: chunks))


def warn_of_another(settings: dict[str, Any]) -> None:
    """Say that a file that the user names is another than the published one; it is taken all the same."""
    model = settings["model"]
    checksum = (entry_of(model, settings["weights"]) or {}).get("checksum")
    if model["weights"] and (wrong := mismatch(Path(model["weights"]), checksum)):
        log.warning("model.weights=%s: not the published file, %s; it is taken all the same", model["weights"], wrong)


def network_of(model: dict[str, Any]) -> str:
    """Return the name under which the weights of a ``model`` node are listed: its encoder's, or its network's."""
    name: str = model.get("backbone") or model["_target_"].rpartition(".")[2]
    return name


def entry_of(model: dict[str, Any], table: dict[str, Any]) -> dict[str, Any] | None:
    """Return ``url`` and ``checksum`` of the weights of a ``model`` node, None where the table has none.

    Raises:
        MedsegError: the entry is written wrongly.
    """
    network, name = network_of(model), model["pretrained"]
    entry = (table["published"].get(network) or {}).get(name)
    if entry is None:
        return None
    checksum = entry.get("checksum") if isinstance(entry, dict) else None
    algorithm, _, digest = str(checksum or "md5:0").partition(":")
    if not isinstance(entry, dict) or "url" not in entry or algorithm not in ALGORITHMS or not digest:
        raise MedsegError(
            f"weights.published.{network}.{name}={entry}: write {{url: ADDRESS, checksum: 'sha256:DIGEST'}}, or md5, "
            "or checksum: null."
        )
    return {"url": str(entry["url"]), "checksum": checksum}


def source_of(model: dict[str, Any], table: dict[str, Any]) -> Source:
    """Look up the address of the weights of a ``model`` node, and their path here."""
    name, network, entry = model["pretrained"], network_of(model), entry_of(model, table)
    if entry is None:
        having = [other for other, names in table["published"].items() if name in names]
        raise MedsegError(
            f"model.pretrained={name}: no such weights of {network} are listed. Of {network} there are: "
            f"{', '.join(table['published'].get(network) or ['none'])}; {name} are there of: "
            f"{', '.join(having) or 'none'}. Give one of these, or model.weights=FILE."
        )
    folder = Path(table["folder"]) if table["folder"] else cache_folder() / "weights"
    suffix = PurePosixPath(urlsplit(entry["url"]).path).suffix
    return Source(entry["url"], entry["checksum"], folder / f"{network}-{name}{suffix}")


def cache_folder() -> Path:
    """Return where programs keep files that can be had again, by the platform's convention."""
    folders = {"darwin": ("Library", "Caches"), "win32": ("AppData", "Local")}
    return Path.home().joinpath(*folders.get(sys.platform, (".cache",)), "medseg")


def fetch(source: Source, watch: Watch) -> Path:
    """Return the file of a source, downloaded unless it is there.

    Raises:
        MedsegError: it cannot be had or written, or is another than was published.
    """
    if source.path.is_file():
        if wrong := mismatch(source.path, source.checksum):
            raise MedsegError(
                f"{source.path}: {wrong}. Remove it to have {source.url} downloaded, or correct the checksum in "
                "weights.published."
            )
        return source.path
    part = source.path.with_name(f"{source.path.name}.part")
    try:
        source.path.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes that want the file one downloads it, and the others wait.
        with FileLock(source.path.with_name(f".{source.path.name}.lock")):
            if not source.path.is_file():
                download(source, part, watch)
                part.replace(source.path)
    except OSError as error:
        part.unlink(missing_ok=True)  # on a full disk what arrived is in the way of everything else
        raise source.unavailable(
            f"{source.path.parent} cannot be written to ({error.strerror or error}). Check its rights and space, or "
            "give another by weights.folder"
        ) from error
    return source.path


def download(source: Source, part: Path, watch: Watch) -> None:
    """Fill ``part``, going on where it ends as often as the connection breaks, a few times at most; check it."""
    log.info("downloading %s to %s", source.url, source.path)
    if not source.checksum:
        log.info("no checksum of this file is published: its size and what it holds are all that is checked")
    for _ in range(ATTEMPTS):
        if receive(source, part, watch):
            break
        log.info("the connection broke after %d bytes; going on from there", part.stat().st_size)
    else:
        raise source.unavailable(f"the connection broke {ATTEMPTS} times; another start goes on where this one ended")
    if wrong := mismatch(part, source.checksum):
        part.unlink()
        raise source.unavailable(f"what arrived is not what was published: {wrong}")


def receive(source: Source, part: Path, watch: Watch) -> bool:
    """Append to ``part`` what the server sends from its end on; tell whether it is complete then."""
    with connect(source, part) as response:
        there = part.stat().st_size if response.status == RESUMED else 0
        length = response.headers["Content-Length"]
        total = there + int(length) if length else None

        def chunks() -> Iterator[bytes]:
            try:
                while chunk := response.read(CHUNK):
                    yield chunk
            except (OSError, HTTPException):  # the size says below whether the file is complete
                return

        with part.open("ab" if there else "wb") as file:
            for chunk in watch(chunks(), there, total, f"downloading {source.path.name}"):
                file.write(chunk)
        if date := response.headers["Last-Modified"]:
            time = parsedate_to_datetime(date).timestamp()
            os.utime(part, (time, time))
    return total is None or part.stat().st_size >= total


def connect(source: Source, part: Path) -> HTTPResponse:
    """Ask for a file, or what ``part`` lacks of it."""
    if urlsplit(source.url).scheme not in ("http", "https"):
        raise source.unavailable("it is no address that begins with https:// or http://")
    headers = {"User-Agent": f"medseg/{__version__}"}
    if part.is_file() and part.stat().st_size:
        changed = formatdate(int(part.stat().st_mtime), usegmt=True)
        headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": changed}
    try:
        response: HTTPResponse = urlopen(Request(source.url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == START_OVER and "Range" in headers:
            part.unlink()
            return connect(source, part)
        raise source.unavailable(f"the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise source.unavailable(f"no connection ({getattr(error, 'reason', None) or error})") from error
    return response


def mismatch(path: Path, checksum: str | None) -> str | None:
    """Say how a file differs from a checksum; None where it does not, or nothing is known of it."""
    if not checksum:
        return None
    algorithm, _, expected = checksum.partition(":")
    digest = file_hash(path, algorithm)
    return None if digest.startswith(expected.lower()) else f"its {algorithm} is {digest}, that published {expected}"
