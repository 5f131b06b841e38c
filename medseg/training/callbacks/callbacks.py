"""What happens round a training step: the budget, the log, the content of checkpoints."""

import logging
from collections.abc import Callable, Sequence
from csv import Error as CsvError
from math import isnan
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins.io import TorchCheckpointIO

from medseg.errors import MedsegError
from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.io.csv_files import as_csv, read_csv
from medseg.system.files import write_text, write_torch
from medseg.training.callbacks.divergence import check_weights, record_of
from medseg.training.callbacks.progress import Progress
from medseg.training.callbacks.selection import Selection

log = logging.getLogger(__name__)

NEVER = 10**9  # epochs
MESSAGES = 10
"""Batches from one message of the first process to the others to the next: how far the run is, and whether to stop."""


GAUGES = {
    "grad_norm": "train/grad_norm",
    "step_seconds": "train/step_seconds",
    "data_share": "train/data_share",
}
"""Columns of ``metrics.csv`` and what ``medseg.training.callbacks.step_metrics`` calls them."""


class Budget(Callback):
    """Ends training when the budget is used up and decides after which epochs to validate.

    Lightning's own interval is fixed; here it may follow the time: a validation waits until enough training has gone by
    for validations to stay below ``share`` of the time. The last weights are always validated.
    """

    def __init__(self, progress: Progress, *, interval: int | None, share: float) -> None:
        self.progress, self.interval, self.share = progress, interval, share
        self.began = 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin to count time, from where a resumed run stopped."""
        self.progress.start()
        self.progress.step = trainer.global_step
        self.progress.current = trainer.strategy.broadcast(self.progress.fraction)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop when the budget is used up; settle whether this epoch ends with a validation."""
        self.progress.step = trainer.global_step
        is_last_of_epoch = batch_idx + 1 == trainer.num_training_batches
        if trainer.world_size > 1 and (batch_idx + 1) % MESSAGES and not is_last_of_epoch:
            return  # a message to all processes would make a GPU wait
        own = (self.progress.fraction, self.is_validation_due(trainer.current_epoch + 1))
        self.progress.current, is_due = trainer.strategy.broadcast(own)  # the first process decides for all
        trainer.should_stop = trainer.should_stop or self.progress.current >= 1
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_due or is_last else NEVER

    def is_validation_due(self, epoch: int) -> bool:
        """Tell whether ``epoch``, counted from one, ends with a validation."""
        if self.interval is not None:
            return epoch % self.interval == 0
        return self.progress.is_validation_worth_it(self.share)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock of a validation."""
        self.began = self.progress.clock()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Tell the progress what the validation took."""
        self.progress.validated(self.progress.clock() - self.began)

    def state_dict(self) -> dict[str, Any]:
        """Keep the time used in the checkpoint."""
        return dict(self.progress.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where the resumed run stopped."""
        self.progress.load_state_dict(state_dict)


class FirstStep(Callback):
    """Calls ``begin`` once, after the first step of a training, new or resumed: its settings have been found good."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self.begin = begin
        self.step: int | None = None  # at which training starts; None before it does
        self.is_done = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Remember how many steps a resumed run has made before."""
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Call ``begin`` once weights have changed, which takes several batches where gradients are accumulated."""
        if not self.is_done and trainer.global_step != self.step:
            self.is_done = True
            self.begin()


class Patience(EarlyStopping):
    """Ends training after ``patience`` validations without a gain; a resumed run goes by its own patience."""

    @property
    def state_key(self) -> str:
        """Return the name of the state in checkpoints, also in those of versions without this class."""
        return f"EarlyStopping{ {'monitor': self.monitor, 'mode': self.mode}!r}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the count of validations, not the patience, which Lightning would."""
        super().load_state_dict({**state_dict, "patience": self.patience})


class EpochLog(Callback):
    """Writes a row an epoch into ``metrics.csv`` and a line an epoch into the log."""

    def __init__(self, path: Path, progress: Progress, selection: Selection, classes: Sequence[str]) -> None:
        self.path, self.progress, self.selection = path, progress, selection
        self.names = ScoreNames(selection.key, classes)
        self.columns = ["epoch", "step", "seconds", "lr", "train_loss", *GAUGES, *(name.column for name in self.names)]
        self.rows: list[dict[str, Any]] = []
        self.is_validated = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Take over the rows of the run that this one resumes."""
        if self.path.is_file():
            try:
                self.rows = [row for row in read_csv(self.path) if int(row["epoch"]) <= trainer.current_epoch]
            except (OSError, ValueError, TypeError, KeyError, CsvError) as error:
                raise MedsegError(
                    f"{self.path}: no table of this run's epochs ({error}). Restore it, or remove it: the rows of the"
                    " epochs until now are lost then."
                ) from error

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Note that this epoch's row has validation scores."""
        self.is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Add this epoch's row."""
        metrics = trainer.callback_metrics  # by all processes: it is now that Lightning takes their mean
        if not trainer.is_global_zero:
            return
        scores = {name.column: metrics[name.tag].item() for name in self.names} if self.is_validated else {}
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "seconds": round(self.progress.seconds, 1),
                "lr": max(rates_of(trainer).values()),
                "train_loss": metrics["train/loss"].item(),
                **{column: metrics[tag].item() for column, tag in GAUGES.items()},
                **scores,
            }
        )
        self.is_validated = False
        for logger in trainer.loggers:
            logger.log_metrics(rates_of(trainer), step=trainer.global_step)
        self.write()
        self.tell(self.rows[-1], [*rates_of(trainer).values()])

    def write(self) -> None:
        """Write all rows, whole."""
        write_text(self.path, as_csv(self.columns, self.rows))

    def tell(self, row: dict[str, Any], rates: Sequence[float]) -> None:
        """Log one epoch in one line, with the lowest and highest of several learning rates."""
        line = f"epoch {row['epoch']} · step {row['step']} · {row['seconds']:.0f} s · loss {row['train_loss']:.4f}"
        line += f" · {row['step_seconds']:.2g} s a step, {row['data_share']:.0%} waiting for data"
        if (mean := self.names.mean.column) in row:
            mark = " (best)" if self.selection.is_best else ""
            each = [f"{class_name} {written(row[name.column])}" for class_name, name in self.names.classes.items()]
            line += f" · validation {self.selection.name} {row[mean]:.4f}{mark}"
            line += f": {', '.join(each)}" if each else ""
        log.info(line + (f" · rates {min(rates):.2g} to {max(rates):.2g}" if len({*rates}) > 1 else ""))


def rates_of(trainer: Trainer) -> dict[str, float]:
    """Return the learning rate, or that of each group of parameters, by the name that loggers get."""
    groups = trainer.optimizers[0].param_groups
    if len(groups) == 1:
        return {"train/lr": groups[0]["lr"]}
    return {f"train/lr/{group['name']}": group["lr"] for group in groups}


def written(score: float) -> str:
    """Write a score, a dash where no case has one."""
    return "–" if isnan(score) else f"{score:.4f}"


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints whole, beside where they belong; Lightning would write them into the system's /tmp first."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        write_torch(Path(path), checkpoint)


class Checkpoints(Callback):
    """Keeps the weights that the selection calls best in ``best.ckpt`` and the state to resume from in ``last.ckpt``.

    ``last.ckpt`` holds the weights of the last step and the averaged ones, ``best.ckpt`` those that were validated.
    Lightning's ModelCheckpoint would store this machine's paths in them.
    """

    def __init__(self, folder: Path, selection: Selection) -> None:
        self.folder, self.selection = folder, selection

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep these weights if none before were better."""
        if self.selection.is_best:
            self.save(trainer, "best.ckpt", weights_only=True)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the state of the run, unless its latest loss says that it is a bad one."""
        if trainer.strategy.reduce_boolean_decision(record_of(module).is_last_loss_finite):
            self.save(trainer, "last.ckpt", weights_only=False)

    def save(self, trainer: Trainer, name: str, *, weights_only: bool) -> None:
        """Write a checkpoint whole; every process takes part, the first one writes.

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
