"""In which order a sweep's jobs stand: scores compare only over the same validation cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from medseg.evaluation.pages.text_table import counted

JobResult = dict[str, Any]
"""What a job has left as its ``result.json``, its number as ``job``, and as ``name`` what tells it from the others."""

REPEATED = ("seed", "split.fold")
"""Keys in which jobs of one setting may differ: they repeat it, with other draws or on other cases."""


@dataclass(frozen=True)
class Setting:
    """The jobs that repeat one setting: folds by their numbers, others by their scores, the best first."""

    jobs: Sequence[JobResult]

    @property
    def scores(self) -> list[float]:
        """The scores that can be ranked: of trainings whose validation cases are known."""
        return [job["score"] for job in self.jobs if counts(job)]

    @property
    def validated(self) -> set[tuple[Any, ...]]:
        """What the scores are of; several where the jobs are folds, or draw splits of their own."""
        return {tuple(job["validated"].values()) for job in self.jobs if counts(job)}

    @property
    def folds(self) -> set[str | None]:
        """The folds that the scores are of."""
        return {settings_of(job["overrides"]).get("split.fold") for job in self.jobs if counts(job)}

    @property
    def spread(self) -> str:
        """The number and the range of several scores."""
        number = f"{len(self.scores)} {'splits' if len(self.validated) > 1 else 'seeds'}"
        if (folds := len(self.folds)) > 1:
            number = f"{folds} folds" if folds == len(self.scores) else f"{len(self.scores)} jobs of {folds} folds"
        return f"{number}, {min(self.scores):.4f} to {max(self.scores):.4f}"


@dataclass(frozen=True)
class Ranking:
    """The settings that were validated on the same cases, by their mean score over seeds and folds, the best first.

    Where some are repeated, those with one score stand behind: the highest of many single scores is in part luck, of
    which a mean has less. Jobs without a score, or whose cases are not known, follow in their order.
    """

    settings: Sequence[Setting]

    @property
    def jobs(self) -> list[JobResult]:
        """All jobs, in the order of the ranking."""
        return [job for setting in self.settings for job in setting.jobs]

    @property
    def best(self) -> list[JobResult]:
        """The best job of the best setting; all of its jobs where they are folds; none where nothing can be ranked."""
        first = self.settings[0]
        jobs = [job for job in first.jobs if counts(job)]
        return sorted(jobs, key=lambda job: job["job"]) if len(first.validated) > 1 else jobs[:1]

    @property
    def title(self) -> str:
        """What the scores are, of which cases, and which way is better."""
        if not self.best:
            return "in the order of the jobs, which have no final validation scores to be ranked by"
        parts = [dict(part) for part in {tuple(job["validated"].items()) for job in self.jobs if counts(job)}]
        metric = "mean Dice" if parts[0]["metric"] == "dice" else f"minus the {parts[0]['metric']}"
        numbers = [part["n_cases"] for part in parts]
        cases = counted(sum(numbers), "validation case")
        if len(parts) > 1 and len(parts) == len(self.settings[0].folds):
            cases = f"{len(parts)} folds, {cases}"
        elif len(parts) > 1:  # which may have cases in common
            each = f"{min(numbers)} to {max(numbers)}" if len({*numbers}) > 1 else f"{numbers[0]}"
            cases = f"{len(parts)} splits, each of {each} validation cases"
        return f"{metric} over {cases} of {parts[0]['dataset']}; higher is better"


def counts(job: JobResult) -> bool:
    """Return whether a job's score can be ranked: of a training that came to its end, of cases that are known."""
    return job.get("is_trained", True) and job["score"] is not None and job["validated"] is not None


def rankings(jobs: Sequence[JobResult]) -> list[Ranking]:
    """Return the order of the settings whose jobs were validated on the same cases of a data set, one for each such.

    What cannot be ranked stands behind the only ranking, or, of several, apart.
    """
    by_setting: dict[tuple[Any, ...], list[JobResult]] = {}
    for job in jobs:
        setting = tuple(item for item in job["overrides"] if item.partition("=")[0] not in REPEATED)
        key = (job["validated"]["dataset"], setting) if counts(job) else (job["job"],)
        by_setting.setdefault(key, []).append(job)
    groups: dict[frozenset[tuple[Any, ...]], list[Setting]] = {}
    for its in by_setting.values():
        folds = {settings_of(job["overrides"]).get("split.fold") for job in its}
        # scores of folds are of different cases, and have no order
        one = Setting(sorted(its, key=lambda job: job["job"] if len(folds) > 1 else -(job["score"] or 0.0)))
        groups.setdefault(frozenset(one.validated), []).append(one)
    others = groups.pop(frozenset(), [])
    if len(groups) == 1:
        next(iter(groups.values())).extend(others)
    elif others:
        groups[frozenset()] = others
    ranked = []
    for group in groups.values():
        enough = min(2, max(len(one.scores) for one in group))
        ranked.append(
            Ranking(
                sorted(group, key=lambda one: (-min(len(one.scores), enough), -fmean(one.scores) if one.scores else 0))
            )
        )
    return ranked


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    """Return the values that overrides give to keys, as texts.

    >>> settings_of(["model.depth=3", "+x=a=b"])
    {'model.depth': '3', 'x': 'a=b'}
    """
    return dict(override.lstrip("+").partition("=")[::2] for override in overrides)


def differing(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return of each job the overrides that not all of them share, in a line; of a single job all.

    >>> differing([["seed=1", "model.depth=3"], ["seed=1", "model.depth=4"]])
    ['model.depth=3', 'model.depth=4']
    """
    common = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    return [" ".join(override for override in own if override not in common) for own in jobs]
