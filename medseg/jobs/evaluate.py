"""``medseg eval``: the report of a checkpoint on a part of its data, or on another data set with masks."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from medseg.build import CONF
from medseg.config import escape, resolve
from medseg.errors import MedsegError, listing
from medseg.evaluation.metrics import counts
from medseg.evaluation.overlays import overlay
from medseg.evaluation.report import case_rows, summarise, table, write_report
from medseg.inference.checkpoint import locate
from medseg.inference.models import files_of
from medseg.inference.predictor import Predictor
from medseg.io.atomic import replacing
from medseg.io.case import Case, Dataset
from medseg.io.dataset import by_id, open_dataset
from medseg.io.labels import IGNORE, IGNORE_NAME, LabelMap
from medseg.io.splits import read_split
from medseg.jobs.rundir import logged_to, make_run_dir, recorded, write_config, write_environment
from medseg.jobs.tune import tune, undo
from medseg.preprocessing.fingerprint import read_labelled

log = logging.getLogger(__name__)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Evaluate, or tune, as the composed config says; return status, score (mean Dice) and seconds.

    Raises:
        MedsegError: no such checkpoint or data, or no case could be read.
    """
    settings = resolve(config)
    if settings["tune"]:
        check_tuning(settings)
    if settings["tune"] == "undo":
        return undo(settings["checkpoint"])
    options = {name: settings[name] for name in ("trust", "device", "precision", "inference", "postprocess")}
    predictor = Predictor.load(settings["checkpoint"], **options)
    trained_in = training_run(settings["checkpoint"])
    is_own = "layout" not in settings["dataset"]
    node = saved_dataset(settings["dataset"], trained_in) if is_own else settings["dataset"]
    dataset = open_dataset(node)
    subset = part_to_use(settings, is_own)
    cases = select(
        dataset, subset, settings["split"]["file"] or (trained_in / "splits.json" if is_own and trained_in else None)
    )
    truth_map = classes_of(dataset, predictor.label_map)
    run_dir = make_run_dir(settings, node["name"])
    with logged_to(run_dir / "eval.log"), recorded(run_dir) as result:
        write_config(run_dir / "config.yaml", config | {"run_dir": escape(str(run_dir))})
        write_environment(run_dir / "environment.json")
        if settings["tune"]:
            result |= tune(predictor, cases, truth_map, run_dir, checkpoint=settings["checkpoint"])
        else:
            lost = dataset.problems if subset == "all" else ()
            summary, problems = evaluate_cases(
                predictor, cases, truth_map, run_dir, subset=subset, examples=settings["examples"], lost=lost
            )
            result |= {"status": "some_failed" if problems else "done", "score": summary["mean"]["dice"]}
            result["reason"] = f"{len(problems)} case(s) failed" if problems else ""
        log.info("run directory: %s", run_dir)
    return result


def check_tuning(settings: dict[str, Any]) -> None:
    """Refuse what tuning cannot save to, and options that it chooses itself."""
    if not isinstance(settings["checkpoint"], str):
        raise MedsegError(f"tune={settings['tune']} takes one checkpoint, not a list: its choice is saved in it.")
    locate(settings["checkpoint"])
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


def training_run(checkpoint: str | Sequence[str]) -> Path | None:
    """Return the run directory that a checkpoint, or an ensemble's first, lies in, if it still lies in one."""
    first = checkpoint if isinstance(checkpoint, str) else checkpoint[0]
    folder = files_of(Path(first))[0].resolve().parent.parent
    return folder if (folder / "splits.json").is_file() and (folder / "config.yaml").is_file() else None


def saved_dataset(node: dict[str, Any], trained_in: Path | None) -> dict[str, Any]:
    """Return the ``dataset`` node of the training run, with what this command line gives put over it."""
    if trained_in is None:
        raise MedsegError(
            "the checkpoint does not lie in its run directory, so its data set is unknown: name one, "
            "as in dataset=folder dataset.root=DIR."
        )
    saved = yaml.safe_load((trained_in / "config.yaml").read_text(encoding="utf-8"))
    later = yaml.safe_load((CONF / "common" / "dataset.yaml").read_text(encoding="utf-8"))  # than an older run
    given = {key: value for key, value in node.items() if value is not None}
    return resolve({**saved, "dataset": {**later, **saved["dataset"], **given}})["dataset"]


def select(dataset: Dataset, subset: str, split_file: str | Path | None) -> list[Case]:
    """Return the cases of one part of the split."""
    if subset == "all":
        return list(dataset.cases)
    split_file = split_file or dataset.split_file
    if split_file is None and (of_part := [case for case in dataset.cases if case.columns.get("split") == subset]):
        return of_part
    if split_file is None:
        raise MedsegError(f"subset={subset}: there is no split for this data set. Give split.file=FILE or subset=all.")
    ids = getattr(read_split(Path(split_file)), subset)
    missing = sorted(set(ids) - {case.id for case in dataset.cases})
    if missing:
        raise MedsegError(f"{split_file}: {len(missing)} case(s) are not in the data set:\n{listing(missing)}")
    if not ids:
        raise MedsegError(f"subset={subset}: this part of the split has no case.")
    return by_id(dataset.cases, ids)


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


def evaluate_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    truth_map: LabelMap,
    folder: Path,
    *,
    subset: str,
    examples: int,
    lost: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Predict and score cases, write ``metrics.json``, ``cases.csv`` and overlays, and show the table.

    ``lost`` says of further cases why they cannot even be tried.

    Returns:
        The summary as in ``metrics.json``, and a line for each case that could not be scored.

    Raises:
        MedsegError: no case could be scored.
    """
    rows: list[dict[str, Any]] = []
    problems = list(lost)
    for number, case in enumerate(cases, 1):
        try:
            rows += score(predictor, case, truth_map)
        except MedsegError as error:
            problems.append(f"{case.id}: {error}")
        log.debug("%d of %d: %s", number, len(cases), case.id)
    if problems:
        log.error("%d case(s) could not be scored:\n%s", len(problems), listing(problems))
    if not rows:
        raise MedsegError("no case could be scored.")
    summary = summarise(rows, list(truth_map.reported), subset)
    write_report(folder, rows, summary)
    draw_overlays(predictor, pick_examples(rows, cases, examples), truth_map, folder / "overlays")
    Console().print(table(summary))
    return summary, problems


def score(predictor: Predictor, case: Case, truth_map: LabelMap) -> list[dict[str, Any]]:
    """Return the report's rows of one case."""
    scan, truth = read_labelled(case, truth_map)
    mask = predictor(scan)
    found = counts(mask.indices, truth, len(truth_map.names), truth_map.reported.values())
    return case_rows(case, found, truth_map, scan.voxel_volume, scan.unit)


def pick_examples(rows: Sequence[dict[str, Any]], cases: Sequence[Case], number: int) -> list[Case]:
    """Pick cases evenly from the worst mean Dice to the best."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["case"], []).append(row["dice"])
    means = {name: float(np.nanmean(values)) for name, values in scores.items() if not np.isnan(values).all()}
    ranked = sorted(means, key=lambda name: means[name])
    places = np.linspace(0, len(ranked) - 1, min(number, len(ranked))).round().astype(int)
    known = {case.id: case for case in cases}
    return [known[ranked[place]] for place in places]


def draw_overlays(predictor: Predictor, cases: Sequence[Case], truth_map: LabelMap, folder: Path) -> None:
    """Draw prediction and truth over the scans."""
    for case in cases:
        scan, truth = read_labelled(case, truth_map)
        annotated = np.append(truth_map.annotated(case.annotated), np.zeros(IGNORE + 1, dtype=bool))
        known = np.where(annotated[truth], truth, 0).astype(np.uint8)  # no truth where nobody looked
        unknown = [name for name, seen in zip(truth_map.names, annotated, strict=False) if not seen]
        picture = overlay(scan, predictor(scan).indices, truth_map.names, truth=known, unknown=unknown)
        with replacing(folder / f"{case.id}.png") as temporary:
            picture.save(temporary)
