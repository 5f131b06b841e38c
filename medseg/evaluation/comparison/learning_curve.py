"""How the test Dice grows with the number of labelled cases, for each way to begin."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from medseg.evaluation.pages.text_table import TextTable
from medseg.evaluation.report.tables import number
from medseg.evaluation.statistics.bootstrap import interval_of_class_means
from medseg.evaluation.statistics.cases import Row


@dataclass(frozen=True)
class Trained:
    """A run of the experiment: the arm that it belongs to, its labelled groups, its seed and its test's rows."""

    arm: str
    labelled: int
    seed: int
    score: float
    rows: Sequence[Row]


@dataclass(frozen=True)
class Point:
    """An arm at a number of labelled groups: the mean Dice of the runs of each seed, their mean and its interval.

    ``ci95`` is over patients, of the mean over seeds; None below eight patients, or where the runs differ in theirs.
    """

    arm: str
    labelled: int
    seeds: dict[int, float]
    mean: float
    ci95: list[float] | None


def points_of(runs: Sequence[Trained]) -> list[Point]:
    """Return a point for each arm and number of labelled groups, in this order."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    ordered = sorted(runs, key=lambda run: (arms.index(run.arm), run.labelled, run.seed))
    return [_point(list(members)) for _, members in groupby(ordered, lambda run: (run.arm, run.labelled))]


def table(points: Sequence[Point]) -> TextTable:
    """Return the points as a table, a row each."""
    rows = []
    for point in points:
        between = "–".join(number(bound, "dice") for bound in point.ci95) if point.ci95 else "–"
        seeds = ", ".join(number(score, "dice") for score in point.seeds.values())
        rows.append([point.arm, str(point.labelled), number(point.mean, "dice"), between, seeds])
    notes = ["interval: of the mean over seeds, over the patients of the test part (BCa bootstrap)"]
    return TextTable("test Dice by labelled groups", ["arm", "labelled", "Dice", "95 % interval", "seeds"], rows, notes)


def as_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the points as plain containers."""
    return [vars(point) | {"seeds": {str(seed): score for seed, score in point.seeds.items()}} for point in points]


def _point(runs: Sequence[Trained]) -> Point:
    """The interval is of the mean over runs of the mean over classes of the class means."""
    seeds = {run.seed: run.score for run in runs}
    patients = [{row["group"] for row in run.rows} for run in runs]
    interval = None
    if all(each == patients[0] for each in patients):
        columns = []  # the Dice of each class of each run, and the groups that they are of
        for run in runs:
            for name in dict.fromkeys(row["class"] for row in run.rows):
                own = [row for row in run.rows if row["class"] == name]
                columns.append((np.array([row["dice"] for row in own], float), np.array([row["group"] for row in own])))
        interval = interval_of_class_means(columns)
    return Point(runs[0].arm, runs[0].labelled, seeds, float(np.mean(list(seeds.values()))), interval)
