"""What each epoch was like (loss, rates, scores, gradient norm, speed), in ``metrics.csv``, loggers and the log."""

import logging
import time
from collections.abc import Callable, Sequence
from csv import Error as CsvError
from math import isnan
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from medseg.errors import MedsegError
from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.io.csv_files import as_csv, read_csv
from medseg.system.files import write_text
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.callbacks.progress import Progress
from medseg.training.optim.finetuning import rate_as_set

log = logging.getLogger(__name__)

STEP_METRICS = {
    "grad_norm": "train/grad_norm",
    "step_seconds": "train/step_seconds",
    "data_share": "train/data_share",
}
"""Columns of ``metrics.csv`` and what ``StepMetrics`` logs them as."""


class StepMetrics(Callback):
    """Measures the steps of each epoch, without validation: loss, gradient norms, seconds a step, waiting for data.

    A step is one of the optimizer. Norms are those before clipping; with the losses they stay on the device until the
    epoch's last step, so that a GPU is waited for once an epoch. Waiting is counted by this process: on a GPU it
    computes meanwhile what it was given before, so the share is the most that loading may cost.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.losses: list[Tensor] = []  # of batches
        self.norms: list[Tensor] = []
        self.loss = self.norm = self.largest_norm = float("nan")
        self.began = self.waited_before = 0.0
        self.step_before = self.steps = 0
        self.seconds = self.waited = 0.0
        self.is_finished = False  # all of the epoch's steps are measured

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Go on with the epoch that a resumed run was in."""
        self.losses, self.norms = ([each.to(module.device) for each in part] for part in (self.losses, self.norms))
        self.began, self.waited_before = self.clock() - self.seconds, waited(trainer) - self.waited
        self.step_before = trainer.global_step - self.steps

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin an epoch."""
        self.losses, self.norms, self.steps, self.is_finished = [], [], 0, False
        self.began, self.waited_before, self.step_before = self.clock(), waited(trainer), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep a batch's loss and a step's norm, and look at the clock."""
        self.losses.append(outputs["loss"] * trainer.accumulate_grad_batches)  # Lightning's is its share of the step
        self.steps = trainer.global_step - self.step_before
        if self.steps > len(self.norms):  # else gradients are being accumulated
            self.norms.append(module.gradient_norm)  # type: ignore[arg-type]
        self.seconds = self.clock() - self.began
        self.waited = waited(trainer) - self.waited_before

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the time of the validation out."""
        self.finish()

    def finish(self) -> dict[str, float]:
        """Return what an epoch is logged as; the first call after its last step waits until the device is done."""
        if not self.is_finished:
            self.norm, self.largest_norm = mean_and_largest(self.norms)
            self.loss = mean(self.losses)
            self.is_finished = True
            self.seconds = self.clock() - self.began
        return {
            "train/loss": self.loss,
            "train/grad_norm": self.norm,
            "train/grad_norm_max": self.largest_norm,
            "train/step_seconds": self.step_seconds,
            "train/data_share": self.data_share,
        }

    @property
    def step_seconds(self) -> float:
        """Seconds a step took in this epoch; NaN before the first."""
        return self.seconds / self.steps if self.steps else float("nan")

    @property
    def data_share(self) -> float:
        """Share of this epoch's time in which a batch was waited for; NaN before the first."""
        return self.waited / self.seconds if self.seconds else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that is resumed within an epoch must know of its steps before."""
        parts = {"losses": self.losses, "norms": self.norms}
        stacked = {name: torch.stack(part) if part else torch.empty(0) for name, part in parts.items()}
        return {**stacked, "steps": self.steps, "seconds": self.seconds, "waited_seconds": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.losses, self.norms = [*state["losses"]], [*state["norms"]]
        self.steps, self.seconds, self.waited = state["steps"], state["seconds"], state["waited_seconds"]


def waited(trainer: Trainer) -> float:
    """Return the seconds in which training has waited for batches so far."""
    return float(getattr(trainer.train_dataloader, "waited", 0.0))


def mean(losses: list[Tensor]) -> float:
    """Fetch losses and return their mean; NaN of none."""
    return torch.stack(losses).mean().item() if losses else float("nan")


def mean_and_largest(norms: list[Tensor]) -> tuple[float, float]:
    """Fetch norms; those that overflowed in fp16, whose steps the loss scaling skips, are left out."""
    fetched = torch.stack(norms).cpu() if norms else torch.empty(0)
    finite = fetched[fetched.isfinite()]
    return (finite.mean().item(), finite.max().item()) if len(finite) else (float("nan"), float("nan"))


class EpochLog(Callback):
    """Logs an epoch's steps, writes its row into ``metrics.csv`` and its line into the log."""

    def __init__(
        self, path: Path, progress: Progress, selection: Selection, step_metrics: StepMetrics, classes: Sequence[str]
    ) -> None:
        self.path, self.progress, self.selection, self.step_metrics = path, progress, selection, step_metrics
        self.names = ScoreNames(selection.key, classes)
        self.columns = [
            "epoch",
            "step",
            "seconds",
            "lr",
            "train_loss",
            *STEP_METRICS,
            *(name.column for name in self.names),
        ]
        self.rows: list[dict[str, Any]] = []

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

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Add this epoch's row."""
        module.log_dict(self.step_metrics.finish(), sync_dist=True)
        metrics = trainer.callback_metrics  # by all processes: it is now that Lightning takes their mean
        if not trainer.is_global_zero:
            return
        is_validated = self.selection.epochs[-1:] == [trainer.current_epoch + 1]
        scores = {name.column: metrics[name.tag].item() for name in self.names} if is_validated else {}
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "seconds": round(self.progress.seconds, 1),
                "lr": rates_of(trainer)["train/lr"],
                "train_loss": metrics["train/loss"].item(),
                **{column: metrics[tag].item() for column, tag in STEP_METRICS.items()},
                **scores,
            }
        )
        for logger in trainer.loggers:
            logger.log_metrics(rates_of(trainer), step=trainer.global_step)
        write_text(self.path, as_csv(self.columns, self.rows))
        self.log_row(self.rows[-1])

    def log_row(self, row: dict[str, Any]) -> None:
        """Log one epoch in one line."""
        line = f"epoch {row['epoch']} · step {row['step']} · {row['seconds']:.0f} s · loss {row['train_loss']:.4f}"
        line += f" · {row['step_seconds']:.2g} s a step, {row['data_share']:.0%} waiting for data"
        if (mean := self.names.mean.column) in row:
            mark = " (best)" if self.selection.is_best else ""
            each = [f"{class_name} {written(row[name.column])}" for class_name, name in self.names.classes.items()]
            line += f" · validation {self.selection.name} {row[mean]:.4f}{mark}"
            line += f": {', '.join(each)}" if each else ""
        log.info("%s", line)


def rates_of(trainer: Trainer) -> dict[str, float]:
    """Return the learning rate, and those of groups of parameters that have others, by the names that loggers get."""
    groups = trainer.optimizers[0].param_groups
    rates = {"train/lr": rate_as_set(trainer.optimizers[0])}
    if len(groups) == 1 and groups[0].get("factor", 1) == 1:
        return rates
    return rates | {f"train/lr/{group['name']}": group["lr"] for group in groups}


def written(score: float) -> str:
    """Write a score, a dash where no case has one."""
    return "–" if isnan(score) else f"{score:.4f}"
