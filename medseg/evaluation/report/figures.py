"""The plots of a report: metrics by class, Dice against volume, the course of training."""

from collections.abc import Sequence
from math import inf, isnan
from pathlib import Path
from typing import Any, NamedTuple

from medseg.evaluation.metrics.registry import METRICS
from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.evaluation.pages.page import folded, paragraph, side_by_side
from medseg.evaluation.pages.plots import (
    Point,
    Series,
    Strip,
    figure,
    linear,
    lines,
    logarithmic,
    scatter,
    some,
    strips,
)
from medseg.evaluation.pages.text_table import NONE
from medseg.evaluation.report.tables import number, titled
from medseg.evaluation.statistics.cases import ScoredCase
from medseg.evaluation.statistics.summary import Summary
from medseg.io.csv_files import read_csv

CLASSES = 30
"""Classes that are shown at once: of more the worst, the others folded away."""
PANELS = 9
POINTS = 1200
FEW = 10
"""Points of a plot in all; of more cases some are drawn, evenly from the worst to the best, and of each class at least
a few."""


class Curve(NamedTuple):
    """A column of ``metrics.csv``, and how its curve is called and drawn."""

    column: str
    name: str
    is_minor: bool = True


def distributions(cases: Sequence[ScoredCase], summary: Summary) -> list[str]:
    """Return a plot of Dice by class, and those of the other metrics folded."""
    main, *others = summary["settings"]["names"]
    plots = [plot for name in others for plot in _distribution(cases, summary, name, POINTS // 3)[:1]]
    shown, *rest = _distribution(cases, summary, main, POINTS) or [paragraph("No case has a defined value.")]
    folds = [folded(f"{len(summary['classes']) - CLASSES} more classes", *rest)] if rest else []
    return [shown, *folds, *([folded("The other metrics", *plots)] if plots else [])]


def volumes(cases: Sequence[ScoredCase], summary: Summary) -> list[str]:
    """Return a plot of Dice against the true volume for each class, the volume on a logarithmic axis."""
    size, unit = ("truth_ml", "ml") if summary["unit"] == "mm" else ("truth_voxels", "px")
    names = _worst_first(summary, "dice") if len(summary["classes"]) > PANELS else list(summary["classes"])
    points: dict[str, list[Point]] = {}
    for name in names:
        for index, case in enumerate(cases):
            volume, dice = case.value(name, size), case.value(name, "dice")
            if volume > 0 and not isnan(dice):
                label = f"{case.id}: {number(dice, 'dice')}, {volume:.3g}"
                points.setdefault(name, []).append(Point(volume, dice, label, f"#case-{index}"))
    if not points:
        return [paragraph("No case has a ground truth to compare with.")]
    every = [point for of_class in points.values() for point in of_class]
    x = logarithmic(f"true volume ({unit})" if unit == "ml" else "true area (px)", [point.x for point in every])
    y = linear(METRICS["dice"].title, [point.y for point in every], 0, 1)
    plots = []
    for name, of_class in points.items():
        shown, left = some(of_class, max(FEW, POINTS // len(points))), len(cases) - len(of_class)
        remarks = [f"{len(shown)} of {len(of_class)} cases drawn"] if len(shown) < len(of_class) else []
        remarks += [f"{left} without this class or a ground truth of it left out"] if left else []
        text = f"{len(shown)} cases; {x.title} on a logarithmic axis"
        plots.append(figure(name, scatter(shown, x, y, f"Dice against size: {name}", text), "; ".join(remarks)))
    more = [folded(f"{len(plots) - PANELS} more classes", side_by_side(plots[PANELS:]))] if len(plots) > PANELS else []
    return [side_by_side(plots[:PANELS]), *more]


def learning_curves(path: Path, classes: Sequence[str]) -> list[str]:
    """Return plots of a training's ``metrics.csv``: Dice on the validation cases, the loss, and what else there is.

    ``classes`` are those, or the regions, whose own curves are drawn where the training scored them.
    """
    rows = read_csv(path)
    names = ScoreNames("dice", classes)
    scores = [Curve(names.mean.column, "mean", False), Curve(names.smoothed.column, "mean, smoothed", False)]
    scores += [Curve(name.column, class_name) for class_name, name in names.classes.items()]
    others = {
        "train_loss": "training loss",
        "lr": "learning rate",
        "grad_norm": "gradient norm",
        "step_seconds": "seconds a step",
        "data_share": "share of time waiting for data",
    }
    plots = [_curves(rows, scores, "validation Dice")]
    plots += [_curves(rows, [Curve(column, title)], title) for column, title in others.items()]
    return [side_by_side(plot for plot in plots if plot)]


def _distribution(cases: Sequence[ScoredCase], summary: Summary, metric: str, most: int) -> list[str]:
    """The plot of the classes that are shown at once, and that of the others; nothing where no value is defined."""
    names = _worst_first(summary, metric) if len(summary["classes"]) > CLASSES else list(summary["classes"])
    title, share = titled(metric, summary["unit"]), max(FEW, most // min(CLASSES, len(names)))
    parts = []
    for rank, name in enumerate(names):
        points = [
            Point(value, 0.0, case.id, f"#case-{index}")
            for index, case in enumerate(cases)
            if not isnan(value := case.value(name, metric))
        ]
        drawn = some(points, share if rank < CLASSES else FEW)
        drawn = [point._replace(name=f"{point.name}: {number(point.x, metric)}") for point in drawn]
        of_class = summary["classes"][name][metric]
        median = f"median {number(of_class['median'], metric)}" if of_class["n"] else NONE
        parts.append(Strip(name, median, [point.x for point in points], drawn))
    every = [value for part in parts for value in part.values]
    if not every:
        return []
    least, highest = (0, inf) if METRICS[metric].better == "lower" else (-inf, inf)
    if METRICS[metric].unit == "":
        least, highest = 0, 1
    axis = linear(title, every, least, highest)
    description = "; ".join(f"{part.name}: {part.note}" for part in parts[:CLASSES])
    groups = [parts[:CLASSES], parts[CLASSES:]] if len(parts) > CLASSES else [parts]
    order = f"the {CLASSES} worst classes, " if len(parts) > CLASSES else ""
    note = f"{order}box: quartiles, line: median, points: {'some of the' if len(cases) > share else 'the'} cases"
    return [
        figure(title, strips(group, axis, f"{title} by class", description), note if group is groups[0] else "")
        for group in groups
    ]


def _worst_first(summary: Summary, metric: str) -> list[str]:
    """The classes by their mean, those without one last."""
    turn = {"higher": 1.0, "lower": -1.0, "zero": -1.0}[METRICS[metric].better]

    def badness(name: str) -> float:
        mean = summary["classes"][name][metric]["mean"]
        return inf if mean is None else turn * (abs(mean) if METRICS[metric].better == "zero" else mean)

    return sorted(summary["classes"], key=badness)


def _curves(rows: Sequence[dict[str, Any]], curves: Sequence[Curve], title: str) -> str:
    """A plot of some columns over the epochs; nothing where none has a value."""
    series = []
    for curve in curves:
        points = [Point(float(row["epoch"]), float(row[curve.column])) for row in rows if row.get(curve.column)]
        points = [point for point in points if not isnan(point.y)]
        if points:
            series.append(Series(curve.name, points, is_minor=curve.is_minor))
    if not series:
        return ""
    values = [point.y for part in series for point in part.points]
    x = linear("epoch", [point.x for part in series for point in part.points])
    bounds = (0, 1) if title == "validation Dice" else (0, inf) if min(values) >= 0 else (-inf, inf)
    last = series[0].points[-1]
    description = f"{series[0].name} ends at {last.y:.4g} after epoch {last.x:g}"
    return figure(
        title[0].upper() + title[1:],
        lines(series, x, linear("", values, *bounds), title, description),
    )
