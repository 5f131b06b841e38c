"""A summary as tables of text, which the terminal, Markdown, LaTeX and HTML all show: every number is written here."""

from collections.abc import Sequence
from typing import Any

from medseg.evaluation.metrics.registry import METRICS, worded
from medseg.evaluation.pages.text_table import NONE, TextTable, counted
from medseg.evaluation.statistics.bootstrap import MIN_GROUPS
from medseg.evaluation.statistics.summary import Summary

FAMILIES = {
    "volume and detection of voxels": ("sensitivity", "precision", "volume_difference", "relative_volume_difference"),
    "surface": ("hd95", "assd", "nsd", "cldice"),
    "lesions": ("lesion_dice", "lesion_sensitivity", "lesion_precision", "lesion_f1", "lesion_hd95"),
}
"""Metrics that stand in one table beside Dice and IoU."""


def tables_of(summary: Summary) -> list[TextTable]:
    """Return the tables of a report: Dice in full, the means of the other metrics, and Dice by stratum."""
    tables, classes, unit = [overview(summary)], summary["classes"], summary["unit"]
    for title, family in FAMILIES.items():
        metrics = [name for name in summary["settings"]["names"][1:] if name in family]
        if not metrics:
            continue
        rows, missed = [], False
        for name, of_class in classes.items():
            cells = [name]
            for metric in metrics:
                n_missed = of_class[metric]["n_missed"]
                missed |= bool(n_missed)
                cells.append(number(of_class[metric]["mean"], metric) + (f" ({n_missed})" if n_missed else ""))
            rows.append(cells)
        rows.append(["mean", *(number(summary["mean"][metric], metric) for metric in metrics)])
        notes = ["(n): no distance in n cases, as one mask is empty or no lesion was found"] if missed else []
        headers = ["class", *(titled(metric, unit) for metric in metrics)]
        tables.append(TextTable(worded(title, unit), headers, rows, [worded(note, unit) for note in notes]))
    for column, strata in summary["strata"].items():
        rows = [
            [
                value or "(none)",
                str(stratum["n_cases"]),
                *(_mean_std(of_class["dice"]) for of_class in stratum["classes"].values()),
                number(stratum["mean"]["dice"], "dice"),
            ]
            for value, stratum in strata.items()
        ]
        over = summary["over_strata"][column]["dice"]
        rows.append(["mean", *[""] * (len(classes) + 1), _mean_std(over)])
        title, notes = f"{titled('dice', unit)} by {column}", [f"mean: of {over['n']}, ± their standard deviation"]
        tables.append(TextTable(title, [column, "cases", *classes, "mean"], rows, notes))
    return tables


def overview(summary: Summary) -> TextTable:
    """Return Dice in full, and IoU."""
    has_iou = "iou" in summary["settings"]["names"]
    headers = ["class", METRICS["dice"].title, "median", "95 % interval", *[METRICS["iou"].title] * has_iou]
    rows, notes = [], [*summary.get("warnings", ()), *summary["notes"]]  # earlier versions had no warnings
    has_short = False
    if summary["problems"]:
        notes.append(f"{len(summary['problems'])} further case(s) could not be scored")
    for name, of_class in summary["classes"].items():
        dice, empty = of_class["dice"], of_class["empty_truth"]
        cells = [_mean_std(dice), number(dice["median"], "dice"), interval(dice["ci95"], "dice")]
        cells += [number(of_class["iou"]["mean"], "iou")] if has_iou else []
        rows.append([name, *cells, str(dice["n"]), str(dice["n_undefined"])])
        has_short |= bool(dice["n"]) and dice["ci95"] is None
        if empty["n"]:  # a class that some cases do not have, as their Dice hides how large a false positive is
            amount = f"{empty['ml']:.3g} ml" if "ml" in empty else f"{empty['voxels']} px"
            notes.append(f"{name}: absent in {empty['n']}, falsely found in {empty['false_positives']} ({amount})")
    if has_short:
        notes.append(f"{NONE}: intervals are over patients, and given from {MIN_GROUPS} patients on")
    means = summary["mean"]
    mean = ["mean", number(means["dice"], "dice"), "", interval(summary["mean_ci95"], "dice")]
    mean += [number(means["iou"], "iou")] if has_iou else []
    title = f"{summary['subset']}: {counted(summary['n_cases'], 'case')}"
    return TextTable(title, [*headers, "n", "undefined"], [*rows, [*mean, "", ""]], notes)


def statistics_table(summary: Summary, metric: str) -> TextTable:
    """Return all statistics of one metric, a row a class."""
    headers = ("class", "mean", "std", "median", "quartiles", "95 % interval", "n", "undefined", "missed")
    rows = []
    for name, of_class in summary["classes"].items():
        of = of_class[metric]
        middle = [number(of[key], metric) for key in ("mean", "std", "median")]
        rows.append(
            [
                name,
                *middle,
                interval((of["q1"], of["q3"]), metric),
                interval(of["ci95"], metric),
                *map(str, (of["n"], of["n_undefined"], of["n_missed"])),
            ]
        )
    between = interval(summary["mean_ci95"], metric) if metric == "dice" else ""
    mean = ["mean", number(summary["mean"][metric], metric), *[""] * 3, between, *[""] * 3]
    return TextTable(titled(metric, summary["unit"]), headers, [*rows, mean])


def number(value: float | None, metric: str) -> str:
    """Write a value of a metric: shares to three digits behind the point, lengths to two, percent to one.

    >>> number(0.98765, "dice"), number(12.3456, "relative_volume_difference"), number(None, "dice")
    ('0.988', '12.3', '–')
    """
    if value is None or value != value:
        return NONE
    unit = METRICS[metric].unit
    if unit == "ml":
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.{ {'': 3, 'mm': 2, '%': 1}[unit] }f}"


def interval(bounds: Sequence[float | None] | None, metric: str) -> str:
    """Write the lower and the upper bound of a metric."""
    if bounds is None or None in bounds:
        return NONE
    return "–".join(number(bound, metric) for bound in bounds)


def titled(metric: str, unit: str) -> str:
    """Return a metric's title with its unit; of 2D images (``unit`` "px") lengths and areas are in pixels.

    >>> titled("volume_difference", "mm"), titled("volume_difference", "px"), titled("lesion_f1", "px")
    ('volume difference (ml)', 'area difference (px)', 'object F1')
    """
    own = METRICS[metric].unit
    shown = {"mm": "px", "ml": "px"}.get(own, own) if unit == "px" else own
    return worded(METRICS[metric].title, unit) + (f" ({shown})" if shown else "")


def _mean_std(of: dict[str, Any]) -> str:
    return number(of["mean"], "dice") + ("" if of["std"] is None else f" ± {number(of['std'], 'dice')}")
