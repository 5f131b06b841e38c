"""What a job shows while it works, where somebody is looking."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Result = TypeVar("Result")


def on_terminal(results: Iterable[Result], total: int, doing: str) -> Iterable[Result]:
    """Pass results on as they come, with a progress bar on a terminal and nothing in a pipe."""
    console = Console(stderr=True)
    return track(results, doing, total, console=console, transient=True, disable=not console.is_terminal)
