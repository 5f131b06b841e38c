"""A training about to begin, or to go on: data checked, split, plan, and the run directory that says so."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from medseg.config.check import is_explicit, planned, resolve
from medseg.config.instantiate import build
from medseg.config.untrusted import plan_from, read_json, read_json_object
from medseg.errors import MedsegError, listing
from medseg.inference.out_of_distribution import training_ranges
from medseg.io.case import Dataset
from medseg.io.datasets.dataset import by_id
from medseg.io.datasets.splits import Split, continued_split, limited, split_as_set
from medseg.io.labels import UNLABELLED, LabelMap
from medseg.jobs.evaluate.scoring import check_strata
from medseg.jobs.rundir import write_config, write_environment
from medseg.models.pretrained.catalogue import fixed_values
from medseg.models.pretrained.download import weights_file
from medseg.models.pretrained.load import load_published
from medseg.preprocessing.cache_files import dataset_folder
from medseg.preprocessing.fingerprint.duplicates import warn_of_parted
from medseg.preprocessing.fingerprint.fingerprint import Fingerprint
from medseg.preprocessing.planning.plan import make_plan, outputs_of
from medseg.preprocessing.quality.check_dataset import examine, survey
from medseg.preprocessing.quality.issues import in_brief
from medseg.preprocessing.quality.warnings import classes_by_part
from medseg.system.device import pick_device
from medseg.system.files import write_json
from medseg.system.terminal import download_on_terminal, on_terminal
from medseg.training.optim.finetuning import FineTuning
from medseg.training.probe import Probe
from medseg.training.transfer.sources import Source, read_source
from medseg.training.transfer.transfer import take_over
from medseg.training.transfer.warm_start import (
    begun_from,
    is_same_data,
    parts_seen,
    start_of,
    warn_of_seen,
    with_windows,
)

log = logging.getLogger(__name__)

TRAINING_DATA = "training_data.json"
"""What the training scans are like, in a run's directory."""


@dataclass(frozen=True)
class Run:
    """A training about to begin or to go on: its directory, its settings with the plan filled in, its cases.

    ``config`` is what its ``config.yaml`` holds, or is to hold once it goes on. ``training_data`` is what the scans are
    like (see ``medseg.inference.out_of_distribution``).
    """

    directory: Path
    config: dict[str, Any]
    settings: dict[str, Any]
    dataset: Dataset
    label_map: LabelMap
    split: Split
    training_data: dict[str, Any]

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.directory / "checkpoints" / "last.ckpt"


def begin(config: dict[str, Any], settings: dict[str, Any], dataset: Dataset, classes: LabelMap) -> Run:
    """Split, read every case once, plan; then write down in the run directory what was decided."""
    start = start_of(settings)
    source = read_source(start) if start else None
    file = file_to_begin_with(settings)  # what cannot be had is said before the data are read
    if dataset.problems:  # which a split may trip over: read all cases, and say everything at once
        survey(dataset.cases, classes, dataset.problems, on_terminal, cache_of(settings))
    split = split_of(settings, dataset, classes, source)
    used = by_id(dataset.cases, tuple(sorted(split.train + split.val + split.test)))
    if "metrics" in settings:  # pre-training measures nothing in the end
        check_strata(used, settings["metrics"]["strata"])  # now rather than after the training
    fingerprint = survey(used, classes, watch=on_terminal, folder=cache_of(settings))
    warn_of_parted(fingerprint.same_scans, split)
    for finding in classes_by_part(fingerprint, classes, split):
        log.warning("%s", in_brief(finding))
    learned = Fingerprint({name: fingerprint.cases[name] for name in split.train + split.val})
    if source:
        warn_of_seen(source, parts_seen(source, fingerprint), split.test)
        is_same = is_same_data(source, fingerprint, {case.id for case in used if case.added}, classes)
        config = begun_from(config, settings, source, learned, is_same=is_same)
        settings = resolve(config)
    plan = plan_run(config, settings, learned, classes, dataset.modality)
    plan = with_windows(plan, settings, source) if source else plan
    filled = planned(config, plan)
    try_network(filled, classes, source, file)  # wrong arguments show before anything is written
    run_dir = Path(settings["run_dir"])
    write_config(run_dir / "config.yaml", config)
    write_json(run_dir / "plan.json", plan)
    write_environment(run_dir / "environment.json")
    split.save(run_dir / "splits.json", fingerprint.hashes, settings["seed"])
    trained_on = Fingerprint({name: fingerprint.cases[name] for name in split.train})
    ranges = training_ranges(trained_on, classes, filled["preprocessing"]["normalize"])
    write_json(run_dir / TRAINING_DATA, ranges)
    return Run(run_dir, config, filled, dataset, classes, split, ranges)


def reopen(config: dict[str, Any], settings: dict[str, Any], dataset: Dataset, classes: LabelMap) -> Run:
    """Take up a run by its own split and plan, so that no test case is ever trained on.

    Raises:
        MedsegError: cases of its split are gone, or it has nothing to resume from.
    """
    directory = Path(settings["run_dir"])
    split = Split.load(directory / "splits.json")
    if missing := sorted({*split.train, *split.val, *split.test} - {case.id for case in dataset.cases}):
        raise MedsegError(f"{directory}: {len(missing)} of its cases are no longer in the data:\n{listing(missing)}")
    plan = plan_from(read_json(directory / "plan.json"), directory / "plan.json")
    noted = directory / TRAINING_DATA  # runs of older versions have none
    ranges = read_json_object(noted) if noted.is_file() else {}
    run = Run(directory, config, planned(config, plan), dataset, classes, split, ranges)
    if settings["resume"] and not run.last.is_file():
        raise MedsegError(f"resume={directory}: {run.last} is not there; the run ended before its first epoch did.")
    return run


def try_network(settings: dict[str, Any], classes: LabelMap, source: Source | None, file: Path | None) -> None:
    """Build the network, take weights over and freeze as the settings say, only to see whether that works."""
    network: nn.Module = build(settings["model"], "model", settings["trust"])
    regions = bool(classes.regions)
    trust = settings["trust"]
    transfer = (
        take_over(network, settings["model"], source, classes.outputs, regions=regions, trust=trust) if source else None
    )
    if file:
        load_published([network], settings["model"], file)
    FineTuning(network, settings.get("finetune", {}), transfer.whole if transfer else None)


def split_of(settings: dict[str, Any], dataset: Dataset, classes: LabelMap, source: Source | None) -> Split:
    """Return the split, in which the scans that a training begins with weights of stay in the part where they were.

    Unless ``split.file`` or ``split.folds`` say otherwise.
    """
    wanted, seed = settings["split"], settings["seed"]
    if source and source.seen and not wanted["file"] and not wanted["folds"]:
        # What is wrong with the cases is told where those that are used are surveyed.
        fingerprint, _ = examine(dataset.cases, classes, watch=on_terminal, folder=cache_of(settings))
        if seen := parts_seen(source, fingerprint):
            own = seed if wanted["seed"] is None else wanted["seed"]
            split = continued_split(dataset.cases, seen, val=wanted["val"], test=wanted["test"], seed=own)
            log.info("%d of %d cases were in the split of %s", len(seen), len(dataset.cases), source.path)
            if split:
                return limited(split, dataset.cases, wanted["labelled"], seed) if wanted["labelled"] else split
            log.warning(
                "no split keeps these cases in the parts that they were in: it would part a patient, or leave training"
                " or validation empty. All cases are divided anew"
            )
    return split_as_set(dataset.cases, settings, dataset.split_file)


def plan_run(
    config: dict[str, Any],
    settings: dict[str, Any],
    learned: Fingerprint,
    classes: LabelMap,
    modality: Sequence[str] | None,
) -> dict[str, Any]:
    """Return the plan for the data, within the memory and the time that the device has, or the one that is given."""
    fixed = fixed_values(settings["model"])
    if plan := read_plan(settings["plan"]["file"]):
        check_plan(plan, settings, learned, classes)
        return {**plan, "model": fixed | plan["model"]}
    device = pick_device(settings["trainer"]["accelerator"])
    config, settings = ({**node, "model": node["model"] | fixed} for node in (config, settings))
    plan = make_plan(settings, learned, classes, modality, device, Probe(config, device))
    return {**plan, "model": plan["model"] | fixed}


def read_plan(path: str | None) -> dict[str, Any] | None:
    """Read the ``plan.json`` of another run.

    Raises:
        MedsegError: it cannot be read, or is something else.
    """
    if path is None:
        return None
    return plan_from(read_json(Path(path), "Give by plan.file= the plan.json of a run."), f"plan.file={path}")


def check_plan(plan: dict[str, Any], settings: dict[str, Any], learned: Fingerprint, classes: LabelMap) -> None:
    """Refuse a saved plan that does not fit the data, or what else the config gives."""
    channels = learned.channels * (2 * plan["plan"].get("context", settings["plan"]["context"]) + 1)
    found = {"in_channels": channels, "out_channels": outputs_of(classes, learned.channels)}
    wrong = [
        f"plan.{key} is {plan['plan'].get(key)}, the data have {value}"
        for key, value in found.items()
        if plan["plan"].get(key) != value
    ]
    given = {key: settings["preprocessing"][key] for key in ("spacing", "resize", "normalize", "denoise")}
    if given["normalize"] and len(given["normalize"]) == 1:  # one for all channels
        given["normalize"] = given["normalize"] * learned.channels
    chosen = {key for key in settings["preprocessing"] if is_explicit(settings, f"preprocessing.{key}")}
    given |= {key: settings["preprocessing"][key] for key in chosen - {*given, "window"}}
    wrong += [
        f"preprocessing.{key} is {plan['preprocessing'].get(key)}, the config gives {value}"
        for key, value in given.items()
        if value not in (None, plan["preprocessing"].get(key))
    ]
    window, windows = settings["preprocessing"]["window"], plan["preprocessing"].get("window") or []
    if window and any(each[:2] != window for each in windows):
        wrong.append(f"preprocessing.window is {[each[:2] for each in windows]}, the config gives {window}")
    if wrong:
        raise MedsegError(f"plan.file={settings['plan']['file']} does not fit:\n{listing(wrong)}")


def announce(run: Run) -> None:
    """Log what is about to be done."""
    split, plan, model = run.split, run.settings["plan"], run.settings["model"]
    sizes = f"{len(split.train)} to train, {len(split.val)} to validate, {len(split.test)} to test"
    kind = "regions" if run.label_map.regions else "classes"
    learned = f"; {kind} {', '.join(run.label_map.outputs)}" if run.label_map is not UNLABELLED else ""
    log.info("%d cases: %s%s", len(run.dataset.cases), sizes, learned)
    shape = f"patch {'×'.join(map(str, plan['patch_size']))}, batch {plan['batch_size']}"
    depth = [f"depth {model['depth']}"] if "depth" in model else []
    width = [f"{model['base_channels']} base channels"] if "base_channels" in model else []
    spacing = f"spacing {run.settings['preprocessing']['spacing'] or 'as it is'}"
    log.info("plan: %s", ", ".join([shape, *depth, *width, spacing]))


def file_to_begin_with(settings: dict[str, Any]) -> Path | None:
    """Return the file of published weights, downloaded; None where there is none, or a run's weights take their place.

    Raises:
        MedsegError: it cannot be had, or the config asks for another form than the weights have.
    """
    fixed_values(settings["model"])
    is_begun = settings["resume"] or start_of(settings)
    return None if is_begun else weights_file(settings, download_on_terminal)


def cache_of(settings: dict[str, Any]) -> Path:
    """Return where the cache keeps the data set's files."""
    return dataset_folder(Path(settings["cache_dir"]), settings["dataset"]["name"])


def is_first_process() -> bool:
    """Tell the process that writes files from the others of distributed training."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)
