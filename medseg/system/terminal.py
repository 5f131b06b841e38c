"""The terminal: what a job prints, and its progress bars where standard output is interactive."""

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
def shared_terminal() -> Terminal:
    """Return the console that log and displays share, so that they do not run into each other."""
    return Terminal()


def interactive_terminal() -> Terminal | None:
    """Return the shared console where standard output is a terminal; None in a file or pipe."""
    return shared_terminal() if sys.stdout.isatty() and shared_terminal().is_interactive else None


def with_progress_bar(results: Iterable[Result], total: int, doing: str) -> Iterable[Result]:
    """Yield results as they come, with a progress bar on a terminal and nothing in a pipe."""
    console = interactive_terminal()
    return track(results, doing, total, console=console, transient=True, disable=console is None)


def with_download_bar(chunks: Iterable[bytes], received: int, total: int | None, doing: str) -> Iterator[bytes]:
    """Yield the chunks of a download as they come, with bytes, speed and the time left on a terminal."""
    console = interactive_terminal()
    columns = (TextColumn(doing), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=console is None) as progress:
        task = progress.add_task(doing, total=total, completed=received)
        for chunk in chunks:
            progress.advance(task, len(chunk))
            yield chunk
