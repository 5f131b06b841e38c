"""All trackers of a run as the one logger that Lightning knows, and what they take beyond Lightning's loggers."""

import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray

from medseg.config.instantiate import build
from medseg.config.untrusted import SWEEP, read_json_object
from medseg.errors import MedsegError, first_line
from medseg.system.files import write_json
from medseg.system.locks import NotLockableError, open_locked
from medseg.training.trackers.hyperparameters import hyperparameters

log = logging.getLogger(__name__)

IDS, LOCK = "trackers.json", ".trackers.lock"
"""The file in a run's or a sweep's folder with the id that each tracker has for it, and the lock to write it."""

FILES = (
    *("config.yaml", "plan.json", "environment.json", "metrics.csv"),
    *("test/metrics.json", "test/cases.csv", "test/report.html"),
)
"""What a tracker that takes files gets of a run's directory."""


class Tracker(Logger):
    """A logger of Lightning's that takes images, texts and files, too."""

    def connect(self) -> None:
        """Do what takes seconds and writes nothing into the run's directory, which may still be left as it is."""

    @abstractmethod
    def image(self, tag: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Log an image (H, W) or (H, W, 3)."""

    @abstractmethod
    def text(self, tag: str, text: str, step: int) -> None:
        """Log a line of text."""

    @abstractmethod
    def end(self, run_dir: Path, checkpoint: Path) -> None:
        """Log ``FILES`` of a run that has come to its end, and where its best checkpoint is."""

    @property
    def name(self) -> str:
        """Nothing: where a tracker writes is its own affair."""
        return ""

    @property
    def version(self) -> str:
        """Nothing, as ``name``."""
        return ""


class Trackers(Logger):
    """All trackers of a run, by the names of their options, as one of Lightning's loggers.

    A training does not end with a tracker: one that fails, on a full disk or without its server, is left out from then
    on. Loggers that are no ``Tracker``, such as Lightning's own for CSV files, get scores and settings alone.
    """

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        super().__init__()
        self.loggers = dict(loggers)

    @property
    def take_images(self) -> bool:
        """Whether images are wanted at all."""
        return any(isinstance(logger, Tracker) for logger in self.loggers.values())

    def connect(self) -> None:
        """Do what takes seconds, which are not to count as those of the first step."""
        self._each(lambda logger: logger.connect(), Tracker)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Log a run's settings, its plan filled in."""
        self.log_hyperparams(hyperparameters(settings))

    def image(self, tag: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Log an image (H, W) or (H, W, 3)."""
        self._each(lambda logger: logger.image(tag, pixels, step), Tracker)

    def text(self, tag: str, text: str, step: int) -> None:
        """Log a line of text."""
        self._each(lambda logger: logger.text(tag, text, step), Tracker)

    def end(self, scores: Mapping[str, float], step: int, run_dir: Path) -> None:
        """Log a run's last scores and its files: it has come to its end."""
        checkpoint = run_dir / "checkpoints" / "best.ckpt"
        self.log_metrics(scores, step)
        self._each(lambda logger: logger.end(run_dir, checkpoint), Tracker)
        self.finalize("success")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scores."""
        self._each(lambda logger: logger.log_metrics(dict(metrics), step=step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log settings."""
        self._each(lambda logger: logger.log_hyperparams(params))

    def save(self) -> None:
        """Write what is not written yet."""
        self._each(lambda logger: logger.save())

    def finalize(self, status: str) -> None:
        """End a session, with the status ``success`` or ``failed``."""
        self._each(lambda logger: logger.finalize(status))

    @property
    def name(self) -> str:
        """Nothing: several have no name."""
        return ""

    @property
    def version(self) -> str:
        """Nothing, as ``name``."""
        return ""

    def _each(self, call: Callable[[Any], None], kind: type[Any] = Logger) -> None:
        """Call each logger of a kind, and leave out those that fail."""
        for name, logger in list(self.loggers.items()):
            if not isinstance(logger, kind):
                continue
            try:
                call(logger)
            except Exception as error:  # whatever a package of another raises
                del self.loggers[name]
                log.warning(
                    "logger=%s failed: %s. The training goes on without it; its scores are in metrics.csv.",
                    *(name, first_line(error) or type(error).__name__),
                )


def make_trackers(nodes: Mapping[str, Any], trust: Collection[str]) -> Trackers:
    """Build the loggers that the node ``logger`` of a config has by name."""
    return Trackers({name: build(node, "logger", trust) for name, node in nodes.items()})


def sweep_of(run_dir: Path) -> Path | None:
    """Return the folder of the sweep that a run is a job of, None where it is none."""
    return run_dir.parent if (run_dir.parent / SWEEP).is_file() else None


def known_id(folder: Path, tracker: str, make: Callable[[], str]) -> str:
    """Return the id of a run, or of a sweep, at a tracker: made once, so that one that is resumed goes on under it.

    Jobs of a sweep that begin together wait for the one that makes the sweep's.

    Raises:
        MedsegError: the file in the folder does not hold ids.
    """
    path = folder / IDS
    with ExitStack() as stack:
        with suppress(NotLockableError):
            stack.enter_context(open_locked(folder / LOCK))
            stack.callback((folder / LOCK).unlink)  # still locked: those who wait make it anew
        ids = read_json_object(path) if path.is_file() else {}
        if tracker not in ids:
            ids[tracker] = make()
            write_json(path, ids)
    if not (isinstance(ids[tracker], str) and re.fullmatch(r"[\w-]{1,64}", ids[tracker])):  # it becomes a file's name
        raise MedsegError(f"{path}: {ids[tracker]!r} is no id of {tracker}. Remove the file, to begin anew there.")
    return str(ids[tracker])
