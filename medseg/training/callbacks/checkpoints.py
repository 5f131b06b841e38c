"""Which weights are the best: by the validation Dice, or loss, smoothed over a few validations.

The best of many noisy scores is mostly a lucky one. The mean of the last three cannot be lucky three times, and it
prefers weights in whose neighbourhood training stayed good.
"""

import copy
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from medseg.system.files import write_torch
from medseg.system.running.signals import Handler, Interrupted
from medseg.system.torch_files import load_safely
from medseg.training.callbacks.unlearned import Unlearned
from medseg.training.optim.divergence import check_weights

log = logging.getLogger(__name__)

WINDOW = 3
"""Validations in the mean."""
INTERVAL = 60.0
"""Seconds from one state of the run to the next: copying it takes a GPU some tenths of a second."""
BEST, LAST = "best.ckpt", "last.ckpt"
NEXT_BEST = "next_best.ckpt"
"""Weights that were chosen since the last state of the run was written."""


@dataclass
class Selection:
    """The validation scores of a run so far, and the choice that they lead to.

    ``epochs`` (counted from one) and ``scores`` belong together; ``best`` is the index of the chosen one. ``name`` is
    what the score is called, and ``lowest`` tells that low ones are good. ``unlearned`` are the classes whose own score
    stays near 0.
    """

    epochs: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: int | None = None
    name: str = "Dice"
    lowest: bool = False
    unlearned: Unlearned = field(default_factory=Unlearned)

    def add(self, epoch: int, score: float) -> None:
        """Take in a validation. Of equal smoothed scores the later one is chosen."""
        self.epochs.append(epoch)
        self.scores.append(score)
        if self.best is None or self.sign * self.smoothed() >= self.sign * self.smoothed(self.best):
            self.best = len(self.scores) - 1

    @property
    def sign(self) -> int:
        """What makes a score one of which more is better."""
        return -1 if self.lowest else 1

    @property
    def key(self) -> str:
        """The score's name in files and logs."""
        return self.name.lower()

    def smoothed(self, index: int = -1) -> float:
        """Return the mean of the score at ``index`` and of up to two before it."""
        last = range(len(self.scores))[index] + 1
        return float(np.mean(self.scores[max(0, last - WINDOW) : last]))

    @property
    def is_best(self) -> bool:
        """Whether the latest validation is the chosen one."""
        return self.best == len(self.scores) - 1

    @property
    def best_score(self) -> float:
        """The validation score of the chosen weights; NaN before the first validation."""
        return float("nan") if self.best is None else self.scores[self.best]

    def report(self) -> dict[str, Any] | None:
        """Return the chosen validation, the last one, and the noise of the choice; None without a validation.

        ``noise`` is the standard deviation of one validation score about the curve, from the differences of
        neighbouring scores in the later half, whose variance is twice that of one score; None with fewer than three.
        """
        if self.best is None:
            return None
        steps = np.diff(self.scores[len(self.scores) // 2 :])
        noise = round(float(np.sqrt(np.mean(steps**2) / 2)), 6) if len(steps) >= WINDOW else None
        return {"best": self._entry(self.best), "last": self._entry(-1), "noise": noise}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {
            "epochs": list(self.epochs),
            "scores": list(self.scores),
            "unlearned": self.unlearned.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.epochs, self.scores, self.best = [], [], None
        for epoch, score in zip(state["epochs"], state["scores"], strict=True):
            self.add(int(epoch), score)
        if "unlearned" in state:  # which earlier versions did not keep
            self.unlearned.load_state_dict(state["unlearned"])

    def _entry(self, index: int) -> dict[str, float]:
        return {
            "epoch": self.epochs[index],
            self.key: round(self.scores[index], 6),
            "smoothed": round(self.smoothed(index), 6),
        }


class Checkpoints(Checkpoint):
    """Keeps the weights that the selection calls best in ``best.ckpt`` and the state to resume from in ``last.ckpt``.

    ``last.ckpt`` holds the weights of the last step and the averaged ones, ``best.ckpt`` those that were validated.
    Lightning's ModelCheckpoint would store this machine's paths in them. As a ``Checkpoint`` it is called by Lightning
    after all other callbacks, whose states and files are those of this epoch by then.

    A file of some GB after each short epoch would make a GPU wait, so ``last.ckpt`` is written after a step or an epoch
    that ends ``INTERVAL`` seconds after the one before, after the first epoch and the last, and whenever other weights
    became the best. These lie in ``next_best.ckpt`` until a ``last.ckpt`` that knows of them is whole: what a resumed
    run knows of the best weights is so true of ``best.ckpt``. Killed in between, a run repeats the steps since
    ``last.ckpt``, with the same patches and draws, and writes their rows of ``metrics.csv`` and the best weights again.

    A signal that asks the process to end waits, from the first step on, for the end of the step under way. It also ends
    a validation, which a resumed run makes from its beginning. Several processes end together: after the same step, or
    after the epoch.
    """

    def __init__(self, folder: Path, selection: Selection, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.selection, self.clock = folder, selection, clock
        self.signals = Handler()
        self.saved_at = 0.0
        self.is_first = True  # of the states to be saved at the end of an epoch
        self.is_best_ahead = False  # of last.ckpt

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the signals, which Lightning has just taken and gives back in the end, and begin to count time."""
        self.signals.install()
        self.saved_at = self.clock()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the state within the epoch where it is time to, or where a signal asks the training to end."""
        self.signals.is_waited_for = True
        is_end = trainer.should_stop or batch_idx + 1 == trainer.num_training_batches  # validation and epoch end follow
        if is_end or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        is_time = self.clock() - self.saved_at >= INTERVAL and not files_of(trainer).is_writing
        number, is_due = largest(trainer, self.signals.received or 0, int(is_time and trainer.is_global_zero))
        if number or is_due:
            self.save_state(trainer, module)
        self.end_at(number, trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """End where a signal asks for it, with the state before the validation, which changes no trained weights."""
        if self.signals.received and trainer.world_size == 1:  # others may have fewer cases, and ask one time less
            # What Lightning's loop would have of a validation that broke off in its first case, which it begins again
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()
            progress.increment_started()
            self.save_state(trainer, module)
            self.end_at(self.signals.received, trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep these weights if none before were better."""
        if self.selection.is_best:
            self.save(trainer, NEXT_BEST, weights_only=True)
            self.is_best_ahead = True

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the state of the run where it is time to, unless its latest loss says that it is a bad one."""
        files = files_of(trainer)
        files.check()
        [number] = largest(trainer, self.signals.received or 0)
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        is_time = self.clock() - self.saved_at >= INTERVAL and not files.is_writing
        is_due = number or self.is_first or is_last or self.is_best_ahead or is_time
        if trainer.strategy.broadcast(is_due) and self.save_state(trainer, module):  # one clock for all
            if self.is_first:
                files.wait()  # what is wrong with the disk shows now, and from here on there is a state to resume from
            self.is_first = False
        self.end_at(number, trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Wait until the files are written, and keep the best weights, also those of a last epoch with a bad loss."""
        files_of(trainer).wait()
        if trainer.is_global_zero:
            replace_best(self.folder)
        self.signals.is_waited_for = False
        self.end_at(self.signals.received or 0, trainer)

    def save_state(self, trainer: Trainer, module: LightningModule) -> bool:
        """Save the state of the run, unless its latest loss says that it is a bad one; return whether it was saved."""
        is_finite = module.step_record.is_last_loss_finite  # type: ignore[union-attr]
        if not trainer.strategy.reduce_boolean_decision(is_finite):  # type: ignore[arg-type]
            return False
        self.save(trainer, LAST, weights_only=False)
        self.saved_at, self.is_best_ahead = self.clock(), False
        return True

    def end_at(self, number: int, trainer: Trainer) -> None:
        """End the training if there is the number of a signal, once all files are written."""
        if number:
            files_of(trainer).wait()
            raise Interrupted(number, f"after step {trainer.global_step}")

    def save(self, trainer: Trainer, name: str, *, weights_only: bool) -> None:
        """Save a checkpoint; every process takes part, the first one writes.

        Raises:
            MedsegError: weights, statistics or the optimizer's state are not finite.
        """
        check_weights(trainer, trainer.lightning_module)
        trainer.save_checkpoint(self.folder / name, weights_only=weights_only)

    def state_dict(self) -> dict[str, Any]:
        """Keep the validation scores in the checkpoint."""
        return dict(self.selection.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scores over from the resumed run."""
        if "scores" in state_dict:  # earlier versions kept only the best one
            self.selection.load_state_dict(state_dict)


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints in a thread, from a copy in host memory, while training goes on.

    They are written whole, beside where they belong; Lightning would write them into the system's /tmp first.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "medseg-checkpoint")
        self.writing: dict[Path, Future[None]] = {}
        self.copies: dict[Path, Any] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Copy a checkpoint and begin to write it, once the file before it of the same name is written.

        ``last.ckpt`` puts the weights of ``next_best.ckpt`` in place, and is not written where these could not be.

        Raises:
            MedsegError: that file could not be written.
        """
        path = Path(path)
        self.wait(path)
        self.copies[path] = copied(checkpoint, self.copies.get(path))
        best = self.writing.get(path.with_name(NEXT_BEST))  # before it in the thread

        def write() -> None:
            if path.name != LAST:
                write_torch(path, self.copies[path])
            elif not (best and best.exception()):
                write_torch(path, self.copies[path])
                replace_best(path.parent)

        self.writing[path] = self.thread.submit(write)

    @property
    def is_writing(self) -> bool:
        """Whether a file is still being written."""
        return not all(future.done() for future in self.writing.values())

    def check(self) -> None:
        """Raise MedsegError if a file could not be written, without waiting for those that are being written."""
        for path, future in tuple(self.writing.items()):
            if future.done():
                self.wait(path)

    def wait(self, path: Path | None = None) -> None:
        """Wait until a file, or all, are written; raise MedsegError if one could not be."""
        for each in tuple(self.writing) if path is None else (path,):
            if future := self.writing.pop(each, None):
                future.result()

    def teardown(self) -> None:
        """Wait for what is still to be written of a training that ends early, by an error or Ctrl-C."""
        for path, future in self.writing.items():
            if error := future.exception():  # the training's own error is the one to raise
                log.error("%s: %s", path, error)
        self.thread.shutdown()
        self.copies.clear()


def largest(trainer: Trainer, *values: int) -> list[int]:
    """Return the largest that any process of a training has of each value."""
    if trainer.world_size == 1:
        return [*values]
    own = torch.tensor(values, device=trainer.strategy.root_device)
    of_all: list[int] = trainer.strategy.reduce(own, reduce_op="max").tolist()
    return of_all


def replace_best(folder: Path) -> None:
    """Put the weights of ``next_best.ckpt``, if there are any, in the place of ``best.ckpt``."""
    with suppress(FileNotFoundError):
        (folder / NEXT_BEST).replace(folder / BEST)


def settle_best(folder: Path, selection: Selection) -> None:
    """Let ``best.ckpt`` be what the state of a run to resume has chosen, wherever the run was killed.

    A ``next_best.ckpt`` is of that choice, or of an epoch that is to be repeated, maybe with other settings.

    Raises:
        MedsegError: it cannot be read.
    """
    file = folder / NEXT_BEST
    if not file.is_file():
        return
    advice = f" Restore it, or remove it to go on with the weights of {BEST}."
    content = load_safely(file, advice=advice, mmap=True)
    chosen = None if selection.best is None else selection.epochs[selection.best] - 1  # Lightning counts from zero
    if isinstance(content, dict) and content.get("epoch", -1) == chosen:
        replace_best(folder)
    else:
        file.unlink()


def files_of(trainer: Trainer) -> CheckpointFiles:
    """Return what writes the checkpoints of a training."""
    files: Any = trainer.strategy.checkpoint_io
    return cast(CheckpointFiles, files)


def copied(node: Any, former: Any = None) -> Any:
    """Return a copy of nested containers whose tensors are in host memory.

    Tensors are written over those of a ``former`` copy where it has the same shapes: fresh memory takes several times
    as long as the copy itself.
    """
    if isinstance(node, Tensor):
        is_same = isinstance(former, Tensor) and (former.shape, former.dtype) == (node.shape, node.dtype)
        return (former if is_same else torch.empty_like(node, device="cpu")).copy_(node.detach())
    if isinstance(node, dict):
        result = copy.copy(node)  # of its own type, with the versions that a network's state has as an attribute
        of_keys = former if isinstance(former, dict) else {}
        result.update({key: copied(value, of_keys.get(key)) for key, value in node.items()})
        return result
    if isinstance(node, list | tuple):
        of_items = former if isinstance(former, list | tuple) and len(former) == len(node) else [None] * len(node)
        return type(node)(copied(value, old) for value, old in zip(node, of_items, strict=True))
    return copy.deepcopy(node)
