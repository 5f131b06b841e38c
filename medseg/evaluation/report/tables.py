"""A summary as tables of text, which the terminal, Markdown, LaTeX and HTML all show: every number is written here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.evaluation.metrics.registry import METRICS
from medseg.evaluation.statistics.summary import Summary

FAMILIES = {
    "volume and detection of voxels": ("sensitivity", "precision", "volume_difference", "relative_volume_difference"),
    "surface": ("hd95", "assd", "nsd", "cldice"),
    "lesions": ("lesion_dice", "lesion_sensitivity", "lesion_precision", "lesion_f1", "lesion_hd95"),
}
"""Metrics that stand in one table beside Dice and IoU."""
NONE = "–"


@dataclass(frozen=True)
class TextTable:
    """A table whose first column names, with numbers in the others; ``notes`` stand below, the last row is a mean."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def tables_of(summary: Summary) -> list[TextTable]:
    """Return the tables of a report: Dice in full, the means of the other metrics, and Dice by stratum."""
    return [overview(summary), *_families(summary), *_strata(summary)]


def overview(summary: Summary) -> TextTable:
    """Return Dice in full, and IoU."""
    main, also = "dice", [name for name in summary["settings"]["names"] if name == "iou"]
    headers = ["class", METRICS[main].title, "median", "95 % interval", *(METRICS[name].title for name in also)]
    rows = [
        [
            name,
            *_described(found, main),
            *(number(found[other]["mean"], other) for other in also),
            *_numbers(found[main]),
        ]
        for name, found in summary["classes"].items()
    ]
    means = summary["mean"]
    between = interval(summary["mean_ci95"], main)
    mean = ["mean", number(means[main], main), "", between, *(number(means[name], name) for name in also), "", ""]
    cases = f"{summary['n_cases']} case{'s' if summary['n_cases'] != 1 else ''}"
    title = f"{summary['subset']}: {cases}"
    problems = [f"{len(summary['problems'])} further case(s) could not be scored"] if summary["problems"] else []
    return TextTable(title, [*headers, "n", "undefined"], [*rows, mean], [*problems, *_absences(summary)])


def statistics_table(summary: Summary, metric: str) -> TextTable:
    """Return all statistics of one metric, a row a class."""
    headers = ("class", "mean", "std", "median", "quartiles", "95 % interval", "n", "undefined", "missed")
    rows = []
    for name, found in summary["classes"].items():
        of = found[metric]
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
    """Return a metric's title with its unit; of pictures (``unit`` "px") lengths and areas are in pixels."""
    own = METRICS[metric].unit
    shown = {"mm": "px", "ml": "px"}.get(own, own) if unit == "px" else own
    return METRICS[metric].title + (f" ({shown})" if shown else "")


def _described(found: dict[str, Any], metric: str) -> list[str]:
    of = found[metric]
    return [_mean_std(of, metric), number(of["median"], metric), interval(of["ci95"], metric)]


def _mean_std(of: dict[str, Any], metric: str) -> str:
    return number(of["mean"], metric) + ("" if of["std"] is None else f" ± {number(of['std'], metric)}")


def _numbers(of: dict[str, Any]) -> list[str]:
    return [str(of["n"]), str(of["n_undefined"])]


def _families(summary: Summary) -> Iterator[TextTable]:
    """The means of the metrics that are not in the overview."""
    for title, family in FAMILIES.items():
        if chosen := [name for name in summary["settings"]["names"][1:] if name in family]:
            rows = [
                [name, *(number(found[metric]["mean"], metric) + _missed(found[metric]) for metric in chosen)]
                for name, found in summary["classes"].items()
            ]
            mean = ["mean", *(number(summary["mean"][metric], metric) for metric in chosen)]
            is_missing = any(found[metric]["n_missed"] for found in summary["classes"].values() for metric in chosen)
            notes = ["(n): no distance in n cases, as one mask is empty or no lesion was found"] if is_missing else []
            yield TextTable(title, ["class", *(titled(name, summary["unit"]) for name in chosen)], [*rows, mean], notes)


def _missed(of: dict[str, Any]) -> str:
    return f" ({of['n_missed']})" if of["n_missed"] else ""


def _strata(summary: Summary) -> Iterator[TextTable]:
    main = "dice"
    for column, values in summary["strata"].items():
        headers = [column, "cases", *summary["classes"], "mean"]
        rows = [
            [
                value or "(none)",
                str(part["n_cases"]),
                *(_mean_std(found[main], main) for found in part["classes"].values()),
                number(part["mean"][main], main),
            ]
            for value, part in values.items()
        ]
        yield TextTable(f"{titled(main, summary['unit'])} by {column}", headers, rows)


def _absences(summary: Summary) -> Iterator[str]:
    """A line for each class that some cases do not have, as their Dice hides how large a false finding is."""
    for name, found in summary["classes"].items():
        empty = found["empty_truth"]
        if empty["n"]:
            amount = f"{empty['ml']:.3g} ml" if "ml" in empty else f"{empty['voxels']} px"
            yield f"{name}: absent in {empty['n']}, falsely found in {empty['false_positives']} ({amount})"
