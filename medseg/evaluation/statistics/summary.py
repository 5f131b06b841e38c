"""From the rows of single cases to what ``metrics.json`` holds."""

from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from statistics import fmean, stdev
from typing import Any

import numpy as np

from medseg.evaluation.metrics.registry import Settings
from medseg.evaluation.statistics.bootstrap import interval_of_class_means, statistics
from medseg.evaluation.statistics.cases import Row, is_missed, never_predicted
from medseg.evaluation.statistics.means import mean_of_defined
from medseg.evaluation.statistics.strata import strata_of

Summary = dict[str, Any]

FORMAT = 2


def summarise(
    rows: Sequence[Row],
    names: Sequence[str],
    settings: Settings,
    *,
    subset: str,
    strata: Sequence[str] = (),
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Summary:
    """Return statistics over the cases for each class or region, and their means; undefined values are None.

    ``names`` are those of the classes or regions. The mean over classes is the mean of the class means, a class without
    a defined value left out. ``strata`` are columns of the data set's table, each of whose strata gets the same apart;
    ``over_strata`` has the mean and the standard deviation of the strata's means, each of which counts the same.
    ``problems`` are the cases that could not be scored, each with the reason, ``notes`` what is to be known of the
    cases. ``warnings`` are of the models; a class that was never predicted adds one.
    """
    by_column: dict[str, dict[str, Summary]] = {}
    over_strata: dict[str, dict[str, Any]] = {}
    for column in strata:  # cases without a value are under ""
        members = strata_of({row["case"]: str(row.get(column, "")) for row in rows})
        by_column[column] = {
            stratum: _of_rows([row for row in rows if row["case"] in cases], names, settings)
            for stratum, cases in ((each, set(ids)) for each, ids in members.items())
        }
        over_strata[column] = {}
        for metric in settings.names:
            values = (of["mean"][metric] for stratum, of in by_column[column].items() if stratum)
            means = [value for value in values if value is not None]
            over_strata[column][metric] = {
                "mean": fmean(means) if means else None,
                "std": stdev(means) if len(means) > 1 else None,
                "n": len(means),
            }
    return {
        "format": FORMAT,
        "subset": subset,
        "unit": "mm" if any("truth_ml" in row for row in rows) else "px",
        "settings": {**asdict(settings), "names": list(settings.names)},
        **_of_rows(rows, names, settings),
        "strata": by_column,
        "over_strata": over_strata,
        "problems": list(problems),
        "notes": list(notes),
        "warnings": [*warnings, *never_predicted(rows)],
    }


def _of_rows(rows: Sequence[Row], names: Sequence[str], settings: Settings) -> Summary:
    own: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows:
        own.get(row["class"], []).append(row)
    classes = {name: _of_class(its, settings) for name, its in own.items()}
    means = {metric: mean_of_defined(c[metric]["mean"] for c in classes.values()) for metric in settings.names}
    dice = [
        (np.array([row["dice"] for row in its], float), np.array([row["group"] for row in its])) for its in own.values()
    ]
    return {
        "n_cases": len({row["case"] for row in rows}),
        "classes": classes,
        "mean": {metric: None if isnan(mean) else mean for metric, mean in means.items()},
        "mean_ci95": interval_of_class_means(dice),
    }


def _of_class(rows: Sequence[Row], settings: Settings) -> dict[str, Any]:
    groups = np.array([row["group"] for row in rows])
    of_class: dict[str, Any] = {}
    for metric in settings.names:
        values = np.array([row[metric] for row in rows], float)
        of_class[metric] = statistics(values, groups, missed=sum(is_missed(row, metric) for row in rows))
    # cases without the class: how many there are, in how many it was predicted, and how much of it in all
    size = "ml" if all("predicted_ml" in row for row in rows) else "voxels"
    empty = [row for row in rows if row["truth_voxels"] == 0]
    of_class["empty_truth"] = {
        "n": len(empty),
        "false_positives": sum(row["predicted_voxels"] > 0 for row in empty),
        size: sum(row[f"predicted_{size}"] for row in empty),
    }
    return of_class
