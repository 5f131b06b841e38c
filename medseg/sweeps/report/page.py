"""``sweep.html``: a sweep's jobs ranked, what of their settings mattered, and how each of them learned."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from medseg.config.check import is_number
from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.evaluation.pages.page import render
from medseg.evaluation.pages.plots import Coordinate, LinePlot, ParallelPlot, Point, Series, coordinate, linear, some
from medseg.evaluation.pages.text_table import NONE, TextTable, counted
from medseg.evaluation.report.run_info import node, read_part
from medseg.evaluation.report.tables import interval, number
from medseg.io.csv_files import read_csv
from medseg.jobs.rundir import OUTPUT
from medseg.sweeps.rankings import REPEATED, JobResult, Ranking, counts, settings_of
from medseg.sweeps.record import CROSS_VALIDATION, GIVEN_UP, announced, are_complete_folds
from medseg.sweeps.report.importance import GROUPS, importances
from medseg.sweeps.tables import OF_ENSEMBLE, STATE_HEADERS, reason_of, state_rows
from medseg.system.files import write_text

POINTS = 60
"""Points of a learning curve that are drawn."""
METRICS = ("dice", "loss")
"""What trainings validate by, with and without masks."""
SEARCH = "search.json"
"""What a search leaves in its sweep's folder; ``importances`` of it are those of its study, by key."""


def write_page(
    folder: Path, ranked: Sequence[Ranking], states: Sequence[Mapping[str, Any]], winners: Sequence[str]
) -> None:
    """Write ``sweep.html`` into a sweep's folder.

    ``states`` are those of the jobs that have no result, ``winners`` the lines that say which jobs are best.

    Raises:
        MedsegError: the folder cannot be written.
    """
    overrides = announced(folder)
    open_jobs = [{**state, "overrides": overrides[state["job"]], "score": None} for state in states]
    ended = [job for ranking in ranked for job in ranking.jobs]
    keys = swept_keys([*ended, *open_jobs])
    failed = [job for job in ended if job["status"] not in ("done", GIVEN_UP)]
    tally = Counter([*(job["status"] for job in ended), *(state["state"] for state in states)])
    has_one_order = len(ranked) == 1  # which the jobs that have not ended are likely to join
    page = render(
        "sweeps/report/sweep.html",
        title=f"Sweep {folder.resolve().name}",
        n_jobs=len(ended) + len(states),
        tally=", ".join(f"{count} {word}" for word, count in tally.items()),
        keys=keys,
        winners=winners,
        are_folds=are_complete_folds(folder, ended),
        results=results_of(folder, ranked),
        is_tested=any(job["test_score"] is not None for job in ended) or (folder / "test" / "metrics.json").is_file(),
        parts=[part_of(folder, ranking, keys, open_jobs if has_one_order else []) for ranking in ranked],
        other_curves=None if has_one_order else curves(folder, open_jobs, ()),
        states=TextTable("Jobs that have not ended", STATE_HEADERS, state_rows(states)),
        state_anchors=[f"job-{state['job']}" for state in states],
        logs=[log_of(folder, job) for job in failed],
        failed=TextTable(
            "Jobs that are not done",
            ("job", "overrides", "status", "reason"),
            [[str(job["job"]), job["name"], job["status"], reason_of(job)] for job in failed],
        ),
    )
    write_text(folder / "sweep.html", page)


def log_of(folder: Path, job: JobResult) -> str:
    """Return the address of a job's log, of what its process printed where it came to none, or of its folder."""
    names = (f"{job['job']}/{name}" for name in ("train.log", OUTPUT))
    return next((name for name in names if (folder / name).is_file()), f"{job['job']}/")


def swept_keys(jobs: Sequence[JobResult]) -> list[str]:
    """Return the keys in whose values jobs differ, those that only repeat a setting last."""
    settings = [settings_of(job["overrides"]) for job in jobs]
    keys = dict.fromkeys(key for own in settings for key in own)
    swept = [key for key in keys if len({own.get(key) for own in settings}) > 1]
    return sorted(swept, key=lambda key: key in REPEATED)


def values_of(job: JobResult, keys: Sequence[str]) -> list[str]:
    """Return the values of a job's keys as texts, a dash for one that it does not set."""
    own = settings_of(job["overrides"])
    return [own.get(key, NONE) for key in keys]


def part_of(folder: Path, ranking: Ranking, keys: Sequence[str], open_jobs: Sequence[JobResult]) -> dict[str, Any]:
    """Return what the page shows of a ranking: tables, plots, and the tests of the best jobs."""
    has_unlearned = any(job["unlearned"] for job in ranking.jobs)
    scored = sorted((job for job in ranking.jobs if counts(job)), key=lambda job: job["job"])
    best = [job["job"] for job in ranking.best]
    rows = []
    for job in ranking.jobs:
        scores = [NONE if job[name] is None else f"{job[name]:.4f}" for name in ("score", "test_score")]
        seconds = NONE if job["seconds"] is None else f"{job['seconds']:.0f}"
        missing = [", ".join(job["unlearned"])] * has_unlearned
        rows.append([str(job["job"]), *scores, *missing, *values_of(job, keys), job["status"], seconds])
    others = [key for key in keys if key not in REPEATED]
    has_settings = list(keys) != ["split.fold"]  # the folds of one cross-validation: nothing is chosen by their scores
    repeated = []
    for setting in ranking.settings:
        if len(scores_of := setting.scores) > 1:
            mean, low, high = fmean(scores_of), min(scores_of), max(scores_of)
            names = [str(job["job"]) for job in setting.jobs]
            numbers = [f"{score:.4f}" for score in (mean, low, high)]
            repeated.append([", ".join(names), *numbers, *values_of(setting.jobs[0], others)])
    return {
        "title": ranking.title,
        "table": TextTable(
            f"Ranked by {ranking.title}" if best and has_settings else ranking.title,
            ("job", "validation", "test", *["not learned"] * has_unlearned, *keys, "status", "seconds"),
            rows,
        ),
        "links": [f"#job-{job['job']}" for job in ranking.jobs],
        "anchors": [f"job-{job['job']}" for job in ranking.jobs],
        "repeated": TextTable(
            "Repeated settings" if has_settings else "Over the folds",
            ("jobs", "mean", "lowest", "highest", *others),
            repeated,
        ),
        "parallel": parallel(scored, keys, best) if keys and has_settings and len(scored) > 1 else None,
        "importance": importance_table(folder, [job for job in scored if job["status"] != GIVEN_UP], keys),
        "curves": curves(folder, [*ranking.jobs, *open_jobs], best),
    }


def name_of(job: JobResult) -> str:
    """Return how a job is called on the page: its number, what tells it apart, and its score."""
    score = "" if job["score"] is None else f", {job['score']:.4f}"
    return f"job {job['job']}: {job['name']}{score}"


@dataclass(frozen=True)
class Result:
    """What a report says in a line: of what, its mean Dice as text, over what, and the report's address in the sweep.

    Texts are empty where the report does not tell.
    """

    title: str
    score: str
    n_cases: str
    interval: str
    report: str

    @property
    def line(self) -> str:
        """The result in words."""
        over = f" over {self.n_cases}" if self.n_cases else ""
        return f"Dice {self.score}{over}" + (f", 95 % interval {self.interval}" if self.interval else "")


def results_of(folder: Path, ranked: Sequence[Ranking]) -> list[Result]:
    """Return the results of a cross-validation, pooled and of its ensemble's test, and the tests of the best jobs."""
    reports = {"all cases out of fold": Path(CROSS_VALIDATION), OF_ENSEMBLE: Path("test")}
    found = {title: result_of(folder, report, title) for title, report in reports.items()}
    best = [job for ranking in ranked for job in ranking.best if job["test_score"] is not None]
    tests = [result_of(folder, Path(str(job["job"]), "test"), f"test of job {job['job']}", job) for job in best]
    return [result for result in (*found.values(), *tests) if result]


def result_of(folder: Path, report: Path, title: str, job: JobResult | None = None) -> Result | None:
    """Return what the report in a sweep's folder says; of a ``job``, whose score is known, also where it is gone."""
    summary = read_part(folder / report / "metrics.json")
    score = job["test_score"] if job else node(summary, "mean").get("dice")
    if not is_number(score):
        return None
    ci95, n_cases = summary.get("mean_ci95"), summary.get("n_cases")
    page = report / "report.html"
    return Result(
        title,
        number(score, "dice"),
        counted(n_cases, "case") if isinstance(n_cases, int) else "",
        interval(ci95, "dice") if isinstance(ci95, list) and all(map(is_number, ci95)) else "",
        page.as_posix() if (folder / page).is_file() else "",
    )


def parallel(jobs: Sequence[JobResult], keys: Sequence[str], best: Sequence[int]) -> ParallelPlot:
    """Return parallel coordinates of jobs with scores: a line each across the swept keys and the score."""
    columns = zip(*(values_of(job, keys) for job in jobs), strict=True)
    axes = [coordinate(key, its, is_choice=key in REPEATED) for key, its in zip(keys, columns, strict=True)]
    scores = [job["score"] for job in jobs]
    axis = linear("validation score", scores)
    ticks = [(axis.percent(tick), f"{tick:g}") for tick in axis.ticks]
    axes.append(Coordinate(axis.title, ticks, [axis.percent(score) for score in scores]))
    return ParallelPlot(
        caption="Parallel coordinates",
        note="a line a job, the better the stronger, the best in colour",
        title="Settings and scores of the jobs",
        description=f"best: {'; '.join(name_of(job) for job in jobs if job['job'] in best)}; the lowest score is "
        f"{min(scores):.4f}; the table has all of them",
        coordinates=axes,
        names=[name_of(job) for job in jobs],
        links=[f"#job-{job['job']}" for job in jobs],
        weights=[1.0 if job["job"] in best else (sorted(scores).index(job["score"]) / len(jobs)) ** 2 for job in jobs],
    )


def importance_table(folder: Path, jobs: Sequence[JobResult], keys: Sequence[str]) -> TextTable:
    """Return the importance of the swept keys: by a search's study where there is one, else by the jobs' variance."""
    study = node(read_part(folder / SEARCH), "importances")
    shares = {key: share for key, share in study.items() if is_number(share)}
    if shares:
        rows = [[key, f"{100 * share:.0f} %"] for key, share in sorted(shares.items(), key=lambda item: -item[1])]
        return TextTable("Importance", ("key", "share"), rows, ["of the search's study, over all its trials"])
    columns = {key: [values_of(job, [key])[0] for job in jobs] for key in keys}
    rows = []
    for one in importances(columns, [job["score"] for job in jobs]) if len(jobs) > 1 else []:
        share = NONE if one.share is None else f"{100 * one.share:.0f} %"
        rows.append([one.key, share, NONE if one.p is None else f"{one.p:.2g}", str(one.n_groups)])
    notes = [
        f"share: of the variance of {counted(len(jobs), 'score')} what the values of a key explain, each key by "
        "itself, less what chance would (ε², Kelley 1935). p: the part of shuffled orders of the scores in which they "
        f"explain as much. A group is of one value; numbers that hardly repeat are put into {GROUPS} groups."
    ]
    return TextTable("Importance", ("key", "share", "p", "groups"), rows, notes)


def curves(folder: Path, jobs: Sequence[JobResult], best: Sequence[int]) -> LinePlot | None:
    """Return the validation score by epoch of the jobs that have written any, the best in front."""
    series, metric = [], "dice"
    for job in jobs:
        points: list[Point] = []
        with suppress(OSError, ValueError, csv.Error):  # it has none, or is writing it
            rows = read_csv(folder / str(job["job"]) / "metrics.csv")
            metric = next((name for name in METRICS if rows and ScoreNames(name).mean.column in rows[0]), metric)
            column = ScoreNames(metric).mean.column
            points = [Point(float(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
            points = some([point for point in points if isfinite(point.x) and isfinite(point.y)], POINTS)
        if points:
            series.append(Series(name_of(job), points, job["job"] not in best, f"#job-{job['job']}"))
    if not series:
        return None
    every = [point for one in series for point in one.points]
    return LinePlot(
        caption=f"Validation {'Dice' if metric == 'dice' else metric} by epoch",
        title="Learning curves of the jobs",
        description="; ".join(f"{one.name} ends at {one.points[-1].y:.4g}" for one in series if not one.is_minor),
        x=linear("epoch", [point.x for point in every]),
        y=linear("", [point.y for point in every], *((0, 1) if metric == "dice" else ())),
        series=series,
        others="other jobs",
    )
