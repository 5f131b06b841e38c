"""The cases of a report as ``cases.csv`` holds them, read back."""

from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import NamedTuple

from medseg.evaluation.statistics.case_rows import COLUMNS
from medseg.io.csv_files import read_csv

Cells = dict[str, str]


class ScoredCase(NamedTuple):
    """A case: its id, group and further columns of the data set's table, and the cells of each class."""

    id: str
    group: str
    further: Cells
    classes: dict[str, Cells]

    def value(self, name: str, column: str) -> float:
        """Return a number of a class; NaN where it is undefined."""
        cell = self.classes.get(name, {}).get(column, "")
        return float(cell) if cell else nan

    @property
    def dice(self) -> float:
        """The mean Dice over the classes where it is defined; NaN where it is nowhere."""
        values = [value for value in (self.value(name, "dice") for name in self.classes) if not isnan(value)]
        return sum(values) / len(values) if values else nan


def read_cases(path: Path) -> list[ScoredCase]:
    """Read ``cases.csv``, in its order."""
    cases: dict[str, ScoredCase] = {}
    for row in read_csv(path):
        further = {name: cell for name, cell in row.items() if name not in COLUMNS}
        case = cases.setdefault(row["case"], ScoredCase(row["case"], row["group"], further, {}))
        case.classes[row["class"]] = row
    return list(cases.values())


def ranked(cases: Sequence[ScoredCase]) -> list[ScoredCase]:
    """Return the cases that have a mean Dice, the worst first."""
    return sorted((case for case in cases if not isnan(case.dice)), key=lambda case: case.dice)
