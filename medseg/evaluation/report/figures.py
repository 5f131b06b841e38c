"""The plots of a report: metrics by class, Dice against volume, the course of training."""

from collections.abc import Sequence
from math import inf, isnan
from pathlib import Path

from medseg.evaluation.metrics.registry import METRICS
from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.evaluation.pages.plots import (
    LinePlot,
    Point,
    ScatterPlot,
    Series,
    Strip,
    StripPlot,
    linear,
    logarithmic,
    some,
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


def distribution(cases: Sequence[ScoredCase], summary: Summary, metric: str, most: int = POINTS) -> list[StripPlot]:
    """Return a plot of a metric by class with at most so many points: the first classes, then the others if any.

    There is none where no case has a defined value.
    """
    names = worst_first(summary, metric, CLASSES)
    title, share = titled(metric, summary["unit"]), max(FEW, most // min(CLASSES, len(names)))
    strips = []
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
        strips.append(Strip(name, median, [point.x for point in points], drawn))
    values = [value for strip in strips for value in strip.values]
    if not values:
        return []
    least, highest = (0, inf) if METRICS[metric].better == "lower" else (-inf, inf)
    if METRICS[metric].unit == "":
        least, highest = 0, 1
    axis = linear(title, values, least, highest)
    description = "; ".join(f"{strip.name}: {strip.note}" for strip in strips[:CLASSES])
    order = f"the {CLASSES} worst classes, " if len(strips) > CLASSES else ""
    note = f"{order}box: quartiles, line: median, points: {'some of the' if len(cases) > share else 'the'} cases"
    shown = {"caption": title, "title": f"{title} by class", "description": description}
    plots = [StripPlot(**shown, x=axis, note=note, strips=strips[:CLASSES])]
    return plots + ([StripPlot(**shown, x=axis, strips=strips[CLASSES:])] if len(strips) > CLASSES else [])


def volumes(cases: Sequence[ScoredCase], summary: Summary) -> list[ScatterPlot]:
    """Return a plot of Dice against the true volume for each class, the volume on a logarithmic axis."""
    size, title = ("truth_ml", "true volume (ml)") if summary["unit"] == "mm" else ("truth_voxels", "true area (px)")
    points: dict[str, list[Point]] = {}
    for name in worst_first(summary, "dice", PANELS):
        for index, case in enumerate(cases):
            volume, dice = case.value(name, size), case.value(name, "dice")
            if volume > 0 and not isnan(dice):
                label = f"{case.id}: {number(dice, 'dice')}, {volume:.3g}"
                points.setdefault(name, []).append(Point(volume, dice, label, f"#case-{index}"))
    every = [point for of_class in points.values() for point in of_class]
    x = logarithmic(title, [point.x for point in every])
    y = linear(METRICS["dice"].title, [point.y for point in every], 0, 1)
    plots = []
    for name, of_class in points.items():
        shown, left = some(of_class, max(FEW, POINTS // len(points))), len(cases) - len(of_class)
        remarks = [f"{len(shown)} of {len(of_class)} cases drawn"] if len(shown) < len(of_class) else []
        remarks += [f"{left} without this class or a ground truth of it left out"] if left else []
        plot = ScatterPlot(
            caption=name,
            note="; ".join(remarks),
            title=f"Dice against size: {name}",
            description=f"{len(shown)} cases; {x.title} on a logarithmic axis",
            x=x,
            y=y,
            points=shown,
        )
        plots.append(plot)
    return plots


def learning_curves(path: Path, classes: Sequence[str]) -> list[LinePlot]:
    """Return plots of a training's ``metrics.csv``: Dice on the validation cases, the loss, and what else there is.

    ``classes`` are those, or the regions, whose own curves are drawn where the training scored them.
    """
    rows, names = read_csv(path), ScoreNames("dice", classes)
    dice = {names.mean.column: "mean", names.smoothed.column: "mean, smoothed"}
    dice |= {name.column: class_name for class_name, name in names.classes.items()}
    others = {
        "train_loss": "training loss",
        "lr": "learning rate",
        "grad_norm": "gradient norm",
        "step_seconds": "seconds a step",
        "data_share": "share of time waiting for data",
    }
    plots = []
    for title, columns in [("validation Dice", dice), *((title, {column: title}) for column, title in others.items())]:
        series = []
        for column, name in columns.items():
            points = [Point(float(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
            points = [point for point in points if not isnan(point.y)]
            if points:
                is_minor = column not in (names.mean.column, names.smoothed.column)
                series.append(Series(name, points, is_minor))
        if not series:
            continue
        values = [point.y for one in series for point in one.points]
        bounds = (0, 1) if columns is dice else (0, inf) if min(values) >= 0 else (-inf, inf)
        last = series[0].points[-1]
        plot = LinePlot(
            caption=title[0].upper() + title[1:],
            title=title,
            description=f"{series[0].name} ends at {last.y:.4g} after epoch {last.x:g}",
            x=linear("epoch", [point.x for one in series for point in one.points]),
            y=linear("", values, *bounds),
            series=series,
        )
        plots.append(plot)
    return plots


def worst_first(summary: Summary, metric: str, most: int) -> list[str]:
    """Return the classes in their order, or where they are more than ``most`` by their mean, those without one last."""

    def badness(name: str) -> float:
        mean, better = summary["classes"][name][metric]["mean"], METRICS[metric].better
        if mean is None:
            return inf
        return {"higher": mean, "lower": -mean, "zero": -abs(mean)}[better]

    return sorted(summary["classes"], key=badness) if len(summary["classes"]) > most else list(summary["classes"])
