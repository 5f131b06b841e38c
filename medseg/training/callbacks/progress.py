"""How far a run is, in steps or in time, whichever is further."""

import math
import time
from collections.abc import Callable
from typing import Any


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
        return min(1.0, max(self.step / self.max_steps, used))

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
        by_steps = (self.max_steps - self.step) * pace if pace is not None else math.inf
        by_time = self.max_seconds - self.seconds if self.max_seconds is not None else math.inf
        left = max(0.0, min(by_steps, by_time))
        return left if left < math.inf else None

    @property
    def planned_steps(self) -> float:
        """The steps that the whole run will have: all of them, or as many as the time allows at the pace so far."""
        if self.max_seconds is None or self.current == 0:
            return self.max_steps
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
