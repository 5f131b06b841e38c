"""Setup of a training, or of going on with one: check the data, split, plan, and write these into the run directory."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from medseg.config.check import is_chosen, planned, read_settings, resolve
from medseg.config.instantiate import build, own_targets
from medseg.config.schema import ObjectNode, typed
from medseg.config.settings import TrainingPlan, TrainingSettings, TrainSettings
from medseg.config.untrusted import plan_from, read_json, read_json_object
from medseg.errors import MedsegError, listing
from medseg.inference.out_of_distribution import training_ranges
from medseg.io.case import Case, Dataset
from medseg.io.datasets.dataset import by_id
from medseg.io.datasets.splits import Split, continued_split, limited, split_as_set
from medseg.io.labels import LabelMap
from medseg.jobs.evaluate.scoring import check_strata
from medseg.jobs.rundir import has_state, run_directory, write_config, write_environment
from medseg.models.pretrained.catalogue import fixed_values
from medseg.models.pretrained.download import weights_file
from medseg.models.pretrained.load import load_published
from medseg.preprocessing.cache_files import dataset_folder
from medseg.preprocessing.fingerprint.duplicates import warn_of_split_scans
from medseg.preprocessing.fingerprint.fingerprint import Fingerprint
from medseg.preprocessing.planning.plan import make_plan, offer, outputs_of
from medseg.preprocessing.quality.check_dataset import check_dataset, examine
from medseg.preprocessing.quality.issues import in_brief
from medseg.preprocessing.quality.warnings import classes_by_subset, unnamed_ct
from medseg.system.device import fullest
from medseg.system.distributed.ranks import Ranks
from medseg.system.files import write_json
from medseg.system.running.progress_file import ProgressFile, progress_told
from medseg.system.terminal import with_download_bar, with_progress_bar
from medseg.training.optim.finetuning import FineTuning
from medseg.training.transfer.sources import Source, read_source
from medseg.training.transfer.transfer import transfer_weights
from medseg.training.transfer.warm_start import (
    config_from_source,
    is_same_data,
    parts_seen,
    start_of,
    warn_of_seen,
    with_windows,
)

log = logging.getLogger(__name__)

TRAINING_DATA = "training_data.json"
"""What the training scans are like, in a run's directory."""


S = TypeVar("S", bound=TrainingSettings)


@dataclass(frozen=True)
class Run(Generic[S]):
    """A training about to begin or to go on: its directory, its settings and plan, its cases.

    ``config`` is what its ``config.yaml`` holds, or is to hold once it goes on, and ``resolved`` the same with the plan
    filled in, which ``settings`` and ``plan`` are read from. ``training_data`` is what the scans are like (see
    ``medseg.inference.out_of_distribution``). ``progress_file`` tells others where it is, ``ranks`` are the processes
    that train together.
    """

    directory: Path
    config: dict[str, Any]
    resolved: dict[str, Any]
    settings: S
    plan: TrainingPlan
    dataset: Dataset
    label_map: LabelMap
    split: Split
    training_data: dict[str, Any]
    progress_file: ProgressFile
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.directory / "checkpoints" / "last.ckpt"


def in_run_directory(config: dict[str, Any], job: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Run a job with a config that names its run directory, made now, and trusts the objects that the user chose.

    Returns the job's result, with ``run_dir``.
    """
    config = config | {"trust": [*config.get("trust", ()), *own_targets(config)]}  # before files add to it
    with ExitStack() as stack:
        named = stack.enter_context(run_directory(config, resolve(config)["dataset"]["name"]))
        stack.enter_context(progress_told(Path(resolve(named)["run_dir"])))
        return {**job(named), "run_dir": resolve(named)["run_dir"]}


def set_up(config: dict[str, Any], settings: S, dataset: Dataset, classes: LabelMap, ranks: Ranks) -> Run[S]:
    """Split, read every case once, plan; then write the config, the plan and the split into the run directory."""
    start = start_of(settings)
    source = read_source(start) if start else None
    file = published_weights_file(settings)  # a failing download shows before the data are read
    if dataset.problems:  # which a split may trip over: read all cases, and say everything at once
        check_dataset(dataset.cases, classes, dataset.problems, with_progress_bar, cache_of(settings))
    split = split_of(settings, dataset, classes, source)
    used = by_id(dataset.cases, tuple(sorted(split.train + split.val + split.test)))
    if isinstance(settings, TrainSettings):
        check_folds(settings, by_id(dataset.cases, split.train))
        if settings.metrics:
            check_strata(used, settings.metrics.strata)  # now rather than after the training
    fingerprint = check_dataset(used, classes, watch=with_progress_bar, folder=cache_of(settings))
    warn_of_split_scans(fingerprint.same_scans, split)
    for finding in classes_by_subset(fingerprint, classes, split):
        log.warning("%s", in_brief(finding))
    learned = Fingerprint({name: fingerprint.cases[name] for name in split.train + split.val})
    if source:
        warn_of_seen(source, parts_seen(source, fingerprint), split.test)
        is_same = is_same_data(source, fingerprint, {case.id for case in used if case.added}, classes)
        config = config_from_source(config, settings, source, learned, is_same=is_same)
        settings = read_settings(type(settings), config)
    if settings.preprocessing.normalize is None:
        for finding in unnamed_ct(learned, dataset.modality):
            log.warning("%s", finding.text)
    plan = plan_run(config, settings, learned, classes, dataset.modality, ranks.devices)
    plan = with_windows(plan, settings, source) if source else plan
    if isinstance(settings, TrainSettings) and (advice := offer(plan, learned, settings)):
        log.info("%s", advice)
    filled = planned(config, plan)
    # Build the network, transfer weights and freeze once, so that wrong arguments show before anything is written
    trust = settings.trust
    network: nn.Module = build(filled["model"], "model", trust)
    whole = None
    if source:
        regions = bool(classes.regions)
        whole = transfer_weights(network, filled["model"], source, classes.outputs, regions=regions, trust=trust).whole
    if file:
        load_published([network], filled["model"], file)
    FineTuning(network, settings.finetune, whole)
    run_dir = directory_of(settings)
    write_config(run_dir / "config.yaml", config)
    write_json(run_dir / "plan.json", plan)
    write_environment(run_dir / "environment.json")
    split.save(run_dir / "splits.json", fingerprint.hashes, settings.seed)
    trained_on = Fingerprint({name: fingerprint.cases[name] for name in split.train})
    ranges = training_ranges(trained_on, classes, filled["preprocessing"]["normalize"])
    write_json(run_dir / TRAINING_DATA, ranges)
    return run_of(settings, config, plan, dataset, classes, split, ranges, ranks)


def reopen(config: dict[str, Any], settings: S, dataset: Dataset, classes: LabelMap, ranks: Ranks) -> Run[S]:
    """Return a run with its own split and plan, so that no test case is ever trained on.

    Raises:
        MedsegError: cases of its split are gone, or it has nothing to resume from.
    """
    directory = directory_of(settings)
    split = Split.load(directory / "splits.json")
    if missing := sorted({*split.train, *split.val, *split.test} - {case.id for case in dataset.cases}):
        raise MedsegError(f"{directory}: {len(missing)} of its cases are no longer in the data:\n{listing(missing)}")
    plan = plan_from(read_json(directory / "plan.json"), directory / "plan.json")
    file = directory / TRAINING_DATA  # runs of older versions have none
    ranges = read_json_object(file) if file.is_file() else {}
    run = run_of(settings, config, plan, dataset, classes, split, ranges, ranks)
    if settings.resume and not has_state(directory):
        raise MedsegError(f"resume={directory}: {run.last} is not there; the run ended before its first epoch did.")
    return run


def run_of(
    settings: S,
    config: dict[str, Any],
    plan: dict[str, Any],
    dataset: Dataset,
    classes: LabelMap,
    split: Split,
    training_data: dict[str, Any],
    ranks: Ranks,
) -> Run[S]:
    """Return a run whose settings have the plan filled in."""
    resolved = planned(config, plan)
    filled, seen = typed(type(settings), resolved), typed(TrainingPlan, resolved["plan"])
    directory = directory_of(settings)
    cases = (dataset, classes, split, training_data)
    return Run(directory, config, resolved, filled, seen, *cases, ProgressFile(directory), ranks)


def directory_of(settings: TrainingSettings) -> Path:
    """Return the run directory, which has been made."""
    assert settings.run_dir is not None
    return settings.run_dir


def split_of(settings: TrainingSettings, dataset: Dataset, classes: LabelMap, source: Source | None) -> Split:
    """Return the split. Scans that initial weights were trained on stay in their subset.

    ``split.file`` and ``split.folds`` take precedence.
    """
    options, seed = settings.split, settings.seed
    if source and source.seen and not options.file and not options.folds:
        # Problems of the cases are logged later, of those that are used
        fingerprint, _ = examine(dataset.cases, classes, watch=with_progress_bar, folder=cache_of(settings))
        if seen := parts_seen(source, fingerprint):
            own = seed if options.seed is None else options.seed
            split = continued_split(dataset.cases, seen, val=options.val, test=options.test, seed=own)
            log.info("%d of %d cases were in the split of %s", len(seen), len(dataset.cases), source.path)
            if split:
                return limited(split, dataset.cases, options.labelled, seed) if options.labelled else split
            log.warning(
                "the source's split cannot be reused (a patient's cases would be in two subsets, or training or"
                " validation empty); a new random split is made"
            )
    return split_as_set(dataset.cases, options, seed, dataset.split_file)


def check_folds(settings: TrainSettings, cases: Sequence[Case]) -> None:
    """Raise where the cases to train on are of fewer groups than a first stage has folds."""
    stage, n_groups = settings.first_stage, len({case.group for case in cases})
    if stage.use and n_groups < stage.folds:
        fewer = f"Set at most first_stage.folds={n_groups}, or train" if n_groups >= 2 else "Train"
        raise MedsegError(
            f"first_stage.folds={stage.folds}: the training cases are of {n_groups} groups (patients), and each fold"
            f" needs one. {fewer} on more patients, or with one stage (first_stage.use=null)."
        )


def plan_run(
    config: dict[str, Any],
    settings: TrainingSettings,
    learned: Fingerprint,
    classes: LabelMap,
    modality: Sequence[str] | None,
    devices: Sequence[torch.device],
) -> dict[str, Any]:
    """Return the plan of ``plan.file``, or else one for the data within memory and time of the fullest of devices."""
    fixed = fixed_values(settings.model)
    if path := settings.plan.file:
        plan = plan_from(read_json(path, "Give by plan.file= the plan.json of a run."), f"plan.file={path}")
        check_plan(plan, settings, learned, classes)
        return {**plan, "model": fixed | plan["model"]}
    from medseg.training.probe import Probe  # with Lightning, which all that comes before a plan does without

    device = fullest(devices)
    config = {**config, "model": config["model"] | fixed}
    settings = replace(settings, model=ObjectNode(settings.model | fixed))
    plan = make_plan(settings, learned, classes, modality, device, Probe(config, device, classes, type(settings)))
    return {**plan, "model": plan["model"] | fixed}


def check_plan(plan: dict[str, Any], settings: TrainingSettings, learned: Fingerprint, classes: LabelMap) -> None:
    """Raise where a saved plan fits neither the data nor other values of the config."""
    channels = learned.channels * (2 * plan["plan"].get("context", settings.plan.context) + 1)
    of_data = {"in_channels": channels, "out_channels": outputs_of(classes, learned.channels)}
    wrong = [
        f"plan.{key} is {plan['plan'].get(key)}, the data have {value}"
        for key, value in of_data.items()
        if plan["plan"].get(key) != value
    ]
    given = vars(settings.preprocessing)
    chosen = {key: given[key] for key in ("spacing", "resize", "normalize", "denoise")}
    if chosen["normalize"] and len(chosen["normalize"]) == 1:  # one for all channels
        chosen["normalize"] = chosen["normalize"] * learned.channels
    explicit = {key for key in given if is_chosen(settings.explicit_keys, f"preprocessing.{key}")}
    chosen |= {key: given[key] for key in explicit - {*chosen, "window"}}
    wrong += [
        f"preprocessing.{key} is {plan['preprocessing'].get(key)}, the config gives {value}"
        for key, value in chosen.items()
        if value not in (None, plan["preprocessing"].get(key))
    ]
    window, windows = settings.preprocessing.window, plan["preprocessing"].get("window") or []
    if window and any(each[:2] != window for each in windows):
        wrong.append(f"preprocessing.window is {[each[:2] for each in windows]}, the config gives {window}")
    if wrong:
        raise MedsegError(f"plan.file={settings.plan.file} does not fit:\n{listing(wrong)}")


def announce(run: Run[Any]) -> None:
    """Log what is about to be done."""
    split, plan, model = run.split, run.plan, run.settings.model
    sizes = f"{len(split.train)} to train, {len(split.val)} to validate, {len(split.test)} to test"
    kind = "regions" if run.label_map.regions else "classes"
    learned = f"; {kind} {', '.join(run.label_map.outputs)}" if run.label_map.has_masks else ""
    log.info("%d cases: %s%s", len(run.dataset.cases), sizes, learned)
    shape = f"patch {'×'.join(map(str, plan.patch_size))}, batch {plan.batch_size}"
    depth = [f"depth {model['depth']}"] if "depth" in model else []
    width = [f"{model['base_channels']} base channels"] if "base_channels" in model else []
    spacing = f"spacing {run.settings.preprocessing.spacing or 'as it is'}"
    log.info("plan: %s", ", ".join([shape, *depth, *width, spacing]))


def published_weights_file(settings: TrainingSettings) -> Path | None:
    """Return the file of published weights, downloaded; None where there is none, or a run's weights take their place.

    Raises:
        MedsegError: it cannot be had, or the config asks for another form than the weights have.
    """
    fixed_values(settings.model)
    has_weights = settings.resume or start_of(settings)
    return None if has_weights else weights_file(weights_of(settings), with_download_bar)


def weights_of(settings: TrainingSettings) -> dict[str, Any]:
    """Return the network, and where published weights of it come from."""
    return {"model": settings.model, "weights": vars(settings.weights) if settings.weights else {}}


def cache_of(settings: TrainingSettings) -> Path:
    """Return where the cache keeps the data set's files."""
    return dataset_folder(settings.cache_dir, settings.dataset.name)
