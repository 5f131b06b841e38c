"""``medseg eval``: the report of models, or of masks made elsewhere, on a data set or a part of it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.config.check import read_settings, resolve
from medseg.config.instantiate import own_targets
from medseg.config.schema import typed
from medseg.config.settings import DatasetSettings, EvalSettings
from medseg.errors import MedsegError
from medseg.evaluation.metrics.registry import settings_of
from medseg.inference.checkpoint import locate_to_write
from medseg.io.case import Case
from medseg.io.datasets.dataset import label_map, open_dataset
from medseg.io.labels import LabelMap
from medseg.jobs.evaluate.candidates import (
    Candidate,
    classes_of,
    from_folder,
    from_folds,
    from_predictor,
    load_predictors,
    name_of,
    with_own_names,
)
from medseg.jobs.evaluate.compare import compare_reports
from medseg.jobs.evaluate.scoring import ReportOptions, evaluate_cases, log_output_paths
from medseg.jobs.evaluate.seen import SPOILING, Seen, is_cross_validation, out_of_fold, without_seen
from medseg.jobs.evaluate.tune import tune, undo
from medseg.jobs.rundir import logged_to, recorded, run_directory, write_config, write_environment
from medseg.jobs.training_run import checkpoint_files, run_of, saved_dataset, select, training_run

log = logging.getLogger(__name__)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Evaluate, or tune, as the composed config says; return status, scores and seconds.

    ``score``, by which may be chosen, is the mean Dice of validation cases, ``test_score`` that of any others.

    Raises:
        MedsegError: no such checkpoint, masks or data, or no case could be read.
    """
    settings = read_settings(EvalSettings, config)
    check_request(settings)
    tuning = settings.tune
    if tuning == "undo":
        return undo(settings.checkpoint[0])
    trained_in, models = training_run(settings.checkpoint), checkpoint_files(settings.checkpoint)
    is_own = "layout" not in settings.dataset  # the data set of the training run
    subset, split_file = settings.subset, settings.split["file"]
    if tuning and is_own and subset not in (None, "val"):
        raise MedsegError(
            f"tune={tuning} subset={subset}: options are chosen on the validation cases; leave subset out."
        )
    subset = subset or (("val" if tuning else "test") if is_own else "all")
    is_one = settings.ensemble or len(settings.checkpoint) == 1
    has_folds = is_own and subset == "val" and is_one and not split_file and is_cross_validation(models)
    predictors = load_predictors(
        settings, models if has_folds else settings.checkpoint, together=is_one and not has_folds
    )
    own = own_targets(config)
    node = saved_dataset(settings.dataset, trained_in, settings.trust) if is_own else settings.dataset
    data = typed(DatasetSettings, node)
    dataset = open_dataset(data, [*settings.trust, *own], may_write=not is_own)
    reference_map = classes_of(dataset, predictors[0][1].label_map) if predictors else label_map(dataset)
    spoiling, notes, strata = SPOILING[subset], list[str](), list(settings.metrics.strata)
    seen = Seen.by(models, spoiling)
    if has_folds:
        folds = out_of_fold(dataset, models, seen)
        cases, notes, strata = list(folds.cases), list(folds.notes), [*strata, *folds.strata]
        candidates = [from_folds(predictors, folds.number_of)]
    else:
        split_file = split_file or (trained_in / "splits.json" if is_own and trained_in else None)
        cases = select(dataset, subset, split_file, settings.split["fold"], models)
        if is_own and subset in ("test", "val") and len(models) > 1:
            cases, notes = without_seen(cases, subset, models, seen)
        candidates = [
            from_predictor(name_of(paths), predictor, files, Seen.by(files, spoiling))
            for paths, predictor in predictors
            for files in [checkpoint_files(paths)]
        ]
    candidates += [from_folder(root, cases, reference_map) for root in settings.predictions]
    with run_directory(config, data.name) as named:
        run_dir = Path(resolve(named)["run_dir"])
        write_config(run_dir / "config.yaml", named)
        with logged_to(run_dir / "eval.log"), recorded(run_dir) as result:
            write_environment(run_dir / "environment.json")
            for note in notes:  # that folds are evaluated on what they left out is as it should be
                log.log(logging.INFO if has_folds else logging.WARNING, "%s", note)
            if tuning:
                result |= tune(predictors[0][1], cases, reference_map, run_dir, checkpoint=settings.checkpoint[0])
            else:
                metrics = settings_of(settings.metrics)
                runs = {"evaluation": run_dir}
                options = ReportOptions(metrics, subset, strata, settings.examples, runs, notes)
                unreadable = dataset.problems if subset == "all" else ()
                found = report_on(candidates, cases, reference_map, run_dir, options, unreadable)
                # What may be chosen by is the score, and a test chooses nothing
                result |= found if subset == "val" else found | {"score": None, "test_score": found["score"]}
            log_output_paths(run_dir)
    return result


def report_on(
    candidates: Sequence[Candidate],
    cases: Sequence[Case],
    label_map: LabelMap,
    run_dir: Path,
    options: ReportOptions,
    unreadable: Sequence[str],
) -> dict[str, Any]:
    """Write the report of each candidate; return status, reason and the best score.

    Of several, each report goes into a folder of its own, and their comparison beside these.
    """
    scores, failed = [], 0
    candidates = with_own_names(candidates)
    for candidate in candidates:
        folder = run_dir if len(candidates) == 1 else run_dir / candidate.name
        if len(candidates) > 1:
            log.info("%s:", candidate.name)
        trained_in = run_of(candidate.models[0]) if candidate.models else None
        runs = {**({"training": trained_in} if trained_in else {}), **options.runs}
        with_training = replace(options, runs=runs, seen=candidate.seen, models=candidate.models)
        summary, problems = evaluate_cases(candidate.segment, cases, label_map, folder, with_training, unreadable)
        scores.append(summary["mean"]["dice"])
        failed = max(failed, len(problems))
    if len(candidates) > 1:
        compare_reports([candidate.name for candidate in candidates], run_dir)
    return {
        "status": "some_failed" if failed else "done",
        "score": max((score for score in scores if score is not None), default=None),
        "reason": f"{failed} case(s) failed" if failed else "",
    }


def check_request(settings: EvalSettings) -> None:
    """Raise for an evaluation of nothing, for settings that exclude each other, and for what cannot be tuned."""
    checkpoint, predictions, tuning = settings.checkpoint, settings.predictions, settings.tune
    if not checkpoint and not predictions:
        raise MedsegError("what is to be evaluated? Give checkpoint=RUN, or predictions=DIR with dataset=….")
    if tuning and (not checkpoint or predictions):
        raise MedsegError(f"tune={tuning} takes a checkpoint, and no predictions made elsewhere.")
    if not checkpoint and "layout" not in settings.dataset:
        raise MedsegError("predictions need the data set that they are of, as in dataset=folder dataset.root=DIR.")
    if not tuning:
        return
    if len(checkpoint) > 1:
        raise MedsegError(f"tune={tuning} takes one checkpoint, not a list: its choice is saved in it.")
    locate_to_write(checkpoint[0])
    own = {f"postprocess.{name}": value for name, value in settings.postprocess.items()}
    own |= {f"inference.{name}": settings.inference[name] for name in ("threshold", "thresholds")}
    if overridden := [name for name, value in own.items() if value is not None]:
        raise MedsegError(
            f"tune={tuning} begins with the options that the model was trained with: leave out {', '.join(overridden)}."
        )
