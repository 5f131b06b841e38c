"""How a running job starts further processes of itself, for distributed training and for several devices."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""How multiprocessing starts processes: never as copies of this one."""

QUIET = (
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
)
"""What conf/base.yaml says, for a config that was saved without it."""


class Worker(multiprocessing.get_context(START_METHOD).Process):  # type: ignore[misc]
    """A process that does not run the program's main script again, as multiprocessing would have it.

    So a script needs no ``if __name__ == "__main__"`` to train with processes that load data.
    """

    def start(self) -> None:
        """Start the process while the main module seems to have no file."""
        main = vars(sys.modules["__main__"])
        known: dict[str, Any] = {name: main.pop(name) for name in ("__spec__", "__file__") if name in main}
        main["__spec__"] = None
        try:
            super().start()
        finally:
            main.update(known)


def import_path() -> str:
    """Return the PYTHONPATH with which a further process imports what this one can."""
    return os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)


def python_command(module: str, function: str) -> list[str]:
    """Return the command that calls a function of medseg's, whose result is the exit status, in a process of its own.

    It needs ``import_path`` as its PYTHONPATH. Further words of the command are the process's arguments.
    """
    return [sys.executable, "-P", "-c", f"import sys; from {module} import {function}; sys.exit({function}())"]


def start(config: dict[str, Any], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start the job of a composed config as a further process, which imports what this one can.

    Nothing is taken from ``sys.argv``, which is a program's own where medseg is used from Python.
    """
    command = python_command("medseg.cli.job", "run_config")
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, text=True, env={**os.environ, **environment, "PYTHONPATH": import_path()}
    )
    assert process.stdin is not None
    with process.stdin as text:
        json.dump(config, text)
    return process


@contextmanager
def single_job(argv: list[str]) -> Iterator[None]:
    """Show a job the command line that the user typed, and undo what distributed training leaves behind.

    Lightning's variables and a dead process group would break the next job of a sweep.
    """
    saved_argv, saved_environment = sys.argv[:], dict(os.environ)
    sys.argv[1:] = argv
    try:
        yield
    finally:
        sys.argv[:] = saved_argv
        os.environ.clear()
        os.environ.update(saved_environment)
        leave_process_group()


def leave_process_group() -> None:
    """Leave the group of processes of a distributed training, if there is one.

    With NCCL all must do so within minutes of each other: before the first of them tests the model.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
