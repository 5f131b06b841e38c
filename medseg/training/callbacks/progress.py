"""How far a run is, in steps or in time, whichever is further; when it is validated, and when it ends."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medseg.augmentation.random import seeded

log = logging.getLogger(__name__)

NEVER = 10**9  # epochs
ALL = 10**9  # cases
VALIDATIONS = 50
"""Of a training without a time limit, at most."""
LEAST_VALIDATIONS, LEAST_CASES = 20, 20
"""Of a training whose validations would take more than their share: fewer cases are validated on, but no fewer than
these, so that the share still holds for so many validations."""
WINDOWS_PER_PATCH = 2.0
"""Windows of a validation that take as long as a trained patch: 3 by the passes of the network, 3.4 measured on a CPU;
on a GPU reading, resampling and counting weigh more."""
MESSAGES = 10
"""Batches from one message of the first process to the others to the next: how far the run is, and whether to stop."""


@dataclass(frozen=True)
class EarlyEnd:
    """The step that a run is to end with, the step at which this was settled, and the progress until then."""

    step: int
    settled: int
    fraction: float


class Progress:
    """Progress from 0 to 1: the larger of steps done and time used, counted over all resumes.

    Time counts training with its validations. The last validation belongs to the budget too, so as much time is kept
    free for it as the latest one took.
    """

    def __init__(
        self, *, max_steps: float, max_seconds: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_steps, self.max_seconds, self.clock = max_steps, max_seconds, clock
        self.step = 0
        self.current = 0.0  # progress as all processes were last told it
        self.seconds_before = 0.0  # used by the runs that this one resumes
        self.started: float | None = None
        self.validation_seconds = 0.0
        self.validated_at = 0.0
        self.time_is_up_within: float | None = None  # the time limit that ended the run that this one resumes
        self.early_end: EarlyEnd | None = None

    def start(self) -> None:
        """Begin to count time."""
        self.started = self.clock()

    @property
    def seconds(self) -> float:
        """Time used so far."""
        return self.seconds_before + (self.clock() - self.started if self.started is not None else 0.0)

    @property
    def fraction(self) -> float:
        """Progress now."""
        used = 0.0
        if self.max_seconds is not None:
            used = self.seconds / max(self.max_seconds - self.validation_seconds, 1e-3)
        if end := self.early_end:
            used = max(used, end.fraction + (1 - end.fraction) * (self.step - end.settled) / (end.step - end.settled))
        return min(1.0, max(self.step / self.max_steps, used))

    @property
    def last_step(self) -> float:
        """The step that the run ends with, if its time lasts so long."""
        return self.early_end.step if self.early_end else self.max_steps

    @property
    def is_over(self) -> bool:
        """Whether nothing of the budget is left.

        A run that its time limit has ended is over as long as that is the limit, even if its last validation was so
        quick that there would be time for a few steps more.
        """
        return self.fraction >= 1 or (self.max_seconds is not None and self.max_seconds == self.time_is_up_within)

    @property
    def seconds_left(self) -> float | None:
        """Time until the end of the budget, steps and validations at the pace so far; None where nothing tells yet."""
        pace = self.seconds / self.step if self.step else None
        by_steps = (self.last_step - self.step) * pace if pace is not None else math.inf
        by_time = self.max_seconds - self.seconds if self.max_seconds is not None else math.inf
        left = max(0.0, min(by_steps, by_time))
        return left if left < math.inf else None

    @property
    def planned_steps(self) -> float:
        """The steps that the whole run will have: all of them, or as many as the time allows at the pace so far."""
        if self.max_seconds is None or self.current == 0 or self.early_end:
            return self.last_step
        return min(self.max_steps, self.step / self.current)

    def validated(self, seconds: float) -> None:
        """Note a validation that took ``seconds`` and ended now."""
        self.validation_seconds, self.validated_at = seconds, self.seconds

    def is_validation_worth_it(self, share: float) -> bool:
        """Tell whether enough time has passed for another validation to stay below its share of the time."""
        return (self.seconds - self.validated_at) * share >= self.validation_seconds * (1 - share)

    def state_dict(self) -> dict[str, float | None]:
        """Return what a resumed run must know."""
        is_time_up = self.current >= 1 and self.step < self.max_steps
        return {
            "time_is_up_within": self.max_seconds if is_time_up else None,
            "seconds": self.seconds,
            "validation_seconds": self.validation_seconds,
            "validated_at": self.validated_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.time_is_up_within = state.get("time_is_up_within")  # which earlier versions did not keep
        self.seconds_before = state["seconds"]
        self.validation_seconds, self.validated_at = state["validation_seconds"], state["validated_at"]


class Budget(Callback):
    """Ends training when the budget is used up and decides after which epochs to validate.

    A validation waits until enough training has gone by for validations to stay below ``share`` of the time. A run with
    a time limit goes by the clock. Any other must come out the same twice, so it goes by work, which is counted: every
    ``interval`` epochs, by default a fiftieth of the run, or more where validations would take more than their share.
    The last weights are always validated.

    Where so few validations of all cases would fit into the share that the choice among them means little, all take the
    same part of the cases: see ``drawn_cases``, and ``n_cases``, how many. It is settled for the whole run, with a time
    limit after the first epoch, which tells how much the run will learn.
    """

    def __init__(self, progress: Progress, *, interval: int | None, share: float, n_cases: int | None = None) -> None:
        self.progress, self.interval, self.share, self.n_cases = progress, interval, share, n_cases
        self.is_settled = False
        self.began = 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin to count time, from where a resumed run stopped."""
        if self.progress.max_seconds is None or self.n_cases or self.interval:
            self.settle(trainer, module)
        self.progress.start()
        self.progress.step = trainer.global_step
        self.look_ahead(trainer)  # a resumed run may be at the end of an epoch, before its validation
        trainer.should_stop = False  # which would leave that out, where it is the last

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop when the budget is used up; settle whether this epoch ends with a validation."""
        self.progress.step = trainer.global_step
        is_last_of_epoch = batch_idx + 1 == trainer.num_training_batches
        has_limit = self.progress.max_seconds is not None  # else all processes know the same, and say nothing
        if trainer.world_size > 1 and has_limit and (batch_idx + 1) % MESSAGES and not is_last_of_epoch:
            return  # a message to all processes would make a GPU wait
        is_last = self.look_ahead(trainer)
        if not self.is_settled and (is_last or is_last_of_epoch):
            self.settle(trainer, module)

    def look_ahead(self, trainer: Trainer) -> bool:
        """Set whether this epoch is to end with a validation, and return whether the run ends with this epoch."""
        own = (self.progress.fraction, self.is_validation_due(trainer.current_epoch + 1))
        has_limit = self.progress.max_seconds is not None
        self.progress.current, is_due = trainer.strategy.broadcast(own) if has_limit else own  # the first one decides
        trainer.should_stop = trainer.should_stop or self.progress.current >= 1
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_due or is_last else NEVER
        return is_last

    def settle(self, trainer: Trainer, module: LightningModule) -> None:
        """Choose the cases that validate and, where work is counted, the epochs between validations."""
        self.is_settled = True
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        windows: Sequence[int] = module.count_windows(data)  # type: ignore[operator]
        # What the share allows for an epoch's validation, in windows: an epoch's patches are worth so many.
        learned = trainer.num_training_batches * data.batch_size * WINDOWS_PER_PATCH * trainer.world_size
        allowed = learned * self.share / (1 - self.share)
        why = "as trainer.validation_cases says, or the run that is resumed"
        if self.n_cases is None:
            steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
            within = allowed * self.progress.planned_steps / steps
            self.n_cases = len(windows) if self.interval else cases_within(windows, within)
            why = f"{LEAST_VALIDATIONS} validations of all would take more than trainer.validation_share of the work"
        data.validated = drawn_cases(len(windows), self.n_cases)
        if len(data.validated) < len(windows) and trainer.is_global_zero:
            few = len(data.validated)
            log.info("validation on %d of %d cases, the same in every run of this split: %s", few, len(windows), why)
        if self.interval is None and self.progress.max_seconds is None:
            by_share = math.ceil(sum(windows[index] for index in data.validated) / allowed)
            epochs = trainer.max_epochs or 0
            self.interval = max(1, epochs // VALIDATIONS, by_share)
            if self.interval == by_share > 1 and trainer.is_global_zero:
                when = f"every {by_share} epochs, and the last" if by_share < epochs else "the last epoch alone"
                log.info(
                    "validation after %s: by the work, %g%% of it (trainer.validation_share)", when, 100 * self.share
                )

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
        """Keep the time used, and how many cases validate, in the checkpoint."""
        return {**self.progress.state_dict(), "n_cases": self.n_cases}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where the resumed run stopped."""
        self.progress.load_state_dict(state_dict)
        self.n_cases = state_dict.get("n_cases", ALL)  # earlier versions validated on all cases


def cases_within(windows: Sequence[int], limit: float) -> int:
    """Return how many cases ``LEAST_VALIDATIONS`` validations may take, if all together take ``limit`` windows.

    That is all, or ``LEAST_CASES`` doubled as often as fits: runs that differ a little, as in a sweep, then mostly
    validate on the same cases. ``windows`` are those of each case.
    """
    n = LEAST_CASES
    for number in (LEAST_CASES << power for power in range(len(windows).bit_length())):
        cases = drawn_cases(len(windows), number)
        if LEAST_VALIDATIONS * sum(windows[index] for index in cases) <= limit:
            n = number
    return min(n, len(windows))


def drawn_cases(total: int, number: int) -> list[int]:
    """Return which of ``total`` cases validate where no more than ``number`` do: a random choice, always the same.

    It does not follow the run's seed, so that runs with one split, as of a sweep over seeds, can be compared; the cases
    of a smaller number are among those of a larger one.
    """
    return sorted(torch.randperm(total, generator=seeded(0, 6))[:number].tolist())


def epoch_of(trainer: Trainer) -> int:
    """Return the epoch, counted from one; Lightning's own count is one too far at the end."""
    epoch = trainer.current_epoch + 1
    return min(epoch, trainer.max_epochs) if trainer.max_epochs and trainer.max_epochs > 0 else epoch


class FirstStep(Callback):
    """Calls ``begin`` once, after the first step of a training, new or resumed: its settings have been found good.

    A run that was stopped after its last step makes none, and begins with its validation.
    """

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
        if trainer.global_step != self.step:
            self.on_validation_start(trainer, module)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Call ``begin``, where a resumed run has only a validation left, too."""
        if not self.is_done:
            self.is_done = True
            self.begin()
