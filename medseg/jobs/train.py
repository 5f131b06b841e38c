"""``medseg train``: check the data, split, plan, preprocess, fit, and test the best checkpoint."""

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from medseg.build import CONF, build, targets
from medseg.config import escape, planned, resolve
from medseg.device import pick_device
from medseg.errors import MedsegError, listing
from medseg.evaluation.metrics import settings_of
from medseg.inference.model import make_segmenter
from medseg.inference.predictor import Predictor
from medseg.inference.unlike import training_ranges
from medseg.io.atomic import leftovers, write_json
from medseg.io.case import Dataset
from medseg.io.dataset import by_id, label_map, open_dataset
from medseg.io.labels import UNLABELLED, LabelMap
from medseg.io.splits import Split, continued_split, limited, split_as_set
from medseg.jobs.candidates import from_predictor
from medseg.jobs.rundir import logged_to, make_run_dir, recorded, write_config, write_environment
from medseg.jobs.scoring import Wanted, check_strata, evaluate_cases, tell_places
from medseg.jobs.terminal import download_on_terminal, on_terminal, watched
from medseg.models.pretrained import load_published, names_in
from medseg.models.published import fixed_values, published
from medseg.models.weights import weights_file
from medseg.preprocessing.cache import cached_cases
from medseg.preprocessing.cache_folder import dataset_folder
from medseg.preprocessing.fingerprint import Fingerprint
from medseg.preprocessing.plan import make_plan, outputs_of
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.preprocessing.survey import examine, survey, warn_of_equal_scans
from medseg.relaunch import rerunnable
from medseg.training.assembly import make_callbacks, make_data, make_module, make_progress, make_trainer
from medseg.training.data import SegmentationData
from medseg.training.finetuning import FineTuning
from medseg.training.finetuning import check as check_tuning
from medseg.training.hparams import begin_session, end_session
from medseg.training.module import TrainingModule
from medseg.training.pictures import Pictures
from medseg.training.probe import Probe
from medseg.training.progress import Progress
from medseg.training.selection import Selection
from medseg.training.sources import REPORT, Source, read_source
from medseg.training.transfer import announce as announce_transfer
from medseg.training.transfer import read_whole, take_over, write_report
from medseg.training.warm_start import begun_from, is_same_data, parts_seen, start_of, warn_of_seen, with_windows

log = logging.getLogger(__name__)

METRICS = CONF / "metrics" / "default.yaml"
TRAINING_DATA = "training_data.json"
"""What the training scans are like, in a run's directory."""


@dataclass(frozen=True)
class Run:
    """A training about to begin or to go on: its directory, its settings with the plan filled in, its cases.

    ``training_data`` is what the scans are like (see ``medseg.inference.unlike``).
    """

    directory: Path
    settings: dict[str, Any]
    dataset: Dataset
    label_map: LabelMap
    split: Split
    training_data: dict[str, Any]

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.directory / "checkpoints" / "last.ckpt"


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train as the composed config says; return status, reason, score (mean test Dice, or validation Dice) and seconds.

    Raises:
        MedsegError: the data or the config cannot be used; nothing has been written then.
    """
    settings = resolve(config)
    check_tuning(settings)
    dataset = open_dataset(settings["dataset"])
    classes = label_map(dataset)
    make_segmenter(settings["inference"], settings["postprocess"], classes)  # wrong options show at once
    if not is_first_process():  # one of several, started by the first
        return {"status": "done", **fit(reopen(config, settings, dataset, classes))[0]}
    start = reopen if settings["resume"] else begin
    this = start(config, settings, dataset, classes)
    with logged_to(this.directory / "train.log"), recorded(this.directory) as result:
        announce(this)
        if settings["resume"]:
            write_config(this.directory / "config.yaml", config)
        fitted, loggers, step = fit(this)
        result |= fitted
        result |= test(this, result["score"])
        is_tested = this.split.test and result["score"] is not None
        end_session(loggers, {"best/test_dice": result["score"]} if is_tested else {}, step)
        tell_places(this.directory)
    return result


def is_first_process() -> bool:
    """Tell the process that writes files from the others of distributed training."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def begin(config: dict[str, Any], settings: dict[str, Any], dataset: Dataset, classes: LabelMap) -> Run:
    """Split, read every case once, plan; then make the run directory and write down what was decided."""
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
    warn_of_equal_scans(fingerprint, split)
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
    run_dir = make_run_dir(settings, settings["dataset"]["name"])
    config = config | {"run_dir": escape(str(run_dir))}
    write_config(run_dir / "config.yaml", config)
    write_json(run_dir / "plan.json", plan)
    write_environment(run_dir / "environment.json")
    split.save(run_dir / "splits.json", fingerprint.hashes, settings["seed"])
    trained_on = Fingerprint({name: fingerprint.cases[name] for name in split.train})
    ranges = training_ranges(trained_on, classes, filled["preprocessing"]["normalize"])
    write_json(run_dir / TRAINING_DATA, ranges)
    return Run(run_dir, filled, dataset, classes, split, ranges)


def try_network(settings: dict[str, Any], classes: LabelMap, source: Source | None, file: Path | None) -> None:
    """Build the network, take weights over and freeze as the settings say, only to see whether that works."""
    network: nn.Module = build(settings["model"])
    regions = bool(classes.regions)
    transfer = take_over(network, settings["model"], source, classes.outputs, regions=regions) if source else None
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
            log.warning("no split comes of the parts that they were in: all cases are divided anew")
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
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MedsegError(f"plan.file={path}: cannot be read ({error}).") from error
    if not isinstance(plan, dict) or not {"model", "preprocessing", "plan", "trainer"} <= plan.keys():
        raise MedsegError(f"plan.file={path}: no plan. Give the plan.json of a run.")
    return plan


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
    wrong += [
        f"preprocessing.{key} is {plan['preprocessing'].get(key)}, the config gives {value}"
        for key, value in given.items()
        if value not in (None, plan["preprocessing"].get(key))
    ]
    if wrong:
        raise MedsegError(f"plan.file={settings['plan']['file']} does not fit:\n{listing(wrong)}")


def reopen(config: dict[str, Any], settings: dict[str, Any], dataset: Dataset, classes: LabelMap) -> Run:
    """Take up a run by its own split and plan, so that no test case is ever trained on.

    Raises:
        MedsegError: cases of its split are gone, or it has nothing to resume from.
    """
    directory = Path(settings["run_dir"])
    split = Split.load(directory / "splits.json")
    if missing := sorted({*split.train, *split.val, *split.test} - {case.id for case in dataset.cases}):
        raise MedsegError(f"{directory}: {len(missing)} of its cases are no longer in the data:\n{listing(missing)}")
    plan = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
    noted = directory / TRAINING_DATA  # runs of older versions have none
    ranges = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else {}
    run = Run(directory, planned(config, plan), dataset, classes, split, ranges)
    if settings["resume"] and not run.last.is_file():
        raise MedsegError(f"resume={directory}: {run.last} is not there; the run ended before its first epoch did.")
    for path in leftovers(directory) if settings["resume"] and is_first_process() else ():
        path.unlink()  # the run was killed while it wrote this
    return run


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


def fit(run: Run) -> tuple[dict[str, Any], list[Logger], int]:
    """Train until the budget is used up.

    Returns:
        Why training ended and the best validation Dice, who has logged it, and the number of steps.
    """
    settings = run.settings
    torch.manual_seed(settings["seed"])  # the network's first weights; no other draw uses global state
    progress, selection = make_progress(settings["trainer"]), Selection()
    module = make_module(settings, run.label_map, run.dataset.endings, progress, selection, run.training_data)
    start_from(run, module)
    optimizer = module.configure_optimizers()  # wrong arguments show before the data is preprocessed
    for line in module.tuning.describe(optimizer) if is_first_process() else ():
        log.info("%s", line)
    pictures = Pictures(run.split.val, run.label_map, progress) if settings["logger"] else None
    classes = list(run.label_map.reported)
    callbacks = make_callbacks(settings, run.directory, classes, pictures, progress, selection, watched())
    trainer = make_trainer(settings, run.directory, callbacks)
    data = make_data(settings, *preprocessed(run))
    return carry_out(run, trainer, module, data)


def carry_out(
    run: Run, trainer: Trainer, module: TrainingModule, data: SegmentationData
) -> tuple[dict[str, Any], list[Logger], int]:
    """Train.

    Returns:
        Why training ended and the best validation's score, of which more is better; who has logged it; steps.
    """
    settings, progress, selection = run.settings, module.progress, module.selection
    if is_first_process():
        size = sum(parameter.numel() for parameter in module.network.parameters())
        begin_session(trainer.loggers, settings)
        log.info("training on %s in %s, %s parameters", trainer.strategy.root_device, trainer.precision, f"{size:,}")
    with warnings.catch_warnings(), rerunnable(run.directory):
        warnings.filterwarnings(
            "ignore", ".*does not have many workers"
        )  # cutting patches out of the cache takes no time
        warnings.filterwarnings(
            "ignore", ".*LeafSpec", FutureWarning
        )  # Lightning 2.6 under torch 2.13, in its own code
        try:
            trainer.fit(module, data, ckpt_path=run.last if settings["resume"] else None, weights_only=True)
        except SystemExit as stop:  # Lightning makes an exit of Ctrl-C
            raise KeyboardInterrupt from stop
    chosen = selection.report()
    if chosen and is_first_process():
        announce_choice(chosen, selection)
    found = {
        "reason": stop_reason(trainer, progress),
        "score": selection.sign * chosen["best"][selection.key] if chosen else None,
        "selection": chosen,
    }
    return found, trainer.loggers, trainer.global_step


def start_from(run: Run, module: TrainingModule) -> None:
    """Give the networks the weights of ``finetune.checkpoint`` or ``model.pretrained``, and settle what learns."""
    report, whole = run.directory / REPORT, None
    if start := start_of(run.settings):
        source, label_map = read_source(start), run.label_map
        transfer = take_over(
            module.network, run.settings["model"], source, label_map.outputs, regions=bool(label_map.regions)
        )
        for network in (module.network, module.average):
            if network:
                transfer.put_into(network)
        whole = transfer.whole
        if is_first_process():
            announce_transfer(transfer, source)
            write_report(report, transfer, source)
    elif report.is_file():  # resumed
        whole = read_whole(report)
    elif weights := published(run.settings["model"]):
        whole = names_in(module.network, weights)
        if file := file_to_begin_with(run.settings):
            networks = [network for network in (module.network, module.average) if network]
            lines = load_published(networks, run.settings["model"], file)
            for line in lines if is_first_process() else ():
                log.info("%s", line)
    module.tuning = FineTuning(module.network, run.settings.get("finetune", {}), whole)


def file_to_begin_with(settings: dict[str, Any]) -> Path | None:
    """Return the file of published weights, downloaded; None where there is none, or a run's weights take their place.

    Raises:
        MedsegError: it cannot be had, or the config asks for another form than the weights have.
    """
    fixed_values(settings["model"])
    is_begun = settings["resume"] or start_of(settings)
    return None if is_begun else weights_file(settings, download_on_terminal)


def announce_choice(chosen: dict[str, Any], selection: Selection) -> None:
    """Log which weights are kept, and how far the choice can be trusted."""
    best, last, key = chosen["best"], chosen["last"], selection.key
    noise = f"; one validation varies by ±{chosen['noise']:.4f}" if chosen["noise"] is not None else ""
    log.info(
        "best.ckpt: epoch %d, validation %s %.4f (smoothed %.4f); last: epoch %d, %.4f (smoothed %.4f)%s",
        *(best["epoch"], selection.name, best[key], best["smoothed"]),
        *(last["epoch"], last[key], last["smoothed"], noise),
    )


def preprocessed(run: Run) -> tuple[list[Path], list[Path]]:
    """Return the preprocessed files to train and to validate on, made now as far as the cache does not have them."""
    preprocessor = Preprocessor(**run.settings["preprocessing"])
    cases = by_id(run.dataset.cases, run.split.train + run.split.val)
    files = cached_cases(cases, preprocessor, run.label_map, cache_of(run.settings), on_terminal)
    return files[: len(run.split.train)], files[len(run.split.train) :]


def cache_of(settings: dict[str, Any]) -> Path:
    """Return where the cache keeps the data set's files."""
    return dataset_folder(Path(settings["cache_dir"]), settings["dataset"]["name"])


def stop_reason(trainer: Trainer, progress: Progress) -> str:
    """Say why training ended."""
    if progress.step >= progress.max_steps:
        return "max_epochs reached"
    return "max_time reached" if progress.current >= 1 else "no further gain"


def test(run: Run, score: float | None) -> dict[str, Any]:
    """Test the best checkpoint as ``medseg eval`` would; ``score`` stays where no case was kept for testing."""
    cases = by_id(run.dataset.cases, run.split.test)
    if not cases:
        log.info("no test report: the split has no test part")
        return {"status": "done", "score": score}
    device = str(pick_device(run.settings["trainer"]["accelerator"]))
    predictor = Predictor.load(run.directory, device=device, trust=[*targets(run.settings["model"])])
    folder = run.directory / "test"
    node = run.settings.get("metrics") or yaml.safe_load(METRICS.read_text("utf-8"))  # of a run older than the key
    wanted = Wanted(settings_of(node), "test", node["strata"], runs={"training": run.directory})
    candidate = from_predictor(run.directory.name, predictor)
    summary, problems = evaluate_cases(candidate.segment, cases, run.label_map, folder, wanted)
    return {"status": "some_failed" if problems else "done", "score": summary["mean"]["dice"]}
