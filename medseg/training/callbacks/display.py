"""The display of a training on a terminal: where it is, what a step costs, what it has learned."""

import logging
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from math import isfinite, isnan
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from medseg.system.printable import on_a_line
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.callbacks.epoch_log import EpochLog, StepMetrics, log, mean, written
from medseg.training.callbacks.progress import Progress, epoch_of
from medseg.training.optim.finetuning import rate_as_set

EVERY = 1.0
"""Seconds from one drawing to the next at least: each waits for the GPU and takes some milliseconds."""
LONGEST = 24
"""Letters of a class's name that are shown."""
DOT = " · "


class Display(Callback):
    """Draws on ``console`` while training goes on, in place of the log's line an epoch; only the first process draws.

    Nothing runs beside the training: what is shown is what was known at the latest step or validated case.
    """

    def __init__(
        self, console: Console, progress: Progress, selection: Selection, step_metrics: StepMetrics, epochs: EpochLog
    ) -> None:
        self.console, self.progress, self.selection = console, progress, selection
        self.step_metrics, self.epochs = step_metrics, epochs
        self.live = Live(console=console, auto_refresh=False)
        self.drawn_at = 0.0
        self.doing = "training"

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin to draw, and keep the log's epochs from the terminal."""
        if trainer.is_global_zero:
            for handler in logging.getLogger().handlers:
                handler.addFilter(is_no_epoch)
            self.live.start()
            self.draw(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show a step."""
        self.draw_at_times(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note a validated case."""
        self.doing = f"validating, {batch_idx + 1} of {trainer.num_val_batches[0]}"
        self.draw_at_times(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Go back to training."""
        self.doing = "training"

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Show what the log says of the epoch."""
        self.draw_at_times(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Leave the last state on the terminal."""
        if self.live.is_started:
            self.draw(trainer)
        self.stop()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self.stop()

    def stop(self) -> None:
        """End drawing, and give the terminal back to the log."""
        self.live.stop()
        for handler in logging.getLogger().handlers:
            handler.removeFilter(is_no_epoch)

    def draw_at_times(self, trainer: Trainer) -> None:
        """Draw unless this was done a moment ago."""
        if self.live.is_started and time.monotonic() - self.drawn_at >= EVERY:
            self.draw(trainer)

    def draw(self, trainer: Trainer) -> None:
        """Draw the state of now: a bar, then lines on the position, the pace, what is learned, and validations."""
        progress, steps, epoch = self.progress, self.step_metrics, epoch_of(trainer)
        of_epochs = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        of_steps = f" of {progress.last_step:,.0f}" if isfinite(progress.last_step) else ""
        of_time = f" of {clock(progress.max_seconds)}" if progress.max_seconds else ""
        position = [f"epoch {epoch}{of_epochs}", f"step {trainer.global_step:,}{of_steps}"]
        pace = [f"learning rate {rate_as_set(trainer.optimizers[0]):.1e}"]
        if not isnan(steps.step_seconds):
            pace.insert(0, f"{steps.step_seconds:.2g} s a step, {steps.data_share:.0%} waiting for data")
        before = [row for row in self.epochs.rows if int(row["epoch"]) < epoch]
        loss_before = f" (epoch before: {float(before[-1]['train_loss']):.4f})" if before else ""
        learning = [f"loss {written(mean(steps.losses))}{loss_before}"]
        if not isnan(steps.norm):
            learning.append(f"gradient norm {steps.norm:.2g}")
        lines = [[*position, clock(progress.seconds) + of_time], pace, learning, *self.scores()]
        texts = [Text(DOT.join(parts), no_wrap=True, overflow="ellipsis") for parts in lines]
        left = progress.seconds_left
        bar = Table.grid("", "", "", "", padding=(0, 1), expand=True)
        bar.columns[1].ratio = 1
        bar.add_row(
            self.doing,
            ProgressBar(1.0, progress.fraction),
            Text(f"{progress.fraction:4.0%}", "progress.percentage", no_wrap=True),
            Text("" if left is None else f"{clock(left)} left", "progress.remaining", no_wrap=True),
        )
        self.live.update(Group(bar, *texts), refresh=True)
        self.drawn_at = time.monotonic()

    def scores(self) -> list[list[str]]:
        """Return the lines on validations: the latest and the best score, and the latest of each class."""
        names, mean = self.epochs.names, self.epochs.names.mean.column
        rows = [row for row in self.epochs.rows if row.get(mean) not in (None, "")]
        if not rows or self.selection.best is None:
            return [["no validation yet"]]
        latest = rows[-1]
        classes = {class_name: float(latest[name.column]) for class_name, name in names.classes.items()}
        best = f"best {self.selection.best_score:.4f} (epoch {self.selection.epochs[self.selection.best]})"
        last = f"validation {self.selection.name} {float(latest[mean]):.4f} (epoch {latest['epoch']})"
        smoothed = f"smoothed {float(latest[names.smoothed.column]):.4f}"
        unlearned = [shortened(on_a_line(name)) for name in self.selection.unlearned.names]
        missing = [fitting(["not learned:", *unlearned], self.console.width)] if unlearned else []
        return [[last, best, smoothed], *class_lines(classes, self.console.width), *missing]


def is_no_epoch(record: logging.LogRecord) -> bool:
    """Tell the lines of the log that the display does not stand for."""
    return record.name != log.name


def class_lines(scores: Mapping[str, float], width: int) -> list[list[str]]:
    """Return the Dice of each class on one line, or where there is no room a line of the worst and one of the best."""
    shown = {name: f"{shortened(on_a_line(name))} {written(score)}" for name, score in scores.items()}
    if cell_len(DOT.join(shown.values())) <= width:
        return [list(shown.values())] if len(shown) > 1 else []
    ranked = sorted((name for name in scores if not isnan(scores[name])), key=lambda name: scores[name])
    if not ranked:
        return []
    half = (len(ranked) + 1) // 2
    worst, best = ranked[:half], reversed(ranked[half:])
    return [
        fitting([f"worst of {len(scores)}:", *(shown[name] for name in worst)], width),
        fitting(["best:", *(shown[name] for name in best)], width),
    ]


def fitting(texts: Iterable[str], width: int) -> list[str]:
    """Return as many texts from the first on as fit on a line, after a heading."""
    heading, *rest = texts
    line: list[str] = []
    for text in rest:
        if cell_len(DOT.join([*line, f"{heading} {text}"])) > width:
            break
        line.append(text)
    return [f"{heading} {line[0]}", *line[1:]] if line else [heading]


def shortened(name: str) -> str:
    """Cut a long name."""
    return name if cell_len(name) <= LONGEST else set_cell_size(name, LONGEST - 1).rstrip() + "…"


def clock(seconds: float) -> str:
    """Write a duration.

    >>> clock(3723.4), clock(90000)
    ('1:02:03', '1 day, 1:00:00')
    """
    return str(timedelta(seconds=int(seconds)))
