"""What an epoch's steps are like: the norm of the gradient, the time a step takes, the share that waits for data."""

import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Gauges(Callback):
    """Measures each epoch's training, validation apart, and logs what it found.

    A step is one of the optimizer. Norms are those before clipping; they stay on the device until the epoch's last
    step, so that a GPU is waited for once an epoch. Waiting is counted by this process: on a GPU it computes meanwhile
    what it was given before, so the share is the most that loading may cost.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.norms: list[Tensor] = []
        self.norm = self.largest_norm = float("nan")
        self.began = self.waited_before = 0.0
        self.step_before = self.steps = 0
        self.seconds = self.waited = 0.0

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin an epoch."""
        self.norms, self.steps = [], 0
        self.began, self.waited_before, self.step_before = self.clock(), waited(trainer), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep a step's norm; at the last one fetch all, which waits until the device is done."""
        self.steps = trainer.global_step - self.step_before
        if self.steps > len(self.norms):  # else gradients are being accumulated
            self.norms.append(module.gradient_norm)  # type: ignore[arg-type]
        if trainer.should_stop or batch_idx + 1 == trainer.num_training_batches:
            self.norm, self.largest_norm = mean_and_largest(self.norms)
        self.seconds = self.clock() - self.began
        self.waited = waited(trainer) - self.waited_before

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Log the epoch."""
        found = {
            "train/grad_norm": self.norm,
            "train/grad_norm_max": self.largest_norm,
            "train/step_seconds": self.step_seconds,
            "train/data_share": self.data_share,
        }
        module.log_dict(found, sync_dist=True)

    @property
    def step_seconds(self) -> float:
        """Seconds a step took in this epoch; NaN before the first."""
        return self.seconds / self.steps if self.steps else float("nan")

    @property
    def data_share(self) -> float:
        """Share of this epoch's time in which a batch was waited for; NaN before the first."""
        return self.waited / self.seconds if self.seconds else float("nan")


def waited(trainer: Trainer) -> float:
    """Return the seconds in which training has waited for batches so far."""
    return float(getattr(trainer.train_dataloader, "waited", 0.0))


def mean_and_largest(norms: list[Tensor]) -> tuple[float, float]:
    """Fetch norms; those that overflowed in fp16, whose steps the loss scaling skips, are left out."""
    fetched = torch.stack(norms).cpu() if norms else torch.empty(0)
    finite = fetched[fetched.isfinite()]
    return (finite.mean().item(), finite.max().item()) if len(finite) else (float("nan"), float("nan"))
