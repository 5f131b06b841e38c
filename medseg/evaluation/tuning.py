"""Which options to keep: forward selection, every step a paired comparison over the cases.

An option is kept where it raises the mean Dice by more than one standard error of the paired differences and no
class's mean loses: the rule of one standard error of Breiman et al., "Classification and Regression Trees" (1984), for
paired scores.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from medseg.evaluation.statistics.means import Values, means_of_defined

MIN_CASES = 20
"""Below this many cases a choice would mostly be chance."""
ROUNDING = 1e-9

Scores = Values
"""Dice (N cases, R classes or regions), both empty counted as 1; NaN where a class was not annotated in a case. Each
case has a value."""
Choice = dict[str, dict[str, Any]]
"""Of single classes or regions their own options."""
Score = Callable[[Choice], Scores]


@dataclass(frozen=True)
class Comparison:
    """What a change does: the mean gain over the cases, its standard error, and the mean gain of each class (R,)."""

    gain: float
    standard_error: float
    class_gains: tuple[float, ...]

    @property
    def losers(self) -> tuple[int, ...]:
        """The places of the classes whose mean gets worse."""
        return tuple(index for index, gain in enumerate(self.class_gains) if gain < -ROUNDING)

    @property
    def is_worth_it(self) -> bool:
        """Whether the gain is more than chance and at no class's cost."""
        return self.gain > max(self.standard_error, ROUNDING) and not self.losers


@dataclass
class Candidate:
    """An option of one class or region, tried in one step of the selection, and whether it was kept."""

    step: int
    name: str
    option: str
    value: Any
    comparison: Comparison
    kept: bool = False


@dataclass(frozen=True)
class Selection:
    """What was chosen, the scores before and after, and all that was tried."""

    choice: Choice
    before: Scores
    after: Scores
    candidates: list[Candidate]


@dataclass(frozen=True, kw_only=True)
class Space:
    """What may be chosen.

    Args:
        names: the classes or regions, in the order of the scores' columns.
        ladders: the values to try of each option.
        common: the value of each option where a class has none of its own.
        independent: whether an option of a class changes only that class, so that one pass over the cases with an
            option for all classes tries it for each.
    """

    names: Sequence[str]
    ladders: Mapping[str, Sequence[Any]]
    common: Mapping[str, Any]
    independent: bool

    def untried(self, choice: Choice, among: Sequence[str]) -> Iterator[tuple[str, Any, list[str]]]:
        """Yield option, value and those of some classes that do not have this value now."""
        for option, values in self.ladders.items():
            for value in values:
                names = [n for n in among if choice.get(n, {}).get(option, self.common[option]) != value]
                if names:
                    yield option, value, names


def compare(before: Scores, after: Scores) -> Comparison:
    """Compare the scores of the same cases: the mean over cases of the mean difference over their classes."""
    differences = after - before  # (N, R)
    by_case = means_of_defined(differences, axis=1)
    error = by_case.std(ddof=1) / np.sqrt(len(by_case)) if len(by_case) > 1 else np.inf
    by_class = np.nan_to_num(means_of_defined(differences, axis=0))  # what no case was annotated for does not change
    return Comparison(float(by_case.mean()), float(error), tuple(by_class.tolist()))


def select(score: Score, space: Space, start: Choice) -> Selection:
    """Add options to ``start`` one step after the other, until none is worth it.

    Every step tries all values of all options for all classes, and takes for each class the best that is worth it; of
    classes that are not independent, only the best of all. What is taken together must be worth it together. Where
    classes are independent, one without an improvement in a step has none in the next.
    """
    choice, tried, names = start, list[Candidate](), space.names
    before = now = score(choice)
    for step in count(1):
        candidates = []
        for option, value, among in space.untried(choice, names):
            of_all = score(with_option(choice, among, option, value)) if space.independent else None
            for name in among:
                if of_all is None:
                    after = score(with_option(choice, [name], option, value))
                else:  # the option of a class changes only its own column: one pass is enough for all classes
                    after, index = now.copy(), space.names.index(name)
                    after[:, index] = of_all[:, index]
                candidates.append(Candidate(step, name, option, value, compare(now, after)))
        tried += candidates

        best: dict[str, Candidate] = {}  # of each class, the highest gain first
        worth = [candidate for candidate in candidates if candidate.comparison.is_worth_it]
        for candidate in sorted(worth, key=lambda candidate: -candidate.comparison.gain):  # stable: of equals the first
            best.setdefault(candidate.name, candidate)
        taken = list(best.values())[: None if space.independent else 1]
        names = [candidate.name for candidate in taken] if space.independent else names

        while taken:
            together = choice
            for candidate in taken:
                together = with_option(together, [candidate.name], candidate.option, candidate.value)
            after = score(together)
            if compare(now, after).is_worth_it:
                break
            taken.pop()
        if not taken:
            break
        choice, now = together, after
        for candidate in taken:
            candidate.kept = True
    return Selection(choice, before, now, tried)


def with_option(choice: Choice, names: Sequence[str], option: str, value: Any) -> Choice:
    """Return a choice with this option for some classes."""
    return {**choice, **{name: {**choice.get(name, {}), option: value} for name in names}}
