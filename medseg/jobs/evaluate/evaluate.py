"""``medseg eval``: the report of models, or of masks made elsewhere, on a data set or a part of it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.config.check import resolve
from medseg.config.instantiate import own_targets
from medseg.errors import MedsegError
from medseg.evaluation.metrics.registry import settings_of
from medseg.inference.checkpoint import locate_to_write
from medseg.io.case import Case, Dataset
from medseg.io.datasets.dataset import label_map, open_dataset
from medseg.io.labels import IGNORE_NAME, LabelMap
from medseg.jobs.evaluate.candidates import (
    Candidate,
    from_folder,
    from_predictor,
    load_predictors,
    name_of,
    with_own_names,
)
from medseg.jobs.evaluate.compare import compare_reports
from medseg.jobs.evaluate.scoring import Wanted, evaluate_cases, tell_places
from medseg.jobs.evaluate.tune import tune, undo
from medseg.jobs.rundir import logged_to, recorded, run_directory, write_config, write_environment
from medseg.jobs.training_run import checkpoint_files, saved_dataset, select, training_run, warn_of_training_cases

log = logging.getLogger(__name__)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Evaluate, or tune, as the composed config says; return status, score (mean Dice) and seconds.

    Raises:
        MedsegError: no such checkpoint, masks or data, or no case could be read.
    """
    settings = resolve(config)
    check_given(settings)
    if settings["tune"]:
        check_tuning(settings)
    if settings["tune"] == "undo":
        return undo(settings["checkpoint"])
    predictors = load_predictors(settings)
    trained_in = training_run(settings["checkpoint"])
    is_own = "layout" not in settings["dataset"]
    own = own_targets(config)
    node = saved_dataset(settings["dataset"], trained_in, settings["trust"]) if is_own else settings["dataset"]
    dataset = open_dataset(node, [*settings["trust"], *own], may_write=not is_own)
    subset, models = part_to_use(settings, is_own), checkpoint_files(settings["checkpoint"])
    split_file = settings["split"]["file"] or (trained_in / "splits.json" if is_own and trained_in else None)
    cases = select(dataset, subset, split_file, settings["split"]["fold"], models)
    if is_own:
        warn_of_training_cases(cases, subset, models)
    truth_map = classes_of(dataset, predictors[0][1].label_map) if predictors else label_map(dataset)
    candidates = [from_predictor(name_of(path), predictor, training_run(path)) for path, predictor in predictors]
    candidates += [from_folder(root, cases, truth_map) for root in listed(settings["predictions"])]
    with run_directory(config, node["name"]) as named:
        settings = resolve(named)
        run_dir = Path(settings["run_dir"])
        write_config(run_dir / "config.yaml", named)
        with logged_to(run_dir / "eval.log"), recorded(run_dir) as result:
            write_environment(run_dir / "environment.json")
            if settings["tune"]:
                result |= tune(predictors[0][1], cases, truth_map, run_dir, checkpoint=settings["checkpoint"])
            else:
                metrics = settings_of(settings["metrics"])
                runs = {"evaluation": run_dir}
                wanted = Wanted(metrics, subset, settings["metrics"]["strata"], settings["examples"], runs)
                lost = dataset.problems if subset == "all" else ()
                result |= report_on(candidates, cases, truth_map, run_dir, wanted, lost)
            tell_places(run_dir)
    return result


def report_on(
    candidates: Sequence[Candidate],
    cases: Sequence[Case],
    label_map: LabelMap,
    run_dir: Path,
    wanted: Wanted,
    lost: Sequence[str],
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
        own = {"training": candidate.trained_in} if candidate.trained_in else {}
        told = replace(wanted, runs={**own, **wanted.runs})
        summary, problems = evaluate_cases(candidate.segment, cases, label_map, folder, told, lost)
        scores.append(summary["mean"]["dice"])
        failed = max(failed, len(problems))
    if len(candidates) > 1:
        compare_reports([candidate.name for candidate in candidates], run_dir)
    known = [score for score in scores if score is not None]
    return {
        "status": "some_failed" if failed else "done",
        "score": max(known) if known else None,
        "reason": f"{failed} case(s) failed" if failed else "",
    }


def check_given(settings: dict[str, Any]) -> None:
    """Refuse an evaluation of nothing, and what does not go together."""
    checkpoint, predictions = settings["checkpoint"], settings["predictions"]
    if checkpoint is None and predictions is None:
        raise MedsegError("what is to be evaluated? Give checkpoint=RUN, or predictions=DIR with dataset=….")
    if settings["tune"] and (checkpoint is None or predictions is not None):
        raise MedsegError(f"tune={settings['tune']} takes a checkpoint, and no predictions made elsewhere.")
    if checkpoint is None and "layout" not in settings["dataset"]:
        raise MedsegError("predictions need the data set that they are of, as in dataset=folder dataset.root=DIR.")


def listed(paths: str | Sequence[str] | None) -> Sequence[str]:
    """Return a path, or several, as a list."""
    return [paths] if isinstance(paths, str) else paths or []


def check_tuning(settings: dict[str, Any]) -> None:
    """Refuse what tuning cannot save to, and options that it chooses itself."""
    if not isinstance(settings["checkpoint"], str):
        raise MedsegError(f"tune={settings['tune']} takes one checkpoint, not a list: its choice is saved in it.")
    locate_to_write(settings["checkpoint"])
    own = {f"postprocess.{name}": value for name, value in settings["postprocess"].items()}
    own |= {f"inference.{name}": settings["inference"][name] for name in ("threshold", "thresholds")}
    if given := [name for name, value in own.items() if value is not None]:
        raise MedsegError(
            f"tune={settings['tune']} begins with the options that the model was trained with: "
            f"leave out {', '.join(given)}."
        )


def part_to_use(settings: dict[str, Any], is_own: bool) -> str:
    """Return the part of the data to evaluate, or to tune on: of the run's own data the validation cases alone."""
    subset, tuning = settings["subset"], settings["tune"]
    if tuning and is_own and subset not in (None, "val"):
        raise MedsegError(
            f"tune={tuning} subset={subset}: options are chosen on the validation cases; leave subset out."
        )
    return subset or (("val" if tuning else "test") if is_own else "all")


def classes_of(dataset: Dataset, trained: LabelMap) -> LabelMap:
    """Return how this data set's masks name the model's classes: by its own values where it names the same classes."""
    labels = dataset.labels
    if labels is None:
        return trained
    if set(labels) - {IGNORE_NAME} != set(trained.names):
        raise MedsegError(
            f"the data set has the classes {list(labels)}, the model {trained.names}: give dataset.labels."
        )
    ignored = [name for name in labels if name == IGNORE_NAME]
    return replace(trained, labels={name: labels[name] for name in (*trained.names, *ignored)})
