"""``comparison.html``: runs side by side, in one file that needs no other and no network."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from medseg.evaluation.comparison.ranking import patient_scores
from medseg.evaluation.comparison.tables import RULES, Result, all_tables, by_class, by_pair, ranking_table
from medseg.evaluation.metrics.registry import METRICS
from medseg.evaluation.pages.page import Section, folded, page, paragraph, section, table, terms
from medseg.evaluation.pages.plots import Point, Strip, figure, linear, some, strips

POINTS = 500
"""Patients that are drawn at most."""


def comparison_page(result: Result, reports: Sequence[Path]) -> str:
    """Return the page; ``reports`` are the folders of the runs' reports."""
    metrics = {METRICS[name].title: METRICS[name].definition for name in result.paired.values}
    runs = {name: str(path) for name, path in zip(result.paired.runs, reports, strict=True)}
    sections = [
        section("Ranking", table(ranking_table(result)), *_plots(result)),
        _comparisons(result),
        section("Rules", *map(paragraph, RULES)),
        section("Metrics", terms(metrics)),
        section("Runs", terms(runs)),
    ]
    return page("Comparison of runs", sections, lead=paragraph(", ".join(result.paired.runs)))


def _comparisons(result: Result) -> Section:
    """Dice to begin with, every other table folded."""
    is_two = len(result.paired.runs) == 2
    main = by_class(result, "dice") if is_two else by_pair(result, "dice", result.overall)
    others = [other for other in list(all_tables(result))[1:] if other != main]
    shown = (folded(other.title, table(other, is_sortable=not is_two, is_filterable=not is_two)) for other in others)
    return section("Comparisons", table(main, is_sortable=not is_two), *shown)


def _plots(result: Result) -> Iterator[str]:
    """The patients' values of each run, and of two runs their differences."""
    metric = result.ranking.metric
    title, scores = METRICS[metric].title, patient_scores(result.paired, metric)
    values = dict(zip(result.paired.runs, scores.tolist(), strict=True))
    drawn = [_strip(one.run, values[one.run]) for one in result.ranking.runs]
    axis = linear(f"{title}, a point a patient", scores.ravel().tolist(), 0, 1)
    said = f"A strip for each run, the best first, with the {title} of every patient, quartiles and median."
    yield figure(f"{title} of the patients", strips(drawn, axis, f"{title} of the patients", said))
    if len(scores) == 2:
        differences = (scores[0] - scores[1]).tolist()
        axis = linear(f"difference of {title}, a point a patient", [*differences, 0.0])
        caption = f"Differences: {result.paired.runs[0]} − {result.paired.runs[1]}"
        said = "The difference of both runs for every patient; right of zero the first is better."
        yield figure(caption, strips([_strip("difference", differences)], axis, caption, said))


def _strip(name: str, values: Sequence[float]) -> Strip:
    n = len(values)
    return Strip(name, f"{n} patient{'' if n == 1 else 's'}", values, some([Point(value) for value in values], POINTS))
