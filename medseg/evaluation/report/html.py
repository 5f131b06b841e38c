"""``report.html``: an evaluation, and the training before it, on one page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from medseg.evaluation.images.views import View
from medseg.evaluation.metrics.registry import METRICS, worded
from medseg.evaluation.pages.page import render
from medseg.evaluation.pages.text_table import TextTable, counted
from medseg.evaluation.report import cases as report_cases
from medseg.evaluation.report import figures, run_info
from medseg.evaluation.report.tables import interval, number, statistics_table, tables_of, titled
from medseg.evaluation.statistics.cases import Row, scored_cases
from medseg.evaluation.statistics.summary import Summary

RULES = (
    "Both masks empty: there is nothing to find, and nothing was predicted. Every metric is undefined and left out of "
    "the means; the volume difference is 0.",
    "One mask empty: metrics of overlap are 0. Distances are undefined and counted as missed, or have the value of "
    "metrics.missed_mm where it is set.",
    "Sensitivities, and the volume difference in percent, are undefined where the ground truth is empty; precisions "
    "where the prediction is.",
    "The mean over classes is the mean of the class means; a class without a defined value is left out. Intervals are "
    "BCa bootstrap intervals of the mean over patients, given from 8 patients on.",
)
DIRECTIONS = {"higher": "Higher is better.", "lower": "Lower is better.", "zero": "Best near 0."}


def html_report(
    summary: Summary, rows: Sequence[Row], folder: Path, runs: Mapping[str, Path], views: Sequence[View] = ()
) -> str:
    """Return the page of an evaluation, which needs no other file and no network.

    Args:
        summary: the statistics over the cases (see ``summarise``).
        rows: of the cases (see ``case_rows``).
        folder: the report's, which ``overlays`` are in.
        runs: the run directories that the evaluation belongs to, by what was done: "training", "evaluation". What they
            do not hold is left out.
        views: the cases whose slices can be gone through.
    """
    cases, training, configs = scored_cases(rows), runs.get("training", folder), run_info.read_configs(runs)
    metrics, unit, classes = summary["settings"]["names"], summary["unit"], list(summary["classes"])
    curves, case_table = training / "metrics.csv", report_cases.case_table(cases, summary)
    examples, n_more_examples = report_cases.examples(cases, folder)
    seed, split = run_info.split_of(training)
    others = [figures.distribution(cases, summary, name, figures.POINTS // 3)[:1] for name in metrics[1:]]
    return render(
        "evaluation/report/report.html",
        title=_title(summary, configs),
        mean_dice=number(summary["mean"]["dice"], "dice"),
        over=f" over {len(classes)} classes" if len(classes) > 1 else "",
        n_cases=counted(summary["n_cases"], "case"),
        interval=interval(summary["mean_ci95"], "dice") if summary["mean_ci95"] else "",
        answers=report_cases.answers(cases, summary),
        facts=[*_models(configs, runs), f"evaluated {datetime.now():%Y-%m-%d %H:%M}"],
        problems=summary["problems"],
        warnings=summary.get("warnings", []),
        tables=tables_of(summary),
        statistics=[statistics_table(summary, name) for name in metrics],
        dice=figures.distribution(cases, summary, metrics[0]),
        other_metrics=[plot for plots in others for plot in plots],
        n_shown_classes=figures.CLASSES,
        n_classes=len(classes),
        volumes=figures.volumes(cases, summary),
        n_panels=figures.PANELS,
        views=report_cases.view_data(views, cases) if views else [],
        examples=examples,
        n_more_examples=n_more_examples,
        case_table=case_table,
        case_links=[f"#case-{index}" for index in range(len(cases))],
        case_data=report_cases.case_data(cases, summary),
        curves=figures.learning_curves(curves, classes) if curves.is_file() else [],
        fingerprint=run_info.fingerprint_table(training),
        plan=run_info.plan_terms(training),
        split=split,
        split_table=TextTable(
            f"Split, seed {seed}", ["subset", "cases"], [[name, str(len(own))] for name, own in split.items()]
        ),
        configs=run_info.config_texts(runs),
        environments=run_info.environments(runs),
        metrics={
            titled(name, unit): replace(METRICS[name], definition=worded(METRICS[name].definition, unit))
            for name in metrics
        },
        directions=DIRECTIONS,
        rules=[worded(rule, unit) for rule in RULES],
        settings={
            f"metrics.{key}": run_info.written(value) for key, value in summary["settings"].items() if key != "names"
        },
    )


def _title(summary: Summary, configs: Sequence[dict[str, Any]]) -> str:
    """The data set, by its folder where it has one, and the subset of it."""
    nodes = [run_info.node(config, "dataset") for config in configs]
    named = [node for node in nodes if node.get("root")] or nodes
    names = [name for name in map(run_info.data_name, named) if name]
    return f"{names[-1] if names else 'Report'}: {summary['subset']} cases"


def _models(configs: Sequence[dict[str, Any]], runs: Mapping[str, Path]) -> list[str]:
    """What was evaluated, and where it was trained."""
    targets = [run_info.node(config, "model").get("_target_") for config in configs]
    facts = [f"model {str(target).rpartition('.')[2]}" for target in targets if target]
    for key in ("checkpoint", "predictions"):
        facts += [f"{key} {run_info.written(config[key])}" for config in configs if config.get(key)]
    return facts + ([f"training in {runs['training']}"] if "training" in runs else [])
