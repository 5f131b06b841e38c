"""What a job shows while it works, where somebody is looking."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from rich import get_console
from rich.console import Console
from rich.progress import track

Result = TypeVar("Result")


def watched() -> Console | None:
    """Return the console that log and displays share, so that they do not run into each other; None in file or pipe."""
    console = get_console()
    return console if sys.stdout.isatty() and console.is_interactive else None


def on_terminal(results: Iterable[Result], total: int, doing: str) -> Iterable[Result]:
    """Pass results on as they come, with a progress bar on a terminal and nothing in a pipe."""
    console = watched()
    return track(results, doing, total, console=console, transient=True, disable=console is None)
