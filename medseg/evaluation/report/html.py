"""``report.html``: an evaluation, and the training before it, on one page."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from medseg.evaluation.metrics.registry import METRICS
from medseg.evaluation.pages.page import folded, page, paragraph, section, table, terms
from medseg.evaluation.report import cases as report_cases
from medseg.evaluation.report import figures, run_info
from medseg.evaluation.report.tables import interval, number, statistics_table, tables_of, titled
from medseg.evaluation.statistics.cases import Row, scored_cases
from medseg.evaluation.statistics.summary import Summary

RULES = (
    "Both masks empty: nothing was to be found and nothing was. Every metric is undefined and left out of the means; "
    "the volume difference is 0.",
    "One mask empty: metrics of overlap are 0. Distances are undefined and counted as missed, or have the value of "
    "metrics.missed_mm where it is set.",
    "Sensitivities, and the volume difference in percent, are undefined where the ground truth is empty; precisions "
    "where the prediction is.",
    "The mean over classes is the mean of the class means; a class without a defined value is left out. Intervals are "
    "BCa bootstrap intervals of the mean over patients, given from 8 patients on.",
)
WANTED = {"higher": "higher is better", "lower": "lower is better", "zero": "best near 0"}


def html_report(summary: Summary, rows: Sequence[Row], folder: Path, runs: Mapping[str, Path]) -> str:
    """Return the page of an evaluation, which needs no other file and no network.

    Args:
        summary: the statistics over the cases (see ``summarise``).
        rows: of the cases (see ``case_rows``).
        folder: the report's, which ``overlays`` are in.
        runs: the run directories that the evaluation belongs to, by what was done: "training", "evaluation". What they
            do not hold is left out.
    """
    cases = scored_cases(rows)
    training = runs.get("training", folder)
    curves = training / "metrics.csv"
    sections = [
        section("Summary", *_problems(summary), *_tables(summary)),
        section("By class", *figures.distributions(cases, summary)),
        section("By size", *figures.volumes(cases, summary)),
        section("Pictures", *report_cases.pictures(cases, folder)),
        section("Cases", report_cases.case_table(cases, summary), report_cases.case_data(cases, summary)),
        section("Training", *(figures.learning_curves(curves, [*summary["classes"]]) if curves.is_file() else [])),
        section("Data", *run_info.training_data(training), *run_info.split(training)),
        section("Config", *run_info.configs(runs)),
        section("Environment", *run_info.environments(runs)),
        section("Definitions", *definitions(summary)),
    ]
    code = [report_cases.SCRIPT.read_text(encoding="utf-8")]
    lead = _lead(summary, runs)
    return page(_title(summary, runs), [part for part in sections if part.html], lead=lead, scripts=code)


def definitions(summary: Summary) -> list[str]:
    """Return what the metrics of a report mean, and the rules that hold for all."""
    settings, unit = summary["settings"], summary["unit"]
    meanings = {}
    for name in settings["names"]:
        metric = METRICS[name]
        source = f" {metric.source}." if metric.source else ""
        meanings[titled(name, unit)] = f"{metric.definition} {WANTED[metric.better].capitalize()}.{source}"
    rules = "".join(f"<li>{escape(rule)}</li>" for rule in RULES)
    used = {f"metrics.{key}": run_info.written(value) for key, value in settings.items() if key != "names"}
    return [terms(meanings), f"<h3>Rules</h3>\n<ul>{rules}</ul>", "<h3>Settings</h3>", terms(used)]


def _tables(summary: Summary) -> list[str]:
    tables = [table(each, is_sortable=len(each.rows) > 3) for each in tables_of(summary)]
    full = [table(statistics_table(summary, metric)) for metric in summary["settings"]["names"]]
    return [*tables, folded("All statistics of every metric", *full)]


def _problems(summary: Summary) -> list[str]:
    problems: Sequence[str] = summary["problems"]
    if not problems:
        return []
    items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return [f'<div class="bad"><strong>{len(problems)} case(s) could not be scored</strong><ul>{items}</ul></div>']


def _title(summary: Summary, runs: Mapping[str, Path]) -> str:
    """The data set, by its folder where it has one, and the part of it."""
    nodes = [run_info.node(run_info.read_config(run / "config.yaml"), "dataset") for run in runs.values()]
    named = [node for node in nodes if node.get("root")] or nodes
    names = [name for name in map(run_info.data_name, named) if name]
    return f"{names[-1] if names else 'Report'}: {summary['subset']} cases"


def _lead(summary: Summary, runs: Mapping[str, Path]) -> str:
    """The mean Dice and what it is of."""
    classes, cases = len(summary["classes"]), summary["n_cases"]
    over = f" over {classes} classes" if classes > 1 else ""
    between = f", 95 % interval {interval(summary['mean_ci95'], 'dice')}" if summary["mean_ci95"] else ""
    text = f"mean Dice{over}, {cases} case{'s' if cases != 1 else ''}{between}"
    told = [*_models(runs), f"evaluated {datetime.now():%Y-%m-%d %H:%M}"]
    key = f"<strong>{number(summary['mean']['dice'], 'dice')}</strong> {text}"
    return f'<p class="key">{key}</p>\n{paragraph(" · ".join(told), "quiet")}'


def _models(runs: Mapping[str, Path]) -> list[str]:
    configs: list[dict[str, Any]] = [run_info.read_config(run / "config.yaml") for run in runs.values()]
    targets = [run_info.node(config, "model").get("_target_") for config in configs]
    facts = [f"model {str(target).rpartition('.')[2]}" for target in targets if target]
    for key in ("checkpoint", "predictions"):
        facts += [f"{key} {run_info.written(config[key])}" for config in configs if config.get(key)]
    facts += [f"{name} in {run}" for name, run in runs.items() if name == "training"]
    return facts
