"""``medseg train``: check the data, split, plan, preprocess, fit, and test the best checkpoint."""

import json
import logging
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

from medseg.build import build
from medseg.config import escape, parse_duration, resolve
from medseg.device import pick_device, pick_precision
from medseg.errors import MedsegError
from medseg.inference.checkpoint import describe
from medseg.inference.predictor import Predictor, make_segmenter
from medseg.io.atomic import write_json
from medseg.io.case import Dataset
from medseg.io.dataset import by_id, label_map, open_dataset
from medseg.io.labels import LabelMap
from medseg.io.splits import Split, make_split
from medseg.jobs.evaluate import evaluate_cases
from medseg.jobs.rundir import logged_to, make_run_dir, recorded, write_config, write_environment
from medseg.preprocessing.cache import cached
from medseg.preprocessing.fingerprint import Fingerprint, survey
from medseg.preprocessing.plan import make_plan
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.relaunch import rerunnable
from medseg.training.callbacks import Budget, Checkpoints, EpochLog
from medseg.training.data import SegmentationData
from medseg.training.module import SegmentationModule
from medseg.training.progress import Progress

log = logging.getLogger(__name__)

LIGHTNING_PRECISION: dict[str, Any] = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}


@dataclass(frozen=True)
class Material:
    """What there is to learn from."""

    dataset: Dataset
    classes: LabelMap
    split: Split
    fingerprint: Fingerprint


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train as the composed config says; return status, reason, score (mean test Dice, or validation Dice) and seconds.

    Raises:
        MedsegError: the data or the config cannot be used; nothing has been written then.
    """
    settings = resolve(config)
    material = gather_material(settings)
    run_dir = open_run(settings)
    config = config | {"run_dir": escape(str(run_dir))}
    if not is_first_process():  # a helper in distributed training, which the first process has started
        return {"status": "done", **fit(plan_run(config, run_dir, material), run_dir, material)}
    with logged_to(run_dir / "train.log"), recorded(run_dir) as result:
        settings = plan_run(config, run_dir, material)
        result |= fit(settings, run_dir, material)
        summary = test(settings, run_dir, material)
        result |= {"status": "done", "score": summary["mean"]["dice"] if summary else result["score"]}
        log.info("run directory: %s", run_dir)
    return result


def is_first_process() -> bool:
    """Tell the process that writes files from its helpers in distributed training."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def gather_material(settings: dict[str, Any]) -> Material:
    """Find the cases, split them, and read them all once."""
    dataset = open_dataset(settings["dataset"])
    classes = label_map(dataset)
    split = make_split(dataset.cases, **settings["split"], seed=settings["seed"])
    log.info(
        "%d cases: %d to train, %d to validate, %d to test; classes %s",
        len(dataset.cases), len(split.train), len(split.val), len(split.test), ", ".join(classes.names),
    )  # fmt: skip
    used = by_id(dataset.cases, split.train + split.val + split.test)
    return Material(dataset, classes, split, survey(used, classes))


def open_run(settings: dict[str, Any]) -> Path:
    """Make the run directory, or return that of the run to resume or to take part in."""
    if not is_first_process() or settings["resume"]:
        return Path(settings["run_dir"])
    return make_run_dir(settings, settings["dataset"]["name"])


def plan_run(config: dict[str, Any], run_dir: Path, material: Material) -> dict[str, Any]:
    """Return the config with every null decided, by the run's saved plan where it has one; write what was decided."""
    settings = resolve(config)
    saved = run_dir / "plan.json"
    if saved.is_file():
        plan = json.loads(saved.read_text())
    else:
        learned = {name: material.fingerprint.cases[name] for name in material.split.train + material.split.val}
        device = pick_device(settings["trainer"]["accelerator"])
        plan = make_plan(settings, Fingerprint(learned), material.classes.names, material.dataset.modality, device)
    if is_first_process():
        write_config(run_dir / "config.yaml", config)
        write_json(saved, plan)
        write_environment(run_dir / "environment.json")
        material.split.save(run_dir / "splits.json", material.fingerprint.hashes, settings["seed"])
    settings = resolve(config, plan)
    log.info(
        "plan: patch %s, batch %d, depth %s, base channels %s, spacing %s",
        settings["plan"]["patch_size"], settings["plan"]["batch_size"], settings["model"].get("depth"),
        settings["model"].get("base_channels"), settings["preprocessing"]["spacing"],
    )  # fmt: skip
    return settings


def fit(settings: dict[str, Any], run_dir: Path, material: Material) -> dict[str, Any]:
    """Train until the budget is used up; return why training ended and the best validation Dice."""
    torch.manual_seed(settings["seed"])  # the network's first weights; no other draw uses global state
    progress = make_progress(settings["trainer"])
    module = make_module(settings, material.classes, progress)
    checkpoints = Checkpoints(run_dir / "checkpoints")
    trainer = make_trainer(
        settings, run_dir, [checkpoints, *make_callbacks(settings, run_dir, material.classes, progress)]
    )
    last = run_dir / "checkpoints" / "last.ckpt"
    if settings["resume"] and not last.is_file():
        raise MedsegError(
            f"resume={settings['resume']}: {last} is not there; the run ended before its first epoch did."
        )
    data = make_data(settings, material)
    log.info(
        "training on %s in %s, %s parameters", trainer.strategy.root_device, trainer.precision, f"{count(module):,}"
    )
    with warnings.catch_warnings(), rerunnable(run_dir):
        warnings.filterwarnings(
            "ignore", ".*does not have many workers"
        )  # cutting patches out of the cache takes no time
        warnings.filterwarnings(
            "ignore", ".*LeafSpec", FutureWarning
        )  # Lightning 2.6 under torch 2.13, in its own code
        try:
            trainer.fit(module, data, ckpt_path=last if settings["resume"] else None, weights_only=True)
        except SystemExit as stop:  # Lightning makes an exit of Ctrl-C
            raise KeyboardInterrupt from stop
    return {"reason": stop_reason(trainer, progress), "score": checkpoints.best}


def make_progress(wanted: dict[str, Any]) -> Progress:
    """Return the budget that the config gives."""
    seconds = parse_duration(wanted["max_time"]) if wanted["max_time"] else None
    return Progress(
        max_steps=wanted["max_epochs"] * wanted["steps_per_epoch"] // wanted["accumulate"], max_seconds=seconds
    )


def make_module(settings: dict[str, Any], classes: LabelMap, progress: Progress) -> SegmentationModule:
    """Build network, loss, schedule and augmentation from the config."""
    augment = settings["augment"]
    spatial = [augment["spatial"]] if augment["spatial"] else []
    return SegmentationModule(
        build(settings["model"]),
        loss=build(settings["loss"]),
        optimizer=settings["optimizer"],
        schedule=build(settings["scheduler"]),
        augmentations=[build(spec) for spec in spatial + augment["intensity"]],
        segmenter=make_segmenter(settings["plan"], settings["inference"], settings["postprocess"]),
        progress=progress,
        classes=classes.names,
        content=describe(settings, classes.labels, settings["dataset"].get("channels")),
        seed=settings["seed"],
    )


def make_data(settings: dict[str, Any], material: Material) -> SegmentationData:
    """Preprocess the cases to train and validate on, as far as the cache does not have them, and serve them."""
    preprocessor, folder = Preprocessor(**settings["preprocessing"]), Path(settings["cache_dir"])
    train, val = (
        [cached(case, preprocessor, material.classes, folder) for case in by_id(material.dataset.cases, part)]
        for part in (material.split.train, material.split.val)
    )
    return SegmentationData(
        train,
        val,
        patch_size=settings["plan"]["patch_size"],
        batch_size=settings["plan"]["batch_size"],
        steps_per_epoch=settings["trainer"]["steps_per_epoch"],
        foreground=settings["trainer"]["foreground"],
        workers=settings["trainer"]["workers"],
        seed=settings["seed"],
        transforms=[build(spec) for spec in settings["augment"]["transforms"]],
    )


def make_callbacks(settings: dict[str, Any], run_dir: Path, classes: LabelMap, progress: Progress) -> list[Callback]:
    """Return what watches the budget and reports to the user."""
    wanted = settings["trainer"]
    callbacks: list[Callback] = [
        Budget(progress, interval=validation_interval(wanted), share=wanted["validation_share"]),
        EpochLog(run_dir / "metrics.csv", progress, classes.names),
    ]
    if wanted["patience"]:
        callbacks.append(EarlyStopping("val/dice", mode="max", patience=wanted["patience"], min_delta=0.0))
    if sys.stdout.isatty():
        callbacks.append(RichProgressBar())
    return callbacks


def make_trainer(settings: dict[str, Any], run_dir: Path, callbacks: list[Callback]) -> Trainer:
    """Build Lightning's Trainer."""
    wanted = settings["trainer"]
    device = pick_device(wanted["accelerator"])
    return Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=wanted["devices"],
        precision=LIGHTNING_PRECISION[pick_precision(wanted["precision"], device)],
        max_epochs=wanted["max_epochs"],
        gradient_clip_val=wanted["gradient_clip"],
        accumulate_grad_batches=wanted["accumulate"],
        deterministic=wanted["deterministic"],
        callbacks=callbacks,
        logger=build(settings["logger"]) if settings["logger"] else False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
        default_root_dir=run_dir,
    )


def validation_interval(wanted: dict[str, Any]) -> int | None:
    """Return after how many epochs to validate; None: as the time allows.

    A run that is not bound by time must come out the same twice, so its interval may not hang on the clock: fifty
    validations in all.
    """
    if wanted["validation_interval"] or wanted["max_time"]:
        return wanted["validation_interval"]
    return max(1, wanted["max_epochs"] // 50)


def count(module: SegmentationModule) -> int:
    """Return the number of the network's parameters."""
    return sum(parameter.numel() for parameter in module.network.parameters())


def stop_reason(trainer: Trainer, progress: Progress) -> str:
    """Say why training ended."""
    if progress.max_seconds is not None and progress.step < progress.max_steps and progress.fraction >= 1:
        return "max_time reached"
    return "max_epochs reached" if trainer.current_epoch >= (trainer.max_epochs or 0) else "no further gain"


def test(settings: dict[str, Any], run_dir: Path, material: Material) -> dict[str, Any] | None:
    """Test the best checkpoint as ``medseg eval`` would; None where no case was kept for testing."""
    cases = by_id(material.dataset.cases, material.split.test)
    if not cases:
        log.info("no test report: split.test is 0")
        return None
    device = str(pick_device(settings["trainer"]["accelerator"]))
    predictor = Predictor.load(
        run_dir, device=device, precision=settings["trainer"]["precision"], trust=[settings["model"]["_target_"]]
    )
    summary, _ = evaluate_cases(predictor, cases, material.classes, run_dir / "test", subset="test", examples=3)
    return summary
