"""One job of a composed config: what it raises becomes a message, a result and an exit status."""

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from medseg.config.check import check_values, resolve
from medseg.errors import MedsegError, listing
from medseg.io.limits import DEFAULT_MAX_GB, Limit
from medseg.io.warnings import begin_job
from medseg.system.files import remove_unfinished
from medseg.system.memory import MORE_MEMORY, enough_memory
from medseg.system.printable import PrintableFormatter, printable
from medseg.system.relaunch import single_job
from medseg.system.running.signals import heeded

JOBS = {
    "train": "train.train",
    "pretrain": "train.pretrain",
    "eval": "evaluate.evaluate",
    "predict": "predict.predict",
    "compare": "evaluate.compare",
    "inspect": "inspect.inspect",
    "export": "export",
    "cache": "cache",
    "doctor": "doctor",
}
"""Commands, and the modules of ``medseg.jobs`` that do them."""

OF_SWEEPS = {"cross_validate": "evaluate.cross_validation"}
"""Jobs of medseg's own that end a sweep, with a config of their own."""

COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""By which torchrun and srun tell a process how many they have started."""

EXIT_STATUS = {"done": 0, "failed": 1, "some_failed": 3}
BUG = 2


def run_config() -> int:
    """Run the job of a config, read as JSON from standard input, as a process of its own (see ``relaunch.start``)."""

    def run_job(argv: list[str]) -> int:
        configure_logging()
        return attempt(json.load(sys.stdin), argv)[0]

    return ended(status_of(run_job, sys.argv[1:]))


def run_job_of_sweep() -> int:
    """Run a job of a sweep as a process of its own, which leaves its result in its folder (see ``JobProcess``).

    What takes seconds to import is there before the job is told, in a line of standard input. When that ends, so has
    the sweep, or it wants the job to. The signal whose number came before tells the job so, SIGTERM where none did.
    """
    configure_logging()
    import_module(module_of(sys.argv[1]))
    line = sys.stdin.readline()
    if not line:  # there is no job for this process
        return 0
    order = json.loads(line)
    use_share(order["share"])

    def wait_for_end() -> None:
        os.kill(os.getpid(), int(sys.stdin.read() or signal.SIGTERM))

    def run_job(argv: list[str]) -> int:
        from medseg.sweeps.record import INTERRUPTED_JOB, record

        result = dict(INTERRUPTED_JOB)  # which stays of a job that does not end
        try:
            config = order["config"]
            status, result = attempt(config, argv, () if config["command"] in OF_SWEEPS else None)
        finally:
            record(Path(order["folder"]), result, order["overrides"])
        return status

    threading.Thread(target=wait_for_end, daemon=True).start()
    return ended(status_of(run_job, order["argv"]))


def counted() -> list[str]:
    """Return the variables that say that this process is one of several."""
    return [name for name in COUNTS if os.environ.get(name, "1") not in ("", "0", "1")]


def use_share(share: dict[str, Any]) -> None:
    """Let this process see its share of the machine alone: variables that name devices, and some of the cores."""
    os.environ.update(share["environment"])
    if cores := share["cores"]:
        import torch

        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(len(cores))


def attempt(config: dict[str, Any], argv: list[str], wrong: Sequence[str] | None = None) -> tuple[int, dict[str, Any]]:
    """Run a config's job; return its exit status and result, failed where it raised.

    ``wrong`` is what a check of the config has found; None: it has not been checked.
    """
    started = time.monotonic()
    try:
        result = result_of(config, argv, wrong)
        return EXIT_STATUS[result["status"]], result
    except MedsegError as error:
        status, reason = complain(str(error)), str(error)
    except Exception as error:
        print_traceback()
        status, reason = BUG, f"{type(error).__name__}: {error}"
    return status, {"status": "failed", "reason": reason, "score": None, "seconds": time.monotonic() - started}


def result_of(config: dict[str, Any], argv: list[str], wrong: Sequence[str] | None = None) -> dict[str, Any]:
    """Run a config's job and return its result; ``wrong`` as in ``attempt``.

    Raises:
        MedsegError: something is wrong with the config, or nothing could be done.
    """
    refuse(check_values(config) if wrong is None else wrong)
    job = import_module(module_of(config["command"]))
    quieten_libraries()
    if "torch" in sys.modules:  # which would take jobs that do without it seconds
        from medseg.system.parallel import keep_to_cores

        keep_to_cores()
    begin_job()
    Limit.max_gb = resolve({"read": config.get("read") or {}})["read"].get("max_gb", DEFAULT_MAX_GB)
    with single_job(argv), enough_memory(f"for this {config['command']}", MORE_MEMORY):
        return dict(job.run(config))


def module_of(command: str) -> str:
    """Return the module that does a job."""
    return f"medseg.jobs.{(JOBS | OF_SWEEPS)[command]}"


def refuse(problems: Sequence[str]) -> None:
    """Raise when there is anything wrong."""
    if problems:
        text = f"these {len(problems)} settings are wrong:\n{listing(problems)}"
        raise MedsegError(text if len(problems) > 1 else problems[0])


def status_of(work: Callable[[list[str]], int], argv: list[str]) -> int:
    """Return the exit status of some work, or that of what it raises, which is printed."""
    try:
        with heeded():
            return work(argv)
    except MedsegError as error:
        return complain(str(error))
    except KeyboardInterrupt as stop:
        return complain(str(stop) or "interrupted", 128 + getattr(stop, "number", signal.SIGINT))
    except SystemExit as end:  # Hydra's way out, after it has printed what was wrong
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        print_traceback()
        return BUG


def ended(status: int) -> int:
    """Return the status; end the process with it where threads of ours still compute.

    They cannot be stopped and may take long, and PyTorch aborts a process that ends under them by itself.
    """
    if any(thread.name.startswith("medseg-") for thread in threading.enumerate()):
        remove_unfinished()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def complain(message: str, status: int = 1) -> int:
    """Print what went wrong and return the exit status for it."""
    print(printable(f"medseg: {message}"), file=sys.stderr)
    return status


def print_traceback() -> None:
    """Print the traceback of the exception that is being handled."""
    print(printable(traceback.format_exc()), end="", file=sys.stderr)


def configure_logging() -> None:
    """Show medseg's log from INFO, libraries' from WARNING: above the display on a terminal, else on stderr."""
    logging.basicConfig(level=logging.WARNING, handlers=[log_handler()])
    logging.captureWarnings(True)  # which may tell of names, too
    logging.getLogger("medseg").setLevel(logging.INFO)


def log_handler() -> logging.Handler:
    """Return what shows log lines: above the display on a terminal, else on stderr; in a notebook on stdout.

    A notebook shows stderr in red.
    """
    from medseg.system.terminal import interactive_terminal, shared_terminal

    if console := interactive_terminal():
        from rich.logging import RichHandler

        on_terminal = RichHandler(
            console=console, show_path=False, show_level=False, log_time_format=PrintableFormatter.default_time_format
        )
        on_terminal.setFormatter(PrintableFormatter("%(message)s"))
        return on_terminal
    handler = logging.StreamHandler(sys.stdout if shared_terminal().is_jupyter else sys.stderr)
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def quieten_libraries() -> None:
    """Leave libraries' warnings alone; undo the levels and the second handlers that Lightning's import sets."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.handlers.clear()
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)  # its remarks on headers; errors are raised anyway
