"""The course of a training of either kind, and what its directory keeps: log, result and, if resumed, new settings."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from medseg.config.check import resolve
from medseg.config.schema import typed
from medseg.config.settings import TrainerSettings
from medseg.errors import MedsegError
from medseg.inference.loading import has_results
from medseg.io.case import Dataset
from medseg.io.labels import LabelMap
from medseg.jobs.rundir import FIRST_STAGE, has_state, logged_to, recorded, write_config
from medseg.jobs.train.fit import Fitted, best_so_far, result_of_finished
from medseg.jobs.train.setup import Run, S, announce, cache_of, in_run_directory, reopen, set_up
from medseg.preprocessing.cache_files import in_use
from medseg.preprocessing.file_hashes import hashes_in
from medseg.sweeps.record import is_job, write_record
from medseg.system.device import set_float32_products
from medseg.system.distributed.place import take_place
from medseg.system.distributed.ranks import LostError, Ranks, joined
from medseg.system.files import remove_leftovers
from medseg.training.callbacks.checkpoints import Selection

CAPACITY = 10**6  # log lines


class Session:
    """A training that writes into its run directory: a new one from the start, a resumed one from ``begin`` on."""

    def __init__(self, run: Run[Any], stack: ExitStack) -> None:
        self.run, self.stack, self.started = run, stack, time.monotonic()
        self.result: dict[str, Any] = {}
        self.is_open = False
        self.lines = MemoryHandler(CAPACITY, flushLevel=logging.CRITICAL + 1, flushOnClose=False)

    def begin(self) -> None:
        """Write the new settings of a resumed run: the first step has shown that they work."""
        if not self.is_open:
            write_config(self.run.directory / "config.yaml", self.run.config)
        self.open()

    def open(self) -> None:
        """Write log and result into the directory from now on, beginning with the log lines so far."""
        if self.is_open:
            return
        self.is_open = True
        remove_leftovers(self.run.directory)
        file = self.stack.enter_context(logged_to(self.run.directory / "train.log"))
        for record in self.lines.buffer:
            file.handle(record)
        self.result = self.stack.enter_context(recorded(self.run.directory, self.started))


def stopped(run: Run[Any], how: str) -> str:
    """Return how a training was stopped, and how to go on with it, which others say of a sweep's jobs and of stages."""
    if is_job(run.directory) or run.directory.parent.name == FIRST_STAGE:
        return how
    begin = f"the same command with run_dir={run.directory} begins it again"
    resume = f"medseg {run.config['command']} resume={run.directory}"
    return f"{how}; to go on: {resume}" if has_state(run.directory) else f"{how} before a state was saved; {begin}"


@contextmanager
def session(run: Run[Any]) -> Iterator[Session]:
    """Write the log and the result of a training into its directory while the block runs.

    Where a resumed training fails before it opens the session, its directory is left as it was, byte for byte. The
    record of a sweep of which a job is resumed is written anew in the end.
    """
    before = {*run.directory.rglob("*")}
    with ExitStack() as stack:
        if run.settings.resume and is_job(run.directory) and has_results(run.directory.parent):
            stack.callback(write_record, run.directory.parent)  # the last that the stack does, after the job's result
        this = Session(run, stack)
        if not run.settings.resume:
            this.open()
        logger = logging.getLogger("medseg")
        logger.addHandler(this.lines)
        stack.callback(logger.removeHandler, this.lines)
        try:
            yield this
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | LostError):
                error.args = (stopped(run, str(error) or "interrupted"),)
            for path in () if this.is_open else run.directory.rglob("*"):
                if path not in before and path.is_file():  # such as an empty log of TensorBoard's
                    path.unlink()
            raise


def train_together(
    config: dict[str, Any],
    job: Callable[[dict[str, Any], Ranks], dict[str, Any]],
    follow: Callable[[dict[str, Any], Ranks, bool], None],
) -> dict[str, Any]:
    """Run a training's job in the first of its processes, in a run directory made now; the others follow its word.

    Args:
        config: of the training. Of the processes that a launcher has started, that of the first counts.
        job: is called with a config that names the run directory, and the processes.
        follow: is called in the others, once the run is set up, with its config, the processes, and whether nothing is
            left to train.

    Raises:
        MedsegError: the data or the config cannot be used, the processes do not meet, or one of them is lost.
    """
    settings = typed(TrainerSettings, resolve(config)["trainer"])
    ranks = Ranks(*take_place(settings.accelerator, settings.devices, settings.num_nodes, os.environ))
    with joined(ranks):
        if ranks.is_first:
            return in_run_directory(config, lambda named: job(named, ranks))
        config, is_trained = ranks.hear("run")
        run_dir = Path(resolve(config)["run_dir"])
        ranks.last_words = partial(record_loss, run_dir)
        try:
            if not (run_dir / "config.yaml").is_file():
                raise MedsegError(f"{run_dir}: not there on this machine. Give a run_dir that all machines share.")
            set_float32_products(ranks.device, deterministic=settings.deterministic)
            ranks.start(config)
            follow(config, ranks, is_trained)
        except LostError as error:
            if ranks.tells_of_first:
                record_loss(run_dir, str(error))
            raise
    return {"status": "done", "reason": "", "score": None, "seconds": None}


def record_loss(run_dir: Path, reason: str) -> None:
    """Say that a process of the training is gone, where the one that keeps the record cannot do so any more."""
    with suppress(MedsegError), recorded(run_dir) as result:
        result["reason"] = reason


def train_in_run_directory(
    config: dict[str, Any],
    settings: S,
    dataset: Dataset,
    classes: LabelMap,
    ranks: Ranks,
    fit: Callable[[Run[S], Selection, Callable[[], None]], Fitted],
    selection: Selection,
    finish: Callable[[Run[S], dict[str, Any]], dict[str, float]],
) -> dict[str, Any]:
    """Set up or take up a training, fit, and return its result, as it is in ``result.json``.

    Args:
        config: unresolved; its ``run_dir`` has been made.
        settings: what it says.
        dataset: all cases.
        classes: the classes to learn.
        ranks: the processes that train together, of which this is the first.
        fit: trains, tells the selection of its validations, and calls its third argument when the first step is done.
        selection: which validation counts, of which there are none yet.
        finish: adds status and score to the result; returns scores for the trackers.
    """
    set_float32_products(ranks.device, deterministic=settings.trainer.deterministic)
    with ExitStack() as stack:
        stack.enter_context(in_use(cache_of(settings)))
        if settings.dataset.verify:
            hashes_in(cache_of(settings)).verify()
        run = (reopen if settings.resume else set_up)(config, settings, dataset, classes, ranks)
        this = stack.enter_context(session(run))
        ranks.last_words = partial(record_loss, run.directory)
        announce(run)
        if finished := result_of_finished(run, selection):
            this.open()
        ranks.start(run.config)
        ranks.tell("run", [run.config, bool(finished)])
        try:
            fitted, trackers, step = finished or fit(run, selection, this.begin)
        except KeyboardInterrupt:  # there may be best weights, which are of use
            this.result |= {**best_so_far(selection), "is_trained": False}
            raise
        this.result |= fitted
        run.progress_file.tell("testing", seconds_left=None)
        trackers.end(finish(run, this.result), step, run.directory)
    return this.result
