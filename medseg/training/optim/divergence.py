"""Steps whose loss or gradient is NaN or infinite: skipped one by one; a training without any other step is ended.

A gradient that is not finite would make every weight NaN (clipping its norm multiplies all of it by NaN), and so the
average of the weights. Such a step changes nothing instead. Counters stay on the training device, which is waited for
once in ``LOOK_EVERY`` batches and at the end of an epoch.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medseg.errors import MedsegError, listing
from medseg.models.weight_checks import not_finite
from medseg.training.optim.finetuning import rate_as_set

log = logging.getLogger(__name__)

MAX_IN_A_ROW = 20
"""Steps without a finite loss and gradient after which a training is given up.

The loss scaling of fp16 begins at 2^16 and is halved at every overflow: after 20 of them it is not to blame.
"""
LOOK_EVERY = 20
"""Batches from one look at the counters to the next."""


class StepRecord:
    """Counts the steps whose loss or gradient was not finite, without waiting for the device.

    ``counts`` (4,) are the latest steps in a row without a finite loss and gradient; those of this epoch; those of this
    epoch whose loss was not finite; and 1 if the loss of the latest step was not.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(4)
        self.is_loss_lost = torch.zeros(())  # 1: a loss of this step, of which accumulation has several
        self.steps = 0  # of this epoch

    def add_loss(self, loss: Tensor) -> None:
        """Take in the loss of a batch."""
        if self.counts.device != loss.device:
            self.counts, self.is_loss_lost = self.counts.to(loss.device), self.is_loss_lost.to(loss.device)
        self.is_loss_lost = torch.maximum(self.is_loss_lost, 1 - loss.detach().isfinite().float())

    def add_step(self, gradient_norm: Tensor) -> None:
        """Take in the norm of the gradient, with which a step is complete."""
        lost = torch.maximum(self.is_loss_lost, 1 - gradient_norm.isfinite().float().to(self.counts.device))
        in_a_row, in_epoch, losses, _ = self.counts
        self.counts = torch.stack(
            [(in_a_row + 1) * lost, in_epoch + lost, losses + self.is_loss_lost, self.is_loss_lost]
        )
        self.is_loss_lost = torch.zeros_like(self.is_loss_lost)
        self.steps += 1

    def begin_epoch(self) -> None:
        """Count the steps of an epoch anew; those in a row go on."""
        in_a_row, _, _, last = self.counts
        zero = torch.zeros_like(last)
        self.counts, self.steps = torch.stack([in_a_row, zero, zero, last]), 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that is resumed within an epoch must know."""
        return {"counts": self.counts, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting where ``state`` was taken."""
        self.counts, self.steps = state["counts"], state["steps"]

    @property
    def is_last_loss_finite(self) -> bool:
        """Whether the loss of the latest step was finite; waits for the device."""
        return not self.counts[3].item()


def leave_out(optimizer: torch.optim.Optimizer, gradient_norm: Tensor) -> None:
    """Let the next step of an optimizer change nothing if the norm is not finite, without waiting for the device.

    A fused optimizer leaves weights and state as they are: it does so for the loss scaling of fp16, whose flag is set
    here. Any other makes a step with a gradient of zero.
    """
    lost = 1 - gradient_norm.isfinite().float()
    for group in optimizer.param_groups:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not group.get("fused") or group.get("dampening"):
            for parameter in parameters:
                parameter.grad = torch.where(lost.to(parameter.device) > 0, 0.0, parameter.grad)
        elif group.get("momentum"):
            for parameter in parameters:  # a first step that is left out would not write what SGD allocates for it
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    if any(group.get("fused") for group in optimizer.param_groups):
        optimizer.found_inf = lost  # type: ignore[attr-defined]


def diverged(trainer: Trainer, reason: str) -> MedsegError:
    """Return the error that ends a training: what happened, which state is kept, what to try."""
    folder = Path(trainer.default_root_dir)
    files = [name for name in ("best.ckpt", "last.ckpt") if (folder / "checkpoints" / name).is_file()]
    rate = rate_as_set(trainer.optimizers[0]) if trainer.optimizers else 0.0
    precision = {"bf16-mixed": "bf16", "16-mixed": "fp16"}.get(str(trainer.precision), "fp32")
    others = {"bf16": "fp32", "fp16": "bf16 or fp32"}.get(precision)
    clip = trainer.gradient_clip_val
    advice = [f"a lower optimizer.lr (at this step it was {rate:.3g})"]
    advice += [f"trainer.precision={others} (it is {precision})"] if others else []
    advice += [f"a lower trainer.gradient_clip (it is {clip:g})" if clip else "trainer.gradient_clip=1 (there is none)"]
    advice += ["another loss, or medseg inspect on the data: intensities or masks out of range"]
    state = f"{' and '.join(files)} in {folder / 'checkpoints'}, with finite weights" if files else "none is written"
    resume = ""
    if "last.ckpt" in files:
        resume = f"; to go on from it: resume={folder} optimizer.lr=... (if it diverges again at once, begin anew)"
    return MedsegError(
        f"the training has diverged: {reason} (epoch {trainer.current_epoch + 1}, step {trainer.global_step}).\n"
        f"Checkpoints: {state}{resume}. Try:\n{listing(advice)}"
    )


def check_steps(trainer: Trainer, record: StepRecord, batch_idx: int) -> bool:
    """Look at the counters from time to time, and at the last batch of an epoch; return whether steps were left out.

    To be called by the module, after all callbacks: one of them may have set ``trainer.should_stop`` at this batch.

    Raises:
        MedsegError: the training has diverged.
    """
    is_end = trainer.should_stop or batch_idx + 1 == trainer.num_training_batches
    if not is_end and (batch_idx + 1) % LOOK_EVERY:
        return False
    counts = trainer.strategy.reduce(record.counts.clone(), reduce_op="max")  # so that all processes do the same
    in_a_row, in_epoch, losses, _ = (int(count) for count in counts.tolist())
    if in_a_row >= MAX_IN_A_ROW:
        raise diverged(trainer, f"no loss and gradient of the last {in_a_row} steps was finite")
    if not is_end or not in_epoch:
        return False
    is_scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
    if in_epoch == record.steps and (losses == in_epoch or is_last or not is_scaled):
        raise diverged(trainer, f"none of the {in_epoch} steps of an epoch had a finite loss and gradient")
    if trainer.is_global_zero and (losses or not is_scaled):
        log.warning(
            "epoch %d: %d of %d steps left out, their loss or gradient was NaN or infinite",
            *(trainer.current_epoch + 1, in_epoch, record.steps),
        )
    return True


def check_weights(trainer: Trainer, module: LightningModule) -> None:
    """Check weights, running statistics and the optimizer's state.

    Raises:
        MedsegError: some are NaN or infinite.
    """
    wrong = not_finite(module.state_dict() | dict(optimizer_state(trainer)))
    if not trainer.strategy.reduce_boolean_decision(not wrong):  # every process that takes part in a checkpoint
        raise diverged(trainer, f"weights hold NaN or infinity ({', '.join(wrong[:3]) or 'of another process'})")


def optimizer_state(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the optimizers' states by a name."""
    for optimizer in trainer.optimizers:
        for number, state in enumerate(optimizer.state.values()):
            for name, value in state.items():
                if isinstance(value, Tensor) and value.numel() > 1:
                    yield f"{name} of the optimizer's parameter {number}", value
