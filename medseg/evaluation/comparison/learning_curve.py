"""How the test Dice grows with the number of labelled cases, for each arm of an experiment."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from medseg.evaluation.pages import plots
from medseg.evaluation.pages.page import render
from medseg.evaluation.pages.plots import LinePlot, Series, linear
from medseg.evaluation.pages.text_table import TextTable, as_markdown
from medseg.evaluation.report.tables import interval, number
from medseg.evaluation.statistics.bootstrap import interval_of_class_means
from medseg.evaluation.statistics.cases import Row
from medseg.system.files import write_json, write_text


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
    """Return a point for each arm and number of labelled groups, in this order.

    The interval is of the mean over runs of the mean over classes of the class means.
    """
    arms = list(dict.fromkeys(run.arm for run in runs))
    ordered = sorted(runs, key=lambda run: (arms.index(run.arm), run.labelled, run.seed))
    points = []
    for (arm, labelled), group in groupby(ordered, lambda run: (run.arm, run.labelled)):
        members = list(group)
        seeds = {run.seed: run.score for run in members}
        patients = [{row["group"] for row in run.rows} for run in members]
        ci95 = None
        if all(each == patients[0] for each in patients):
            columns = []  # the Dice of each class of each run, and the groups that they are of
            for run in members:
                for name in dict.fromkeys(row["class"] for row in run.rows):
                    own = [row for row in run.rows if row["class"] == name]
                    dice = np.array([row["dice"] for row in own], float)
                    columns.append((dice, np.array([row["group"] for row in own])))
            ci95 = interval_of_class_means(columns)
        points.append(Point(arm, labelled, seeds, float(np.mean(list(seeds.values()))), ci95))
    return points


def table(points: Sequence[Point]) -> TextTable:
    """Return the points as a table, a row each."""
    rows = []
    for point in points:
        seeds = ", ".join(number(score, "dice") for score in point.seeds.values())
        cells = [number(point.mean, "dice"), interval(point.ci95, "dice"), seeds]
        rows.append([point.arm, str(point.labelled), *cells])
    notes = ["interval: of the mean over seeds, over the patients of the test subset (BCa bootstrap)"]
    return TextTable("test Dice by labelled groups", ["arm", "labelled", "Dice", "95 % interval", "seeds"], rows, notes)


def plot(points: Sequence[Point]) -> LinePlot:
    """Return a line for each arm through the means, and one through the scores of each seed."""
    series = []
    for arm in dict.fromkeys(point.arm for point in points):
        own = [point for point in points if point.arm == arm]
        series.append(Series(arm, [plots.Point(point.labelled, point.mean) for point in own]))
        for seed in sorted({seed for point in own for seed in point.seeds}):
            dots = [plots.Point(point.labelled, point.seeds[seed]) for point in own if seed in point.seeds]
            series.append(Series(f"{arm}, seed {seed}", dots, is_minor=True))
    scores = [score for point in points for score in (point.mean, *point.seeds.values())]
    return LinePlot(
        caption="Test Dice",
        note="the mean over the seeds, and each seed by itself",
        title="Test Dice by labelled groups",
        description="; ".join(f"{point.arm}, {point.labelled} labelled: {point.mean:.3f}" for point in points),
        x=linear("labelled groups", [point.labelled for point in points], least=0),
        y=linear("Dice", scores, 0, 1),
        series=series,
    )


def write_learning_curve(folder: Path, points: Sequence[Point]) -> None:
    """Write ``learning_curve.json``, ``.md`` and ``.html``, each whole or not at all."""
    write_json(folder / "learning_curve.json", {"format": 1, "points": [asdict(point) for point in points]})
    write_text(folder / "learning_curve.md", as_markdown(table(points)))
    page = render("evaluation/comparison/learning_curve.html", plot=plot(points), points=table(points))
    write_text(folder / "learning_curve.html", page)
