"""Which weights are the best: by the validation Dice, or loss, smoothed over a few validations.

The best of many noisy scores is mostly a lucky one. The mean of the last three cannot be lucky three times, and it
prefers weights in whose neighbourhood training stayed good.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from medseg.system.files import write_torch
from medseg.training.optim.divergence import check_weights

WINDOW = 3
"""Validations in the mean."""


@dataclass
class Selection:
    """The validation scores of a run so far, and the choice that they lead to.

    ``epochs`` (counted from one) and ``scores`` belong together; ``best`` is the index of the chosen one. ``name`` is
    what the score is called, and ``lowest`` tells that low ones are good.
    """

    epochs: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: int | None = None
    name: str = "Dice"
    lowest: bool = False

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

    def state_dict(self) -> dict[str, Sequence[float]]:
        """Return what a resumed run must know."""
        return {"epochs": list(self.epochs), "scores": list(self.scores)}

    def load_state_dict(self, state: dict[str, Sequence[float]]) -> None:
        """Go on where ``state`` was taken."""
        self.epochs, self.scores, self.best = [], [], None
        for epoch, score in zip(state["epochs"], state["scores"], strict=True):
            self.add(int(epoch), score)

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
    after all other callbacks, whose states and files are those of this epoch by then: a run that is killed before
    ``last.ckpt`` is written makes its row of ``metrics.csv`` again.
    """

    def __init__(self, folder: Path, selection: Selection) -> None:
        self.folder, self.selection = folder, selection

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep these weights if none before were better."""
        if self.selection.is_best:
            self.save(trainer, "best.ckpt", weights_only=True)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the state of the run, unless its latest loss says that it is a bad one."""
        is_finite = module.step_record.is_last_loss_finite  # type: ignore[union-attr]
        if trainer.strategy.reduce_boolean_decision(is_finite):  # type: ignore[arg-type]
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


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints whole, beside where they belong; Lightning would write them into the system's /tmp first."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        write_torch(Path(path), checkpoint)
