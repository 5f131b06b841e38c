"""What a job shows while it works, where somebody is looking."""

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    track,
)
from rich.segment import Segment

from medseg.system.printable import printable

Result = TypeVar("Result")


class Terminal(Console):
    """Standard output, where no name of a case or class steers the terminal: only Rich's own styles do."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed, its texts made printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


@cache
def shared() -> Terminal:
    """Return the console that log and displays share, so that they do not run into each other."""
    return Terminal()


def watched() -> Terminal | None:
    """Return the shared console where somebody is looking; None in file or pipe."""
    return shared() if sys.stdout.isatty() and shared().is_interactive else None


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
