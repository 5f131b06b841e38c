"""A job of a sweep as a process of its own: whatever ends it, be it a crash or the lack of memory, ends no other."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from medseg.jobs.rundir import OUTPUT
from medseg.system.locks import open_to_append
from medseg.system.relaunch import import_path, python_command

KILLED = "killed by"
"""How the reason of a job begins whose process was killed."""

CANCELLED = "cancelled (scancel)"
"""How the reason of a job begins that someone has cancelled on a cluster."""


@dataclass(frozen=True)
class Job:
    """One job of a sweep: its number, its folder, the overrides that make it, and how to get its config.

    ``compose`` returns the unresolved config that the job is to run; it takes a moment and is called when the job
    begins. ``kind`` tells a test of a job that is done, and the report of a cross-validation, from the jobs themselves.
    """

    number: int
    folder: Path
    overrides: Sequence[str]
    compose: Callable[[], dict[str, Any]]
    kind: Literal["job", "test", "report"] = "job"

    @property
    def name(self) -> str:
        """What the job is called in the log."""
        return " ".join(self.overrides) if self.kind == "report" else f"job {self.number}"


@dataclass(frozen=True)
class Share:
    """The share of the machine that a job has: what it is called, and the variables and cores that limit a process.

    No cores: all of them. ``free_gb`` is the memory of its GPU that was free in the beginning, 0 of a CPU.
    """

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    cores: Sequence[int] = ()
    free_gb: float = 0.0


class AnySweep(Protocol):
    """What there is to know of a sweep."""

    folder: Path
    command: str
    argv: Sequence[str]
    first: dict[str, Any]


class JobProcess:
    """A process for one job. It can be started before its job is known: importing takes it seconds.

    It is of a session of its own, so that Ctrl-C on the terminal does not reach it. When the process that started it is
    gone, it ends as at ``stop``: nothing runs unseen.
    """

    def __init__(self, command: str, folder: Path) -> None:
        self.is_killed = False
        folder.mkdir(parents=True, exist_ok=True)
        with open_to_append(folder / OUTPUT) as output:
            self.process = subprocess.Popen(
                [*python_command("medseg.cli.job", "run_job_of_sweep"), command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": import_path()},
            )

    def begin(self, job: Job, share: Share, argv: Sequence[str]) -> None:
        """Let the process do a job, which leaves its result in its folder; ``argv`` is what the user typed."""
        assert self.process.stdin is not None
        order = {
            "config": job.compose(),
            "folder": str(job.folder),
            "overrides": list(job.overrides),
            "share": asdict(share),
            "argv": list(argv),
        }
        with suppress(BrokenPipeError):  # it died while it imported, which is seen at its end
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Tell the job to save and to end, as at the signal of a number."""
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            with suppress(BrokenPipeError):
                self.process.stdin.write(f"{int(number)}\n")
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def kill(self) -> None:
        """End the process at once."""
        self.is_killed = True
        self.process.kill()
        self.process.wait()
        self.stop()

    def reason(self) -> str:
        """Return what has ended a process that was killed, and so left no result; nothing of any other."""
        status = self.process.wait()
        self.stop()
        if status >= 0:
            return ""
        if self.is_killed:
            return "ended at once"
        memory = ", maybe since the machine's memory ran out" if status == -signal.SIGKILL else ""
        return f"{KILLED} {signal.Signals(-status).name}{memory}"
