"""What a job shows while it works, where somebody is looking."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import get_console
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    track,
)

Result = TypeVar("Result")


def watched() -> Console | None:
    """Return the console that log and displays share, so that they do not run into each other; None in file or pipe."""
    console = get_console()
    return console if sys.stdout.isatty() and console.is_interactive else None


def on_terminal(results: Iterable[Result], total: int, doing: str) -> Iterable[Result]:
    """Pass results on as they come, with a progress bar on a terminal and nothing in a pipe."""
    console = watched()
    return track(results, doing, total, console=console, transient=True, disable=console is None)


def download_on_terminal(pieces: Iterable[bytes], there: int, total: int | None, doing: str) -> Iterator[bytes]:
    """Pass the pieces of a download on as they come, with bytes, speed and the time left on a terminal."""
    console = watched()
    columns = (TextColumn(doing), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=console is None) as progress:
        task = progress.add_task(doing, total=total, completed=there)
        for piece in pieces:
            progress.advance(task, len(piece))
            yield piece
