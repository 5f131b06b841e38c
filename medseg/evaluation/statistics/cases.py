"""The cases of a report: a row for each case and class with its metrics and sizes."""

import csv
from collections import Counter
from collections.abc import Sequence
from math import isinf, isnan, nan
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.evaluation.metrics.registry import METRICS, Measured, is_distance
from medseg.evaluation.statistics.means import mean_of_defined
from medseg.io import csv_files
from medseg.io.case import Case
from medseg.io.labels import LabelMap

Row = dict[str, Any]

SIZES = ("truth_voxels", "predicted_voxels", "truth_ml", "predicted_ml")
COLUMNS = ("case", "group", "class", *METRICS, *SIZES)
NEEDED = ("case", "group", "class", "dice", "truth_voxels", "predicted_voxels")
"""Columns that every report has."""


def case_rows(
    case: Case,
    counts: NDArray[np.int64],
    measured: Sequence[Measured],
    label_map: LabelMap,
    voxel_volume: float,
    unit: Literal["mm", "px"],
) -> list[Row]:
    """Return one row for each class or region that a report tells of a case.

    ``counts`` (R, 3) of ``overlap.counts`` and ``measured`` of ``metrics.measure_case`` are over
    ``label_map.reported``, ``voxel_volume`` is in mm³. Volumes in ml are left out for 2D images (``unit`` "px").
    Undefined values are NaN, and so is all that asks for a ground truth where the case was not annotated for it.
    """
    is_known = label_map.is_known(label_map.annotated(case.annotated))
    rows = []
    for name, known, (_, predicted, true), values in zip(
        label_map.reported, is_known, counts.tolist(), measured, strict=True
    ):
        row: Row = {**case.columns, "case": case.id, "group": case.group, "class": name}
        row |= values if known else dict.fromkeys(values, nan)
        row |= {"truth_voxels": true if known else nan, "predicted_voxels": predicted}
        if unit == "mm":  # mm³ to ml, without the digits that are rounding noise
            row["truth_ml"] = float(f"{true * voxel_volume / 1000:.9g}") if known else nan
            row["predicted_ml"] = float(f"{predicted * voxel_volume / 1000:.9g}")
        rows.append(row)
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV with the columns that occur; floats in full, so that they read back as the same numbers.

    Undefined values are empty cells. Columns of the data set's own table come last.
    """
    used = {column: None for row in rows for column in row}
    further = [column for column in used if column not in COLUMNS]
    own = [column for column in COLUMNS if column in used or not rows]
    written = ({column: "" if value != value else value for column, value in row.items()} for row in rows)  # NaN
    return csv_files.as_csv([*own, *further], written)


def read_rows(path: Path) -> list[Row]:
    """Read the rows that ``as_csv`` wrote; empty cells of numbers are NaN, further columns stay text.

    Raises:
        MedsegError: the file cannot be read, is no such table, or holds no row.
    """
    try:
        cells = csv_files.read_csv(path)
        if not cells:
            raise MedsegError(f"{path}: this table of cases has no row.")
        if missing := [column for column in NEEDED if column not in cells[0]]:
            raise MedsegError(f"{path}: not a report's table of cases: it has no column {', '.join(missing)}.")
        numbers = [column for column in (*METRICS, *SIZES) if column in cells[0]]
        rows: list[Row] = [row | {column: float(row[column] or nan) for column in numbers} for row in cells]
        if endless := [column for row in rows for column in numbers if isinf(row[column])]:
            raise ValueError(f"{endless[0]} is infinite in a row")
        return rows
    except (OSError, ValueError, csv.Error) as error:
        raise MedsegError(f"{path}: cannot be read as a report's table of cases: {error}.") from error


def is_nothing(row: Row, metric: str) -> bool:
    """Tell whether there was nothing to find: both masks are empty, or hold no lesion that counts."""
    if metric.startswith("lesion_"):
        for name in ("lesion_dice", "lesion_f1"):  # undefined in no other case
            if name in row:
                return bool(row[name] != row[name])
    return not row["truth_voxels"] and not row["predicted_voxels"]


def is_missed(row: Row, metric: str) -> bool:
    """Tell a distance that is undefined since one mask is empty, or no lesion was found."""
    is_known = row["truth_voxels"] == row["truth_voxels"]
    return is_distance(metric) and is_known and row[metric] != row[metric] and not is_nothing(row, metric)


def never_predicted(rows: Sequence[Row]) -> list[str]:
    """Return a line for each class that cases hold, and that was predicted in no case."""
    held = Counter(row["class"] for row in rows if row["truth_voxels"] > 0)
    predicted = {row["class"] for row in rows if row["predicted_voxels"] > 0}
    return [f"{name}: never predicted (cases with it: {n})" for name, n in held.items() if name not in predicted]


class ScoredCase(NamedTuple):
    """A case: its id, group and further columns of the data set's table, and the row of each class."""

    id: str
    group: str
    further: dict[str, str]
    classes: dict[str, Row]

    def value(self, name: str, column: str) -> float:
        """Return a number of a class; NaN where it is undefined."""
        return float(self.classes.get(name, {}).get(column, nan))

    @property
    def dice(self) -> float:
        """The mean Dice over the classes where it is defined; NaN where it is nowhere."""
        return mean_of_defined(self.value(name, "dice") for name in self.classes)

    @property
    def lowest_first(self) -> list[tuple[float, str]]:
        """The Dice of the classes where it is defined, with their names, the lowest first."""
        return sorted((value, name) for name in self.classes if not isnan(value := self.value(name, "dice")))


def scored_cases(rows: Sequence[Row]) -> list[ScoredCase]:
    """Return the cases of a report's rows, in their order."""
    further = list(dict.fromkeys(column for row in rows for column in row if column not in COLUMNS))
    cases: dict[str, ScoredCase] = {}
    for row in rows:
        cells = {column: str(row.get(column, "")) for column in further}
        case = cases.setdefault(row["case"], ScoredCase(row["case"], row["group"], cells, {}))
        case.classes[row["class"]] = row
    return list(cases.values())


def ranked(cases: Sequence[ScoredCase]) -> list[ScoredCase]:
    """Return the cases that have a mean Dice, the worst first."""
    return sorted((case for case in cases if not isnan(case.dice)), key=lambda case: case.dice)
