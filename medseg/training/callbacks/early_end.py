"""Trainings that end before their budget is used up, because validations no longer gain."""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from medseg.training.callbacks.checkpoints import Selection
from medseg.training.callbacks.progress import EarlyEnd, Progress

log = logging.getLogger(__name__)

LEAST = 6
"""Validations in the latter half of a training without which nothing is said of its curve."""
TO_THE_END = 0.25
"""Steps, as a share of those so far, in which a training ends that promises no further gain."""


class Patience(EarlyStopping):
    """Ends training after ``patience`` validations without a gain; a resumed run goes by its own patience."""

    @property
    def state_key(self) -> str:
        """Return the name of the state in checkpoints, also in those of versions without this class."""
        return f"EarlyStopping{ {'monitor': self.monitor, 'mode': self.mode}!r}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the count of validations, not the patience, which Lightning would."""
        super().load_state_dict({**state_dict, "patience": self.patience})


class Plateau(Callback):
    """Ends a training soon whose validation curve promises less than ``min_gain`` for all that is left of it.

    What is left of the schedule then takes a quarter of the steps so far, so that a learning rate that falls comes to
    its end. A resumed run keeps the end that was settled, unless it has no ``min_gain`` (None).
    """

    def __init__(self, progress: Progress, selection: Selection, min_gain: float | None) -> None:
        self.progress, self.selection, self.min_gain = progress, selection, min_gain

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Settle the end, if the curve up to this validation asks for it; the first process decides for all."""
        progress, selection = self.progress, self.selection
        if self.min_gain is None or progress.early_end:
            return
        planned, end = progress.planned_steps, None
        gain = promised_gain(selection.epochs, selection.scores, planned / progress.step, selection.sign)
        would_last = progress.step <= planned / 2  # else there is little to save
        if would_last and gain < self.min_gain and not selection.unlearned.zeros:
            step = math.ceil(progress.step * (1 + TO_THE_END))
            end = EarlyEnd(step, progress.step, progress.current)
        progress.early_end = trainer.strategy.broadcast(end)
        if progress.early_end and trainer.is_global_zero:
            log.info(
                "the end comes at step %d: for all %.0f the validation curve promises at most %.4f %s more, and"
                " trainer.min_gain=%g (null: no early end)",
                *(progress.early_end.step, planned, max(gain, 0.0), selection.name, self.min_gain),
            )

    def state_dict(self) -> dict[str, Any]:
        """Keep the end."""
        return {"early_end": asdict(self.progress.early_end) if self.progress.early_end else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep to the end that the resumed run had settled."""
        end = state_dict["early_end"]
        if self.min_gain is not None and end:
            self.progress.early_end = EarlyEnd(**end)


def promised_gain(epochs: Sequence[int], scores: Sequence[float], times_longer: float, sign: int = 1) -> float:
    """Return at most what a score will gain until the training is so many times as long as now; infinite if unknown.

    Scores of a training rise by less with each doubling of the steps. So the line through the scores of the latest
    doubling, over the logarithm of the epochs, promises more than comes; it is taken two standard errors steeper.
    ``sign`` is -1 of a score that is to fall.
    """
    latest = [(epoch, sign * score) for epoch, score in zip(epochs, scores, strict=True) if epoch >= epochs[-1] / 2]
    if len(latest) < LEAST:
        return math.inf
    doublings, values = np.log2([epoch for epoch, _ in latest]), np.array([score for _, score in latest])
    doublings, values = doublings - doublings.mean(), values - values.mean()
    spread = float(doublings @ doublings)
    slope = float(doublings @ values) / spread
    rest = values - slope * doublings
    standard_error = math.sqrt(float(rest @ rest) / (len(latest) - 2) / spread)
    return (slope + 2 * standard_error) * math.log2(times_longer)
