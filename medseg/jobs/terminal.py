"""What a job shows while it works, where somebody is looking."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import track

from medseg.io.case import Case


def on_terminal(cases: Sequence[Case]) -> Iterable[Case]:
    """Pass cases on as they are read, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(cases, "reading", console=console, transient=True, disable=not console.is_terminal)
