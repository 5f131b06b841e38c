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
from numpy.typing import NDArray

MIN_CASES = 20
"""Below this many cases a choice would mostly be chance."""
ROUNDING = 1e-9

Scores = NDArray[np.float64]
"""Dice (N cases, R classes or regions), both empty counted as 1; NaN where a class was not annotated in a case."""
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
    """Compare two ways over the same cases: the mean over cases of the mean difference over their classes."""
    differences = after - before  # (N, R)
    by_case = mean_of_known(differences, axis=1)
    error = by_case.std(ddof=1) / np.sqrt(len(by_case)) if len(by_case) > 1 else np.inf
    return Comparison(float(by_case.mean()), float(error), tuple(mean_of_known(differences, axis=0).tolist()))


def mean_of_known(values: Scores, axis: int) -> NDArray[np.float64]:
    """Return the mean along an axis of what is not NaN, 0 where nothing else is."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis) / np.maximum(known.sum(axis), 1)


def select(score: Score, space: Space, start: Choice) -> Selection:
    """Add options to ``start`` one step after the other, until none is worth it.

    Every step tries all values of all options for all classes, and takes for each class the best that is worth it; of
    classes that are not independent, only the best of all. What is taken together must be worth it together. A class of
    its own that has found nothing will find nothing in the next step.
    """
    choice, tried, names = start, list[Candidate](), space.names
    before = now = score(choice)
    for step in count(1):
        candidates = [
            candidate
            for trial in space.untried(choice, names)
            for candidate in tries(score, space, choice, now, step, trial)
        ]
        tried += candidates
        taken = best_of_each(candidates)[: None if space.independent else 1]
        names = [candidate.name for candidate in taken] if space.independent else names
        while taken:
            together = changed(choice, taken)
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


def tries(
    score: Score, space: Space, choice: Choice, now: Scores, step: int, trial: tuple[str, Any, list[str]]
) -> Iterator[Candidate]:
    """Try a value of an option for each of some classes."""
    option, value, names = trial

    def candidate(name: str, after: Scores) -> Candidate:
        return Candidate(step, name, option, value, compare(now, after))

    if space.independent:
        of_all = score(with_option(choice, names, option, value))
        for name in names:
            after, index = now.copy(), space.names.index(name)
            after[:, index] = of_all[:, index]
            yield candidate(name, after)
    else:
        yield from (candidate(name, score(with_option(choice, [name], option, value))) for name in names)


def best_of_each(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the best candidate of each class among those that are worth it, the highest gain first."""
    best: dict[str, Candidate] = {}
    worth = [candidate for candidate in candidates if candidate.comparison.is_worth_it]
    for candidate in sorted(worth, key=lambda candidate: -candidate.comparison.gain):  # stable: of equals the first
        best.setdefault(candidate.name, candidate)
    return list(best.values())


def changed(choice: Choice, candidates: Sequence[Candidate]) -> Choice:
    """Return a choice with these candidates in it."""
    for candidate in candidates:
        choice = with_option(choice, [candidate.name], candidate.option, candidate.value)
    return choice


def with_option(choice: Choice, names: Sequence[str], option: str, value: Any) -> Choice:
    """Return a choice with this option for some classes."""
    return {**choice, **{name: {**choice.get(name, {}), option: value} for name in names}}
