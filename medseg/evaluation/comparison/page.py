"""``comparison.html``: runs side by side, in one file that needs no other and no network."""

from collections.abc import Sequence
from pathlib import Path

from medseg.evaluation.comparison.ranking import patient_scores
from medseg.evaluation.comparison.tables import RULES, Result, all_tables, by_class, by_pair, ranking_table
from medseg.evaluation.metrics.registry import METRICS, worded
from medseg.evaluation.pages.page import render
from medseg.evaluation.pages.plots import Point, Strip, StripPlot, linear, some
from medseg.evaluation.pages.text_table import counted

POINTS = 500
"""Patients that are drawn at most."""


def comparison_page(result: Result, reports: Sequence[Path]) -> str:
    """Return the page; ``reports`` are the folders of the runs' reports."""
    is_two, unit = len(result.paired.runs) == 2, result.unit
    main = by_class(result, "dice") if is_two else by_pair(result, "dice", result.overall)
    return render(
        "evaluation/comparison/comparison.html",
        title="Comparison of runs",
        ranking=ranking_table(result),
        plots=_plots(result),
        main=main,
        others=[other for other in list(all_tables(result))[1:] if other != main],
        is_two=is_two,
        rules=RULES,
        metrics={
            worded(METRICS[name].title, unit): worded(METRICS[name].definition, unit) for name in result.paired.values
        },
        runs=dict(zip(result.paired.runs, reports, strict=True)),
    )


def _plots(result: Result) -> list[StripPlot]:
    """The patients' values of each run, the best first, and of two runs their differences."""
    metric = result.ranking.metric
    title, scores = METRICS[metric].title, patient_scores(result.paired, metric)  # (R, P)
    patients = counted(scores.shape[1], "patient")

    def strip(name: str, values: list[float]) -> Strip:
        return Strip(name, patients, values, some([Point(value) for value in values], POINTS))

    values = dict(zip(result.paired.runs, scores.tolist(), strict=True))
    plot = StripPlot(
        caption=f"{title} of the patients",
        title=f"{title} of the patients",
        description=f"A strip for each run, the best first, with the {title} of every patient, quartiles and median.",
        x=linear(f"{title}, a point a patient", scores.ravel().tolist(), 0, 1),
        strips=[strip(one.run, values[one.run]) for one in result.ranking.runs],
    )
    if len(scores) > 2:
        return [plot]
    differences, caption = (scores[0] - scores[1]).tolist(), " − ".join(result.paired.runs)
    paired = StripPlot(
        caption=f"Differences: {caption}",
        title=f"Differences: {caption}",
        description="The difference of both runs for every patient; right of zero the first is better.",
        x=linear(f"difference of {title}, a point a patient", [*differences, 0.0]),
        strips=[strip("difference", differences)],
    )
    return [plot, paired]
