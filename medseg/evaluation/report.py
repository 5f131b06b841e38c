"""From the counts of single cases to the report: rows, their statistics, the files and the table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.metrics import dice, iou
from medseg.io.atomic import write_json, write_text
from medseg.io.case import Case
from medseg.io.labels import LabelMap

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]
Summary = dict[str, Any]

SCORES = ("dice", "iou")
COLUMNS = ("case", "group", "class", *SCORES, "truth_voxels", "predicted_voxels", "truth_ml", "predicted_ml")
MIN_GROUPS = 8
"""Below this many groups a bootstrap interval says nothing that the values do not."""
RESAMPLES = 2000


def case_rows(
    case: Case,
    counts: NDArray[np.int64],
    label_map: LabelMap,
    voxel_volume: float,
    unit: Literal["mm", "px"],
) -> list[Row]:
    """Return one row for each class or region that a report tells of a case.

    ``counts`` is (R, 3) of ``metrics.counts`` over ``label_map.reported``, ``voxel_volume`` in mm³. Volumes in ml are
    left out for pictures (``unit`` "px"). Undefined scores are NaN, and so is the truth of what was not annotated in
    the case.
    """
    known = label_map.is_known(label_map.annotated(case.annotated))
    scores = zip(label_map.reported, known, counts, strict=True)
    return [_row(case, name, known, found, voxel_volume if unit == "mm" else None) for name, known, found in scores]


def _row(case: Case, name: str, known: bool, counts: NDArray[np.int64], voxel_volume: float | None) -> Row:
    _, predicted, true = counts.tolist()
    row: Row = {**case.columns, "case": case.id, "group": case.group, "class": name}
    row |= {"dice": float(dice(counts)) if known else nan, "iou": float(iou(counts)) if known else nan}
    row |= {"truth_voxels": true if known else nan, "predicted_voxels": predicted}
    if voxel_volume is not None:
        row["truth_ml"] = _ml(true * voxel_volume) if known else nan
        row["predicted_ml"] = _ml(predicted * voxel_volume)
    return row


def summarise(rows: Sequence[Row], names: Sequence[str], subset: str) -> Summary:
    """Return what ``metrics.json`` holds: statistics over the cases for each class or region, and their means.

    ``names`` are those of the classes or regions. The mean over classes is the mean of the class means, a class without
    a defined value left out. Values that are not defined are None.
    """
    classes = {name: _class_summary([row for row in rows if row["class"] == name]) for name in names}
    means = {score: [c[score]["mean"] for c in classes.values() if c[score]["mean"] is not None] for score in SCORES}
    return {
        "format": 1,
        "subset": subset,
        "n_cases": len({row["case"] for row in rows}),
        "classes": classes,
        "mean": {score: float(np.mean(values)) if values else None for score, values in means.items()},
    }


def write_report(folder: Path, rows: Sequence[Row], summary: Summary) -> None:
    """Write ``metrics.json`` and ``cases.csv``, each whole or not at all; an undefined score is an empty cell.

    Raises MedsegError where the folder cannot be written.
    """
    write_json(folder / "metrics.json", summary)
    write_text(folder / "cases.csv", _csv(rows))


def table(summary: Summary) -> Table:
    """Return the summary as a table for a terminal of 80 columns or more."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    cases = f"{summary['n_cases']} case{'s' if summary['n_cases'] != 1 else ''}"
    shown = Table(
        title=f"{escape(summary['subset'])}: {cases}",
        caption=escape(_absences(summary)) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("class", overflow="fold")
    for header in ("Dice", "median", "95 % interval", "IoU", "n", "undefined"):
        shown.add_column(header, justify="right", no_wrap=True)
    for name, found in summary["classes"].items():
        shown.add_row(escape(name), *_cells(found))
    shown.add_section()
    mean = summary["mean"]
    shown.add_row("mean", _mean_std(mean["dice"]), "", "", _number(mean["iou"]), style="bold")
    return shown


def statistics(values: NDArray[np.float64], groups: NDArray[Any]) -> dict[str, Any]:
    """Return mean, standard deviation (n - 1), median, 95 % interval and number of the values (N,) that are not NaN."""
    defined = ~np.isnan(values)
    kept, n = values[defined], int(defined.sum())
    return {
        "mean": float(kept.mean()) if n else None,
        "std": float(kept.std(ddof=1)) if n > 1 else None,
        "median": float(np.median(kept)) if n else None,
        "ci95": confidence_interval(kept, groups[defined]),
        "n": n,
        "n_undefined": len(values) - n,
    }


def confidence_interval(values: NDArray[np.float64], groups: NDArray[Any], *, seed: int = 0) -> list[float] | None:
    """Return the 95 % bootstrap interval [low, high] of the mean of ``values`` (N,); None below ``MIN_GROUPS`` groups.

    Whole groups are drawn, since the cases of one patient are not independent. Bias-corrected and accelerated (BCa):
    Efron, "Better bootstrap confidence intervals", JASA 82 (1987).
    """
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member)
    if len(sizes) < MIN_GROUPS:
        return None
    sums = np.bincount(member, weights=values)
    mean = float(values.mean())
    if np.allclose(sums / sizes, mean, rtol=1e-9):  # nothing varies: BCa would divide zero by zero
        return [mean, mean]
    from scipy.stats import bootstrap

    found = bootstrap(
        (sums, sizes), _pooled_mean, paired=True, n_resamples=RESAMPLES, batch=100, rng=np.random.default_rng(seed)
    )
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def _pooled_mean(sums: NDArray[np.float64], sizes: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def _ml(volume: float) -> float:
    """mm³ as ml, without the digits that are rounding noise."""
    return float(f"{volume / 1000:.9g}")


def _class_summary(rows: Sequence[Row]) -> dict[str, Any]:
    groups = np.array([row["group"] for row in rows])
    scores = {score: statistics(np.array([row[score] for row in rows], float), groups) for score in SCORES}
    return scores | {"empty_truth": _empty_truth(rows)}


def _empty_truth(rows: Sequence[Row]) -> dict[str, Any]:
    """Cases without the class: how many there are, in how many it was found, and how much of it in all."""
    size = "ml" if all("predicted_ml" in row for row in rows) else "voxels"
    empty = [row for row in rows if row["truth_voxels"] == 0]
    return {
        "n": len(empty),
        "false_positives": sum(row["predicted_voxels"] > 0 for row in empty),
        size: sum(row[f"predicted_{size}"] for row in empty),
    }


def _csv(rows: Sequence[Row]) -> str:
    """The rows as CSV with the columns that occur; floats in full, so that they read back as the same numbers."""
    used = {column: None for row in rows for column in row}
    further = [column for column in used if column not in COLUMNS]  # of the data set's table
    text = io.StringIO()
    writer = csv.DictWriter(text, [*(c for c in COLUMNS if c in used or not rows), *further], lineterminator="\n")
    writer.writeheader()
    for row in rows:  # NaN alone differs from itself
        writer.writerow({column: "" if value != value else value for column, value in row.items()})
    return text.getvalue()


def _cells(found: dict[str, Any]) -> list[str]:
    """A class's cells behind its name."""
    scores = found["dice"]
    interval = "–".join(_number(bound) for bound in scores["ci95"]) if scores["ci95"] else "–"
    return [
        _mean_std(scores["mean"], scores["std"]),
        _number(scores["median"]),
        interval,
        _number(found["iou"]["mean"]),
        str(scores["n"]),
        str(scores["n_undefined"]),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _mean_std(mean: float | None, std: float | None = None) -> str:
    spread = "" if std is None else f" ± {std:.3f}"
    return _number(mean) + spread.ljust(len(" ± 0.000"))  # the means of a column stand below each other


def _absences(summary: Summary) -> str:
    """A line for each class that some cases do not have, as their Dice hides how large a false finding is."""
    lines = []
    for name, found in summary["classes"].items():
        empty = found["empty_truth"]
        if empty["n"]:
            amount = f"{empty['ml']:.3g} ml" if "ml" in empty else f"{empty['voxels']} voxels"
            lines.append(f"{name}: absent in {empty['n']}, falsely found in {empty['false_positives']} ({amount})")
    return "\n".join(lines)
