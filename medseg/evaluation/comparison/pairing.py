"""Several reports on the same cases, side by side, so that they can be compared.

What a case counts as in a comparison, where a report leaves it undefined:

* Both masks empty: perfect. Shares count as 1, differences and distances as 0, so that a run with a false finding is
  worse than one without. Metrics that are shares of the ground truth (``NEED_REFERENCE``) have nothing to say
  there.
* One mask empty, or no lesion found: distances are missed (infinite): worse than any that was measured.
* Anything else, such as a class that was not annotated: left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, listing
from medseg.evaluation.metrics.registry import METRICS
from medseg.evaluation.pages.text_table import few
from medseg.evaluation.report.files import Report
from medseg.evaluation.statistics.cases import Row, is_missed, is_nothing, never_predicted
from medseg.evaluation.statistics.means import Values

HOW = "medseg eval 'checkpoint=[A,B]' ensemble=false"
NEED_REFERENCE = ("sensitivity", "relative_volume_difference", "lesion_sensitivity")

METRICS_OF_SETTING = {
    "nsd_mm": ("nsd",),
    "surface": ("nsd", "hd95", "assd", "lesion_hd95"),
    "lesions": ("lesion_dice", "lesion_sensitivity", "lesion_precision", "lesion_f1", "lesion_hd95"),
    "missed_mm": ("hd95", "assd", "lesion_hd95"),
}
"""Settings, and the metrics whose values depend on them."""


@dataclass(frozen=True)
class Paired:
    """The values of R runs for the N cases and C classes that all of them have.

    ``values`` holds for each metric an array (R, C, N): NaN is undefined, infinite missed; where values near zero
    are best they are absolute. ``patients`` (N,) numbers the patient of each case; ``notes`` say what was left out.
    """

    runs: tuple[str, ...]
    classes: tuple[str, ...]
    cases: tuple[str, ...]
    patients: NDArray[np.int64]
    values: dict[str, Values]
    notes: tuple[str, ...]

    @property
    def n_patients(self) -> int:
        """The number of patients."""
        return len(set(self.patients.tolist()))


def pair(reports: Sequence[Report], metrics: Sequence[str]) -> Paired:
    """Pair the rows of two or more reports by case and class.

    ``metrics`` are names; those that a report lacks, or has measured in another way, are left out.

    Raises:
        MedsegError: the reports have no case or no class in common, or another ground truth of the same case.
    """
    cases, lost_cases = _in_all(reports, "case")
    classes, lost_classes = _in_all(reports, "class")
    tables = [{(row["case"], row["class"]): row for row in report.rows} for report in reports]
    _check_reference(reports, tables, [(case, name) for case in cases for name in classes])
    patients, doubt = _patients(reports, cases)
    chosen = [name for name in metrics if all(name in report.rows[0] for report in reports)]
    differing: dict[str, str] = {}  # metrics that reports have measured with different settings
    for setting, names in METRICS_OF_SETTING.items():
        if len({str(report.settings.get(setting)) for report in reports}) > 1:
            differing |= {name: setting for name in chosen if name in names}
    values = {}  # (R, C, N)
    for metric in chosen:
        if metric not in differing:
            values[metric] = np.array(
                [
                    [
                        [_value(table[case, name], metric) if (case, name) in table else nan for case in cases]
                        for name in classes
                    ]
                    for table in tables
                ],
                float,
            )
    lacking = [name for name in metrics if name not in chosen and any(name in report.rows[0] for report in reports)]
    otherwise = [f"not in all reports, so left out: {name}" for name in lacking]
    otherwise += [f"{report.name}: {line}" for report in reports for line in never_predicted(report.rows)]
    otherwise += [f"measured with another metrics.{differing[name]}, so left out: {name}" for name in differing]
    return Paired(
        tuple(report.name for report in reports),
        tuple(classes),
        tuple(cases),
        patients,
        values,
        (*lost_cases, *lost_classes, *otherwise, *doubt),
    )


def _in_all(reports: Sequence[Report], column: str) -> tuple[list[str], list[str]]:
    """Return what all reports have in a column, in the first one's order, and a note on what some of them lack."""
    names_of_each = [dict.fromkeys(row[column] for row in report.rows) for report in reports]
    common = [name for name in names_of_each[0] if all(name in names for names in names_of_each)]
    if not common:
        some = [f"{report.name}: {few(list(names))}" for report, names in zip(reports, names_of_each, strict=True)]
        raise MedsegError(
            f"the runs have no {column} in common, so there is nothing to compare:\n{listing(some)}\n"
            f"Evaluate them on the same data: {HOW}"
        )
    left = [name for name in dict.fromkeys(name for names in names_of_each for name in names) if name not in common]
    plural = "" if len(left) == 1 else "es" if column == "class" else "s"
    return common, [f"not in all runs, so left out: {len(left)} {column}{plural} ({few(left)})"] if left else []


def _check_reference(
    reports: Sequence[Report], tables: Sequence[dict[tuple[str, str], Row]], pairs: Sequence[tuple[str, str]]
) -> None:
    """Raise for reports whose ground truths of a case differ in size: they were measured against other masks."""
    problems: dict[str, str] = {}
    for case, name in pairs:
        sizes = [table[case, name]["truth_voxels"] if (case, name) in table else nan for table in tables]
        if not np.allclose(sizes, sizes[0], rtol=0, atol=0, equal_nan=True):
            of_runs = [f"{size:g} in {run.name}" for run, size in zip(reports, sizes, strict=True)]
            problems.setdefault(case, f"{case}, {name}: {', '.join(of_runs)}")
    if problems:
        raise MedsegError(
            f"{len(problems)} case(s) have another ground truth (voxels of a class) in one run than in another:\n"
            f"{listing(problems.values())}\nEvaluate all on the same masks: {HOW}"
        )


def _patients(reports: Sequence[Report], cases: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Number each case's patient; where reports group cases in different ways, the one of the fewest groups counts."""
    groupings = []
    for report in reports:
        group_of = {row["case"]: row["group"] for row in report.rows}
        groupings.append(np.unique([group_of[case] for case in cases], return_inverse=True)[1].astype(np.int64))
    fewest = min(groupings, key=lambda numbers: int(numbers.max()))
    is_doubtful = any(not np.array_equal(numbers, fewest) for numbers in groupings)
    return fewest, ["the runs group cases by patient in different ways: the coarsest counts"] if is_doubtful else []


def _value(row: Row, metric: str) -> float:
    """What a case counts as for a class."""
    true, value = row["truth_voxels"], row[metric]
    if true != true or (not true and metric in NEED_REFERENCE):
        return nan
    if is_nothing(row, metric) and metric not in NEED_REFERENCE:
        return 1.0 if METRICS[metric].better == "higher" else 0.0
    if is_missed(row, metric):
        return inf
    return abs(value) if METRICS[metric].better == "zero" else float(value)
