"""Where a run is, for whoever watches it from outside: ``progress.json`` in its directory while it goes on.

The file is there until the run ends, however it does. Where a process was killed it stays, and nobody holds the lock of
the directory any more (``is_held`` of ``medseg.system.locks``).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.system.files import write_json

NAME = "progress.json"
EVERY = 2.0
"""Seconds from one writing to the next at least, unless the state changes: a millisecond, of a step of any length."""


class ProgressFile:
    """Tells where a run is.

    ``state`` is "preparing", "training" or "testing". ``epoch`` is counted from one and 0 before the first, ``epochs``
    null where only the time is limited. ``score`` is the last validation's, ``best`` that of the chosen weights,
    ``unlearned`` names the classes that are not learned; ``updated`` are seconds since 1970.
    """

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.clock, self.written_at = run_dir / NAME, clock, -EVERY
        self.content: dict[str, Any] = {"state": "preparing", "epoch": 0}
        self.content |= {"epochs": None, "score": None, "best": None, "unlearned": []}
        self.content |= {"seconds_left": None, "device": ""}

    def is_due(self, state: str) -> bool:
        """Return whether to tell of a state now."""
        return state != self.content["state"] or self.clock() - self.written_at >= EVERY

    def tell(self, state: str, **changes: Any) -> None:
        """Write the file anew with what has changed, NaN as null; a full disk is for others to find."""
        self.content |= {"state": state, **changes}
        for key, value in self.content.items():
            if isinstance(value, float) and not isfinite(value):
                self.content[key] = None
        self.written_at = self.clock()
        with suppress(MedsegError):
            write_json(self.path, self.content | {"updated": round(time.time(), 1)})


@contextmanager
def progress_told(run_dir: Path) -> Iterator[None]:
    """Tell while the block runs that a run is being prepared, until it tells more of itself."""
    ProgressFile(run_dir).tell("preparing")
    try:
        yield
    finally:
        with suppress(OSError):
            (run_dir / NAME).unlink()
