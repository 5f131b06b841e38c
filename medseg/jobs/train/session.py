"""What the directory of a training keeps of it: its log, its result and, where it is resumed, its new settings."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging.handlers import MemoryHandler
from typing import Any

from medseg.jobs.rundir import logged_to, recorded, write_config
from medseg.jobs.train.setup import Run
from medseg.system.files import remove_leftovers

log = logging.getLogger(__name__)

CAPACITY = 10**6  # log lines


class Session:
    """A training that writes into its run directory: a new one from the start, a resumed one from ``begin`` on."""

    def __init__(self, run: Run, stack: ExitStack) -> None:
        self.run, self.stack, self.started = run, stack, time.monotonic()
        self.result: dict[str, Any] = {}
        self.is_open = False
        self.lines = MemoryHandler(CAPACITY, flushLevel=logging.CRITICAL + 1, flushOnClose=False)

    def begin(self) -> None:
        """Write down that training goes on by new settings, which have been found good."""
        if not self.is_open:
            write_config(self.run.directory / "config.yaml", self.run.config)
        self.open()

    def open(self) -> None:
        """Keep log and result from now on, and the log lines so far."""
        if self.is_open:
            return
        self.is_open = True
        remove_leftovers(self.run.directory)
        file = self.stack.enter_context(logged_to(self.run.directory / "train.log"))
        for record in self.lines.buffer:
            file.handle(record)
        self.result = self.stack.enter_context(recorded(self.run.directory, self.started))


@contextmanager
def session(run: Run) -> Iterator[Session]:
    """Keep the log and the result of a training in its directory while the block runs.

    Where a resumed training fails before it opens the session, its directory is left as it was, byte for byte.
    """
    before = {*run.directory.rglob("*")}
    with ExitStack() as stack:
        this = Session(run, stack)
        if not run.settings["resume"]:
            this.open()
        logger = logging.getLogger("medseg")
        logger.addHandler(this.lines)
        stack.callback(logger.removeHandler, this.lines)
        try:
            yield this
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and this.is_open and run.last.is_file():
                log.info("to go on: medseg %s resume=%s", run.config["command"], run.directory)
            for path in () if this.is_open else run.directory.rglob("*"):
                if path not in before and path.is_file():  # such as an empty log of TensorBoard's
                    path.unlink()
            raise
