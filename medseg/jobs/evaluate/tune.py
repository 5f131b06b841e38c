"""``medseg eval tune=postprocess``: post-processing and thresholds of regions, chosen on validation cases."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

from medseg.errors import MedsegError, listing
from medseg.evaluation.pages.text_table import TextTable, print_tables
from medseg.evaluation.statistics.means import means_of_defined
from medseg.evaluation.tuning import MIN_CASES, Candidate, Scores, Selection, compare, select
from medseg.inference.checkpoint import read_checkpoint, rewrite
from medseg.inference.predictor import Predictor
from medseg.io.case import Case
from medseg.io.labels import LabelMap
from medseg.jobs.evaluate.trials import Prediction, Trials
from medseg.system.files import write_json
from medseg.system.terminal import Terminal

log = logging.getLogger(__name__)

Content = dict[str, Any]

MAX_ROWS = 40
PREDICTIONS = ".predictions-"


def tune(
    predictor: Predictor, cases: Sequence[Case], reference_map: LabelMap, run_dir: Path, *, checkpoint: Path
) -> dict[str, Any]:
    """Predict cases once, choose options on them, write ``tuning.json``, and save what improves Dice in the checkpoint.

    Earlier choices are ignored: it starts with the options that the model was trained with.

    Returns:
        Status, reason and score: the mean Dice with the options chosen, both empty counted as 1.

    Raises:
        MedsegError: the checkpoint is none of medseg's, or cannot be written.
    """
    config = untuned(read_checkpoint(checkpoint).content)["config"]
    trials = Trials(reference_map, config["inference"], config["postprocess"])
    if len(cases) < MIN_CASES:
        return too_few(len(cases), run_dir)
    for abandoned in run_dir.glob(f"{PREDICTIONS}*"):  # by an evaluation in this directory that was killed
        rmtree(abandoned, ignore_errors=True)  # of a link or a file nothing is removed
    with TemporaryDirectory(dir=run_dir, prefix=PREDICTIONS) as folder:
        predictions, problems = predict_all(trials, predictor, cases, Path(folder))
        if len(predictions) < MIN_CASES:
            return too_few(len(predictions), run_dir, problems)
        space = trials.space(has_volume=all(case.has_volume for case in predictions))
        selection = select(partial(trials.scores, predictions), space, trials.start)
    report = report_of(selection, space.names)
    write_json(run_dir / "tuning.json", report)
    print_tables([table(report)], Terminal())
    if report["changed"]:
        rewrite(checkpoint, partial(tuned, options=trials.options(selection.choice), record=report))
        log.info("mean Dice %.4f → %.4f: saved in %s", *report["mean_dice"].values(), checkpoint)
    else:
        log.info("no tested post-processing improved the mean validation Dice; %s unchanged", checkpoint)
    return ended(problems) | {"score": report["mean_dice"]["after"]}


def predict_all(
    trials: Trials, predictor: Predictor, cases: Sequence[Case], folder: Path
) -> tuple[list[Prediction], list[str]]:
    """Predict every case once, whatever becomes of the others.

    Returns:
        The predictions of cases with something to compare, and a line for each case that failed.
    """
    predictions, problems = [], []
    for number, case in enumerate(cases, 1):
        try:
            predictions.append(trials.keep(predictor, case, folder / f"{number}.npz"))
        except MedsegError as error:
            problems.append(f"{case.id}: {error}")
        log.info("%d/%d %s", number, len(cases), case.id)
    if problems:
        log.error("%d case(s) could not be predicted:\n%s", len(problems), listing(problems))
    return [case for case in predictions if case.known.any()], problems


def too_few(number: int, run_dir: Path, problems: Sequence[str] = ()) -> dict[str, Any]:
    """Return the result, and write the report, of a tuning for which there are too few cases."""
    reason = f"{number} cases to choose on, {MIN_CASES} are needed: nothing is changed"
    log.warning(reason)
    write_json(run_dir / "tuning.json", {"n_cases": number, "needed": MIN_CASES, "changed": False, "candidates": []})
    return {"reason": reason} | ended(problems)


def ended(problems: Sequence[str]) -> dict[str, Any]:
    """Return the status of the job."""
    if not problems:
        return {"status": "done"}
    return {"status": "some_failed", "reason": f"{len(problems)} case(s) failed"}


def tuned(content: Content, *, options: dict[str, Any], record: dict[str, Any]) -> Content:
    """Return a checkpoint's description with other options, which ``untuned`` undoes."""
    content = untuned(content)
    before = {node: content["config"][node] for node in options}
    how = {key: record[key] for key in ("n_cases", "gain", "standard_error", "mean_dice")}
    return {**content, "config": {**content["config"], **options}, "tuned": {**how, "before": before}}


def untuned(content: Content) -> Content:
    """Return a checkpoint's description as it was before any tuning."""
    if "tuned" not in content:
        return content
    rest = {key: value for key, value in content.items() if key != "tuned"}
    return {**rest, "config": {**content["config"], **content["tuned"]["before"]}}


def undo(checkpoint: Path) -> dict[str, Any]:
    """Undo the choice of post-processing in a checkpoint.

    Raises:
        MedsegError: nothing was, or the checkpoint cannot be read or written.
    """
    if "tuned" not in read_checkpoint(checkpoint).content:
        raise MedsegError(f"tune=undo: no post-processing was chosen for {checkpoint}, so there is nothing to undo.")
    rewrite(checkpoint, untuned)
    log.info("restored the post-processing of the training in %s", checkpoint)
    return {"status": "done", "reason": "", "score": None, "seconds": 0.0}


def report_of(selection: Selection, names: Sequence[str]) -> dict[str, Any]:
    """Return what ``tuning.json`` holds: the scores before and after, the choice, and all that was tried."""
    total = compare(selection.before, selection.after)
    return {
        "n_cases": len(selection.before),
        "needed": MIN_CASES,
        "changed": any(candidate.kept for candidate in selection.candidates),
        "gain": total.gain,
        "standard_error": total.standard_error,
        "mean_dice": {"before": mean_dice(selection.before), "after": mean_dice(selection.after)},
        "gains": dict(zip(names, total.class_gains, strict=True)),
        "choice": selection.choice,
        "candidates": [
            {
                "step": candidate.step,
                "class": candidate.name,
                "option": candidate.option,
                "value": candidate.value,
                "gain": candidate.comparison.gain,
                "standard_error": candidate.comparison.standard_error,
                "decision": decision(candidate, names),
            }
            for candidate in selection.candidates
        ],
    }


def mean_dice(scores: Scores) -> float:
    """Return the mean over cases of the mean over classes, of scores (N, R)."""
    return float(means_of_defined(scores, axis=1).mean())


def decision(candidate: Candidate, names: Sequence[str]) -> str:
    """Return in a few words whether a candidate was kept, or why not."""
    comparison = candidate.comparison
    if candidate.kept:
        return "kept"
    if comparison.is_worth_it:
        return "another was better"
    if comparison.losers:
        return f"{', '.join(names[index] for index in comparison.losers)} would lose"
    return "within one standard error" if comparison.gain > 0 else "no gain"


def table(report: dict[str, Any]) -> TextTable:
    """Return the candidates as a table: of each option the best value for each class, kept ones first."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    ranked = sorted(report["candidates"], key=lambda row: (row["decision"] != "kept", -row["gain"]))
    for row in ranked:
        best.setdefault((row["step"], row["class"], row["option"]), row)
    rows = list(best.values())
    cells = [
        [
            f"{row['class']}: {row['option']}={str(row['value']).lower()}",
            str(row["step"]),
            f"{row['gain']:+.4f}",
            f"{row['standard_error']:.4f}",
            row["decision"],
        ]
        for row in rows[:MAX_ROWS]
    ]
    headers = ("class: option", "step", "gain", "std. error", "decision made")
    notes = [f"{len(rows) - MAX_ROWS} more rows are in tuning.json"] if len(rows) > MAX_ROWS else []
    return TextTable(f"options tried on {report['n_cases']} cases: gain in mean Dice", headers, cells, notes)
