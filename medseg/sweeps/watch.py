"""What is seen of a sweep that runs: a line a job on a terminal, else a log line when one begins or ends."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.live import Live

from medseg.jobs.rundir import read_result
from medseg.sweeps.process import Job
from medseg.sweeps.queue import Queue
from medseg.sweeps.record import announced, names_of, state_of
from medseg.sweeps.tables import OF_ENSEMBLE, reason_of, state_table
from medseg.system.terminal import interactive_terminal

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds from one drawing to the next."""
ROWS_KEPT_FREE = 8
"""Lines of the terminal that the table leaves to the log."""


class Watch:
    """Shows the jobs that are under way. It is a context, which gives the terminal back at its end."""

    def __init__(self, folder: Path, queue: Queue) -> None:
        """``folder`` is the sweep's: its jobs that have a result, and do not wait in the ``queue``, have ended."""
        console = interactive_terminal()
        self.live = Live(console=console, auto_refresh=False, transient=True) if console else None
        waiting = {job.number for job in queue.upcoming(len(queue))}
        results = {number: folder / str(number) / "result.json" for number in announced(folder)}
        self.done = {
            number
            for number, path in results.items()
            if number not in waiting and path.is_file() and read_result(path)["status"] != "interrupted"
        }
        self.jobs: dict[int, tuple[Job, str]] = {}
        self.at_work: set[int] = set()
        self.drawn_at = 0.0

    def __enter__(self) -> "Watch":
        """Take the terminal."""
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the terminal back."""
        if self.live:
            self.live.stop()

    def begun(self, job: Job, device: str) -> None:
        """Take in that a job begins on a device."""
        self.jobs[job.number], self.drawn_at = (job, device), 0.0
        self.at_work.discard(job.number)
        if not self.live:
            own = f": {name_in(names_of(announced(job.folder.parent)), job)}" if job.kind == "job" else ""
            log.info("%s %s on %s%s", job.name, "is tested" if job.kind == "test" else "begins", device, own)

    def ended(self, job: Job) -> None:
        """Take in that a job has ended, and say how."""
        self.jobs.pop(job.number, None)
        self.done.add(job.number)
        self.drawn_at = 0.0
        log.info("%s: %s", job.name, outcome_of(job, read_result(job.folder / "result.json")))

    def look(self, waiting: int) -> None:
        """Draw where the jobs are, and how many wait, unless this was done a moment ago."""
        if self.live and time.monotonic() - self.drawn_at >= EVERY:
            self.live.update(self.table(waiting, self.live.console.height - ROWS_KEPT_FREE), refresh=True)
            self.drawn_at = time.monotonic()

    def table(self, waiting: int, rows: int) -> Any:
        """Return the table of the jobs under way, as many as there are rows for."""
        shown, states = [*self.jobs.values()][: max(1, rows)], []
        names = names_of(announced(shown[0][0].folder.parent)) if shown else {}
        for job, device in shown:
            state = state_of(job.folder)
            if state["state"] not in ("waiting", "stopped"):
                self.at_work.add(job.number)
            else:  # its process has not yet taken the folder, or has left it
                state = {"state": "ending" if job.number in self.at_work else "starting"}
            number = "" if job.kind == "report" else job.number
            states.append({"job": number, "name": name_in(names, job), **state, "device": device})
        table = state_table(states)
        table.caption = f"{len(self.jobs)} under way, {waiting} waiting, {len(self.done - set(self.jobs))} ended"
        table.caption_justify = "left"
        return table


def name_in(names: Mapping[int, str], job: Job) -> str:
    """Return what tells a job from the others of its sweep, whose names are given by number."""
    return names.get(job.number, " ".join(job.overrides))


def outcome_of(job: Job, result: Mapping[str, Any]) -> str:
    """Return in a line how a job, the test of one, or the report of a cross-validation has ended.

    Why jobs were interrupted stands below the table with which the sweep ends then.
    """
    status, score, test_score = result["status"], result["score"], result["test_score"]
    reason = "" if status in ("done", "interrupted") else f" ({reason_of(result)})"
    if job.kind == "test":
        return ("not tested" if test_score is None else f"tested, Dice {test_score:.4f}") + reason
    if job.kind == "report":
        test = "" if test_score is None else f", {OF_ENSEMBLE}: Dice {test_score:.4f}"
        return (status if score is None else f"Dice {score:.4f}{test}") + reason
    seconds = "" if result["seconds"] is None else f", {result['seconds']:.0f} s"
    return status + ("" if score is None else f", score {score:.4f}") + seconds + reason
