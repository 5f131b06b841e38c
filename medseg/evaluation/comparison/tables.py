"""A comparison of runs as tables of text and in words: every number that is shown is written here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medseg.evaluation.comparison.pairing import Paired
from medseg.evaluation.comparison.ranking import RESAMPLES, Ranking
from medseg.evaluation.comparison.tests import LEVEL, MIN_PATIENTS, NOT_SHOWN, Comparison, smallest_p
from medseg.evaluation.metrics.registry import METRICS
from medseg.evaluation.pages.text_table import NONE, TextTable, counted
from medseg.evaluation.report.tables import interval, number, titled
from medseg.evaluation.statistics.bootstrap import MIN_GROUPS

HEADERS = ("first", "second", "first − second", "interval", "p", "verdict on first")
PAIRS = 10
"""Rows of pairs that a terminal shows at most."""
RULES = (
    "A patient counts once, with the mean over the patient's cases: means here are over patients, those of a report "
    "over cases.",
    "A case in which ground truth and prediction are both empty counts as perfect: 1 for shares, 0 for differences and "
    "distances.",
    "A distance that was missed, since one mask is empty, is the worst in the test, and left out of means, difference "
    "and interval; its number stands in brackets.",
    "p: Wilcoxon's signed-rank test of the patients' differences, zeros by Pratt, adjusted by Holm for all comparisons "
    "of this page.",
)


@dataclass(frozen=True)
class Result:
    """The result of a comparison of runs; ``conclusions`` are sentences about what follows from it."""

    paired: Paired
    comparisons: Sequence[Comparison]
    ranking: Ranking
    unit: str
    conclusions: Sequence[str] = ()

    def of(self, metric: str, name: str | None) -> list[Comparison]:
        """The comparisons by a metric of a class, or of the mean over classes."""
        return [one for one in self.comparisons if (one.metric, one.name) == (metric, name)]

    @property
    def overall(self) -> str | None:
        """What stands for all classes: their mean (None), or the only one."""
        return self.paired.classes[0] if len(self.paired.classes) == 1 else None


def short_tables(result: Result) -> Iterator[TextTable]:
    """The tables for a terminal: the ranking, and of two runs Dice in full and other metrics' means over classes."""
    yield ranking_table(result)
    others = [metric for metric in result.paired.values if metric != "dice"]
    if len(result.paired.runs) == 2:
        yield by_class(result, "dice")
        if others:
            rows = [
                _row(one, titled_absolute(one.metric, result.unit))
                for metric in others
                for one in result.of(metric, result.overall)
            ]
            yield _table(f"other metrics{_over(result.overall)}", "metric", rows, result.paired.runs)
    elif len(result.of("dice", result.overall)) <= PAIRS:
        yield by_pair(result, "dice", result.overall)


def all_tables(result: Result) -> Iterator[TextTable]:
    """Every comparison: of two runs a table a metric, of more a table a metric and class."""
    yield ranking_table(result)
    for metric in result.paired.values:
        if len(result.paired.runs) == 2:
            yield by_class(result, metric)
        else:
            yield from (by_pair(result, metric, name) for name in _names(result))


def ranking_table(result: Result) -> TextTable:
    """The runs from the best mean Dice to the worst, and how stable that is."""
    ranking = result.ranking
    headers = ("run", "rank", "mean", "interval", "mean rank", "ranks", "first in", "tie")
    rows = []
    for one in ranking.runs:
        stable = [NONE] * 3
        if one.stability is not None:
            low, high = one.stability.interval
            stable = [f"{one.stability.mean_rank:.1f}", f"{low:.0f}–{high:.0f}", f"{one.stability.first:.0%}"]
        mean = [number(one.mean, ranking.metric), interval(one.interval, ranking.metric)]
        rows.append([one.run, str(one.rank), *mean, *stable, one.letters])
    cases, patients = counted(len(result.paired.cases), "case"), counted(ranking.n_patients, "patient")
    title = f"ranking by {METRICS[ranking.metric].title}{_over(result.overall)}: {cases}, {patients}"
    return TextTable(title, headers, rows, list(sentences(result)))


def by_class(result: Result, metric: str) -> TextTable:
    """Two runs compared by a metric, a row a class and the mean over classes."""
    rows = [_row(one, name or "mean") for name in _names(result) for one in result.of(metric, name)]
    return _table(titled_absolute(metric, result.unit), "class", rows, result.paired.runs)


def by_pair(result: Result, metric: str, name: str | None) -> TextTable:
    """Every two runs compared by a metric of one class."""
    rows = [_row(one, f"{one.a} : {one.b}") for one in result.of(metric, name)]
    return _table(f"{titled_absolute(metric, result.unit)}{_over(name)}", "first : second", rows)


def sentences(result: Result) -> Iterator[str]:
    """What the ranking means, in words."""
    ranking, n_patients = result.ranking, result.ranking.n_patients
    n_tested = sum(one.p is not None for one in result.comparisons)
    yield from result.conclusions
    if n_patients >= MIN_GROUPS:
        yield (
            f"Intervals hold 95 %. Mean rank, ranks and the share in which a run is first are of {RESAMPLES} bootstrap "
            "samples of the patients."
        )
    for tie in ranking.ties:
        yield f"No difference is shown between {', '.join(tie[:-1])} and {tie[-1]}: their order may be chance."
    if len(ranking.runs) > 2 and ranking.tau is not None and ranking.tau_interval is not None:
        low, high = ranking.tau_interval
        yield (
            f"The rankings of the samples agree with this one by Kendall's τ = {ranking.tau:.2f} on average (95 % of "
            f"them {low:.2f} to {high:.2f})."
        )
    if n_tested > 1:
        is_several = len(result.paired.values) > 1
        fewer = "; fewer comparisons, as by metrics.names=dice, show smaller differences" if is_several else ""
        yield f"p-values are adjusted for all {n_tested} comparisons{fewer}."
    if n_patients < MIN_PATIENTS:
        yield f"Below {MIN_PATIENTS} patients no test is made: none could show a difference."
    elif (lowest := smallest_p(n_patients, n_tested)) >= LEVEL:
        yield (
            f"With {n_patients} patients and {n_tested} comparisons no p-value can be below {lowest:.2g}, so none can "
            "show a difference."
        )
    if n_patients < MIN_GROUPS:
        yield f"Below {MIN_GROUPS} patients there are no intervals, and the stability of the ranking is not known."
    yield from (f"{note}." for note in result.paired.notes)


def in_words(one: Comparison) -> str:
    """Return in a line by how much, and how surely, the first of two runs is higher in a metric that is a share."""
    if one.difference is None:
        return f"no {METRICS[one.metric].title} in both"
    bounds = "no interval" if one.interval is None else "95 % interval {:+.4f} to {:+.4f}".format(*one.interval)
    p = "no test" if one.p_holm is None else "p < 0.001" if one.p_holm < 0.001 else f"p = {one.p_holm:.3f}"
    patients, shown = counted(one.n_patients, "patient"), "" if one.is_shown else "; may be chance"
    return f"{METRICS[one.metric].title} {one.difference:+.4f} ({bounds}, {p}, {patients}{shown})"


def titled_absolute(metric: str, unit: str) -> str:
    """Return a metric's title with its unit; differences from zero are compared without their sign."""
    return titled(metric, unit) + (", absolute" if METRICS[metric].better == "zero" else "")


def signed(value: float | None, metric: str) -> str:
    """Write a difference with its sign."""
    return number(value, metric) if value is None else ("+" if value > 0 else "") + number(value, metric)


def _table(title: str, first: str, rows: Sequence[Sequence[str]], runs: Sequence[str] = ()) -> TextTable:
    named = f"first: {runs[0]}; second: {runs[1]}; " if runs else ""
    notes = [f"{named}interval: 95 % of first − second; p: adjusted by Holm"]
    if any(cell.endswith(")") for row in rows for cell in row[1:3]):
        notes.append("(n): n distances were missed; they rank as worst and are in no mean")
    if any(row[-1] == NOT_SHOWN for row in rows):
        notes.append("not shown: no difference is shown, which does not mean that there is none")
    return TextTable(title, (first, *HEADERS), rows, notes)


def _row(one: Comparison, label: str) -> list[str]:
    means = [
        number(mean, one.metric) + (f" ({missed})" if missed else "")
        for mean, missed in zip(one.means or (None, None), one.missed, strict=True)
    ]
    bounds = "…".join(signed(bound, one.metric) for bound in one.interval) if one.interval else NONE
    p = NONE if one.p_holm is None else "<0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}"
    return [label, *means, signed(one.difference, one.metric), bounds, p, one.verdict]


def _names(result: Result) -> list[str | None]:
    return [*result.paired.classes, *([None] if result.overall is None else [])]


def _over(name: str | None) -> str:
    return ", mean over classes" if name is None else f" of {name}"
