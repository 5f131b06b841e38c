"""medseg in processes of its own, which are killed at chosen points, or whose disk is full from there on.

The processes are forked from a server that has imported all that they need, and that has computed nothing but a config.
"""

import json
import multiprocessing
import os
import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from itertools import count
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml
from PIL import Image

import medseg.evaluation.images.contact_sheet
import medseg.io.layouts.synthetic
import medseg.jobs.cache
import medseg.jobs.evaluate.evaluate
import medseg.jobs.evaluate.trials
import medseg.jobs.predict.predict
import medseg.jobs.train.train
import medseg.sweeps.process
import medseg.system.files
import medseg.training.callbacks.checkpoints
import medseg.training.losses
import medseg.training.optim.schedules
from medseg.cli import command_line
from medseg.cli.job import run_job_of_sweep
from medseg.cli.overrides import check
from medseg.cli.sources import Sources
from medseg.config.schema import CONF
from medseg.inference.predictor import Predictor
from medseg.system.files import TEMPORARY
from medseg.training.segmentation import SegmentationModule

check(Sources(CONF, "train"), ["seed=0"])  # imports Hydra, whose parsers learn in use
Image.init()

TIME_LIMIT = 300.0
"""Seconds after which a process is taken to hang."""


@dataclass(frozen=True)
class Kill:
    """The moment at which a process kills itself.

    Args:
        when: ``half`` and ``before``: half of a file, or all of it, lies under its temporary name; ``after``: it has
            its final name. ``rename``, ``remove``: a folder or a file is about to be; ``trial``: a prediction of
            ``tune`` is about to be written; ``step``: a training step is about to be made.
        which: a pattern of the file's path.
        count: at which such moment, the first being 1. Each job of a sweep counts for itself.
        interval: seconds from one state of a training to the next.
    """

    when: str
    which: str = "*"
    count: int = 1
    interval: float = 0.0

    def __str__(self) -> str:
        return f"{self.when} {self.which} {self.count}"

    def arm(self) -> None:
        """Patch this process, and those of a sweep's jobs, so that they kill themselves at the moment."""
        medseg.training.callbacks.checkpoints.INTERVAL = self.interval
        medseg.sweeps.process.python_command = lambda module, function: [
            *(sys.executable, "-P", "-c", f"from processes import *; job({self!r})")
        ]
        moments = count(1)  # several threads write

        def reached(path="") -> bool:
            return fnmatch(str(path), self.which) and next(moments) == self.count

        def before(original, *arguments, path=0, **options):
            if reached(arguments[path] if path is not None else ""):
                die()
            return original(*arguments, **options)

        replace = os.replace

        def replaced(source, target, **options):
            is_now = TEMPORARY.fullmatch(Path(source).name) is not None and reached(target)
            if is_now and self.when == "half":
                os.truncate(source, Path(source).stat().st_size // 2)
            if is_now and self.when in ("half", "before"):
                die()
            replace(source, target, **options)
            if is_now:
                die()

        match self.when:
            case "half" | "before" | "after":
                os.replace = replaced
            case "rename":
                os.rename = partial(before, os.rename, path=1)
            case "remove":
                os.unlink = partial(before, os.unlink)
            case "trial":
                medseg.jobs.evaluate.trials.np.savez_compressed = partial(
                    before, medseg.jobs.evaluate.trials.np.savez_compressed
                )
            case "step":
                step = SegmentationModule.training_step
                SegmentationModule.training_step = lambda *arguments: before(step, *arguments, path=None)


@dataclass(frozen=True)
class FullDisk:
    """The disk is full when the ``count``-th file of a pattern is written, and stays so unless it was ``once``.

    ``interval`` are the seconds from one state of a training to the next.
    """

    which: str
    count: int = 1
    once: bool = False
    interval: float = 0.0

    def __str__(self) -> str:
        return f"{self.which} {self.count}{' once' if self.once else ''}"

    def arm(self) -> None:
        """Let temporary files lead to /dev/full, where the system refuses every byte."""
        medseg.training.callbacks.checkpoints.INTERVAL = self.interval
        held, seen = medseg.system.files.locked_file, []

        @contextmanager
        def held_or_full(temporary):
            is_meant = fnmatch(str(temporary.with_name(temporary.name[len(".01234567-") :])), self.which)
            seen.extend([temporary] if is_meant else [])
            if (is_meant and len(seen) == self.count) or (len(seen) >= self.count and not self.once):
                temporary.symlink_to("/dev/full")
                yield
            else:
                with held(temporary):
                    yield

        medseg.system.files.locked_file = held_or_full


@dataclass(frozen=True)
class FilledDisk:
    """The disk that holds the folder is filled, by ``FILLER``, at the ``count``-th training step or scan."""

    count: int

    def arm(self) -> None:
        """Patch what computes."""
        calls = count()

        def and_fill(original, *arguments):
            if next(calls) + 1 == self.count:
                fill(Path(FILLER))
            return original(*arguments)

        for owner, name in ((SegmentationModule, "training_step"), (Predictor, "predict_labels")):
            original = getattr(owner, name)
            setattr(owner, name, lambda *arguments, original=original: and_fill(original, *arguments))


FILLER = "filler"


def fill(path):
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for size in (4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


SWEEP_OF_JOB = []
"""The number of the process that runs the sweep, in the process of a job."""


def die():
    for number in (*SWEEP_OF_JOB, os.getpid()):
        os.kill(number, signal.SIGKILL)


def job(event):
    """Run a job of a sweep, as the process that it has for itself; when it is killed, so is the sweep."""
    SWEEP_OF_JOB.append(os.getppid())
    event.arm()
    sys.exit(run_job_of_sweep())


def main(arguments, folder, event):
    """Run a command line in a folder; stdout and stderr go into ``folder.log``."""
    os.chdir(folder)
    log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    medseg.training.callbacks.checkpoints.INTERVAL = 0.0  # so that moments are counted, whatever the time
    if event:
        event.arm()
    status = command_line.main(list(arguments))
    sys.stdout.flush()
    os._exit(status)


def context():
    """Return what starts processes from the server."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(Path(__file__).parent), *sys.path]))
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    return server


@contextmanager
def started(arguments, folder, event=None):
    """Start a command line in a folder, and end it with the block."""
    process = context().Process(target=main, args=(arguments, Path(folder), event))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def run(arguments, folder, event=None):
    """Run a command line in a folder to its end; return its exit status, or -9 where it was killed."""
    with started(arguments, folder, event) as process:
        process.join(TIME_LIMIT)
        assert process.exitcode is not None, f"hangs: {arguments}\n{said(folder)}"
        return process.exitcode


def said(folder):
    """Return what the processes in a folder have printed."""
    path = Path(f"{folder}.log")
    return path.read_text("utf-8") if path.is_file() else ""


def check_whole(folder):
    """Read every file that has its final name."""
    for path in files_in(folder):
        match path.suffix:
            case ".json":
                json.loads(path.read_text("utf-8"))
            case ".yaml":
                assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)
            case ".csv" | ".md" | ".tex":
                assert path.read_text("utf-8").endswith("\n"), path
            case ".html":
                assert path.read_text("utf-8").rstrip().endswith("</html>"), path
            case ".ckpt" | ".pt":
                torch.load(path, weights_only=True)
            case ".npz":
                assert all(array.size for array in np.load(path).values())
            case ".gz":
                nib.load(path).get_fdata()
            case ".png":
                Image.open(path).load()
            case ".log" | ".tags":
                pass
            case _ if "tfevents" in path.name:  # TensorBoard reads them as far as they go
                pass
            case _:
                raise AssertionError(f"{path}: nobody knows when it is whole")


def files_in(folder):
    """Return the files below a folder, without locks and those that have a temporary name."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [
        path for path in paths if path.suffix != ".lock" and path.name != ".lock" and not TEMPORARY.fullmatch(path.name)
    ]


def names_in(folder):
    """Return the relative names of everything below a folder, hidden and temporary files, too."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))
