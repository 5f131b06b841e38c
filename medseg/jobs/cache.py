"""``medseg cache``: where the cache of preprocessed scans is, what it holds, and its cleaning.

Exit status: 0, or 3 where files could not be removed, which are listed. Only files of the cache are ever removed, and
none of a data set that a job is using.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from medseg.config.check import read_settings
from medseg.config.settings import CacheSettings
from medseg.errors import listing
from medseg.preprocessing import file_hashes
from medseg.preprocessing.cache_files import CacheFile, cache_files, out_of_use
from medseg.system.file_names import file_name
from medseg.system.terminal import Terminal

log = logging.getLogger(__name__)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Show the cache, or remove what the settings choose of it; return status, reason, score and seconds."""
    started = time.monotonic()
    settings = read_settings(CacheSettings, config)
    folder = settings.cache_dir
    files = [file for file in cache_files(folder) if is_chosen(file, settings)]
    Terminal().print(f"cache: {folder.absolute()}", soft_wrap=True, highlight=False)
    is_all = settings.dataset_name is None and settings.older_than_days is None and not settings.outdated
    Terminal().print(table(files) if files else "nothing in it" if is_all else "no such files in it")
    problems = clean(files, folder) if settings.clean else []
    reason = f"not all could be removed:\n{listing(problems)}" if problems else ""
    if problems:
        log.error("%s", reason)
    status = "some_failed" if problems else "done"
    return {"status": status, "reason": reason, "score": None, "seconds": round(time.monotonic() - started, 1)}


def is_chosen(file: CacheFile, settings: CacheSettings) -> bool:
    """Return whether a file is among those that the settings ask for; one that is being written is left alone."""
    name, days = settings.dataset_name, settings.older_than_days
    if settings.clean and file.is_temporary and not file.is_outdated:
        return False
    return (
        (name is None or file.dataset in (name, file_name(name)))
        and (days is None or file.days >= days)
        and (file.is_outdated or not settings.outdated)
    )


def table(files: Sequence[CacheFile]) -> Table:
    """Return a row for each data set and format: cases, size, days since a file was used, and what is out of date."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("data set", "format", "cases", "MB", "used, days ago", ""):
        shown.add_column(header, overflow="fold")
    rows: dict[tuple[str, int, bool], list[CacheFile]] = defaultdict(list)
    for file in files:
        rows[file.dataset, file.format, file.is_temporary].append(file)
    for (dataset, version, is_temporary), group in sorted(rows.items()):
        state = "out of date" if any(file.is_outdated for file in group) else ""
        state = ("left by killed runs" if state else "being written") if is_temporary else state
        cases = sum(file.is_case for file in group)
        megabytes, days = sum(file.bytes for file in group) / 1e6, min(file.days for file in group)
        numbers = (str(version or "before 4"), str(cases), f"{megabytes:.1f}", f"{days:.0f}")
        shown.add_row(escape(dataset) or "?", *numbers, state)
    return shown


def clean(files: Sequence[CacheFile], cache_dir: Path) -> list[str]:
    """Remove files, and folders of the cache that they leave empty; return what could not be removed, and why."""
    problems, removed = [], []
    for folder, inside in groupby(files, lambda file: file.path.parent):
        with out_of_use(folder) as is_free:
            if not is_free:
                problems.append(f"{folder}: a job uses it")
            for file in inside if is_free else ():
                try:
                    file.path.unlink(missing_ok=True)
                    removed.append(file)
                except OSError as error:
                    problems.append(f"{file.path}: {error.strerror}")
            if is_free and not any(folder.glob("*.*.pt")):  # of no use without these
                (folder / file_hashes.NAME).unlink(missing_ok=True)
    folders = {parent for file in removed for parent in file.path.parents if cache_dir in parent.parents}
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):  # those inside others first
        with suppress(OSError):  # it is not empty
            folder.rmdir()
    size = sum(file.bytes for file in removed) / 1e6
    log.info("removed %d cases, %.1f MB", sum(file.is_case for file in removed), size)
    return problems
