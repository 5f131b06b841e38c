"""Classes that a training does not learn: named while there is time, and in the end."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf, nan
from typing import Any

log = logging.getLogger(__name__)

AT_ZERO, LEARNED, RECOVERED = 0.01, 0.5, 0.05
"""Dice below which a class counts as not learned, and from which on another class shows that the training learns. A
class that has been named is learned after all from the third on: a margin, so that it is not named again and again."""
EARLY, LATE = 0.1, 1 / 3
"""Progress from which on a class is named: at the third validation at 0 while another class is learned, or at the
second whatever the others do. On the phantom a class that is learned at all is so at 15 % of 300 steps."""
ADVICE = (
    "What may help: more time, a higher learning rate in a short training (optimizer.lr=1e-2), another seed, a wider "
    "network (model.base_channels), and trainer.foreground=0.67 where patches are much smaller than the scans."
)


@dataclass
class Unlearned:
    """The classes, or regions, whose validation Dice stays near 0 although training cases hold them.

    ``zeros`` counts the validations in a row at which a class was at 0, up to the latest. ``names`` are the classes
    that have been named and not been learned since.
    """

    zeros: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def add(self, scores: Mapping[str, float], progress: float, is_trained_on: Callable[[str], bool]) -> None:
        """Take in a validation, and log once which classes are not learned, and once which of these are after all.

        Args:
            scores: of each class the mean Dice over the validation cases that hold it; NaN where none does.
            progress: of the training, from 0 to 1; 1 says that this is the last validation.
            is_trained_on: tells whether a training case holds a class; asked before a class is named.
        """
        self.zeros = {name: self.zeros.get(name, 0) + 1 for name, score in scores.items() if score < AT_ZERO}
        learned = [name for name in self.names if scores.get(name, nan) >= RECOVERED]
        self.names = [name for name in self.names if name not in learned]
        if learned:
            log.info("learned after all: %s", ", ".join(f"{name} (Dice {scores[name]:.4f})" for name in learned))
        is_learning = any(score >= LEARNED for score in scores.values())
        needed = 3 if is_learning and progress >= EARLY else inf
        if progress >= LATE:
            needed = 1 if progress >= 1 else 2
        due = [name for name, times in self.zeros.items() if times >= needed and name not in self.names]
        if new := [name for name in due if is_trained_on(name)]:
            self.names += new
            log.warning(
                "not learned: %s. The validation Dice is below %g after %.0f %% of the training, though training cases"
                " hold %s. %s",
                *(", ".join(new), AT_ZERO, 100 * progress, "it" if len(new) == 1 else "them", ADVICE),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.zeros, self.names = dict(state["zeros"]), list(state["names"])
