"""From settings and a plan to the parts of a training: module, data, callbacks, Trainer."""

import math
from collections.abc import Collection, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from rich.console import Console
from torch import Tensor, nn

from medseg.augmentation import CoarseErrors, RandomNumbers
from medseg.augmentation.batch import Augmentation
from medseg.config.instantiate import build
from medseg.config.settings import (
    AugmentSettings,
    PretrainSettings,
    TrainerSettings,
    TrainingPlan,
    TrainingSettings,
    TrainSettings,
)
from medseg.errors import MedsegError
from medseg.inference.segmenter import make_segmenter
from medseg.inference.trained_model import make_scorer
from medseg.io.labels import LabelMap
from medseg.models.slices import context_in_volume, memory_format, patch_in_volume
from medseg.system.device import pick_precision
from medseg.system.distributed.ranks import Ranks
from medseg.training.callbacks.checkpoints import CheckpointFiles, Checkpoints, Selection
from medseg.training.callbacks.display import Display
from medseg.training.callbacks.early_end import Patience, Plateau
from medseg.training.callbacks.epoch_log import EpochLog, StepMetrics
from medseg.training.callbacks.progress import NEVER, Budget, Progress
from medseg.training.data.datamodule import SegmentationData
from medseg.training.data.patches import margin_for
from medseg.training.pretraining.module import ReconstructionModule
from medseg.training.processes import Processes
from medseg.training.segmentation import SegmentationModule
from medseg.training.trackers.tracker import make_trackers

LIGHTNING_PRECISION: dict[str, Any] = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}


def make_progress(trainer: TrainerSettings) -> Progress:
    """Return the budget of a training, in steps and in time."""
    steps = ceil(trainer.steps_per_epoch / trainer.accumulate)  # an epoch's last batch always ends in a step
    max_steps = trainer.epochs * steps if trainer.epochs else math.inf
    return Progress(max_steps=max_steps, max_seconds=trainer.max_time)


def make_module(
    settings: TrainSettings,
    plan: TrainingPlan,
    label_map: LabelMap,
    description: dict[str, Any],
    progress: Progress,
    selection: Selection,
    device: torch.device,
) -> SegmentationModule:
    """Build what learns to segment; its checkpoints hold the ``description`` (see ``medseg.inference.checkpoint``)."""
    return SegmentationModule(
        make_network(settings, plan),
        loss=build(settings.loss, "loss", settings.trust),
        scorer=make_scorer(plan, settings.inference, label_map),
        segmenter=make_segmenter(settings.inference, settings.postprocess, label_map),
        label_map=label_map,
        content=description,
        progress=progress,
        selection=selection,
        **in_common(settings, plan, device),
    )


def head_factor(settings: TrainSettings) -> float:
    """Return by how much faster the head of an untrained network learns.

    The steps of Adam are of one size, whatever the gradient; those of SGD are larger for a head as they are.
    """
    is_adam = settings.optimizer["_target_"] in ("torch.optim.Adam", "torch.optim.AdamW")
    return settings.trainer.head_factor or (10.0 if is_adam else 1.0)


def make_reconstruction(
    settings: PretrainSettings,
    plan: TrainingPlan,
    description: dict[str, Any],
    progress: Progress,
    selection: Selection,
    device: torch.device,
) -> ReconstructionModule:
    """Build what learns to reconstruct hidden parts of scans; for ``description`` see ``make_module``."""
    return ReconstructionModule(
        make_network(settings, plan),
        pretext=build(settings.pretext, "pretext", settings.trust),
        distance=settings.reconstruction,
        content=description,
        progress=progress,
        selection=selection,
        **in_common(settings, plan, device),
    )


def in_common(settings: TrainingSettings, plan: TrainingPlan, device: torch.device) -> dict[str, Any]:
    """Return what every training is given: optimizer, schedule, augmentation, and how the device is used."""
    augment, trainer, trust = settings.augment, settings.trainer, settings.trust
    is_scaled = pick_precision(trainer.precision, device) == "fp16"  # loss scaling: no fused step with clipping
    if is_scaled and settings.optimizer.get("fused"):
        raise MedsegError(
            "optimizer.fused=true: in fp16 a fused optimizer undoes the loss scaling by itself, after the gradient has"
            " been clipped by its scaled norm. Leave it out, or give trainer.precision=bf16 or fp32."
        )
    augmentations = make_augmentations(augment, trust)
    channels = len(settings.preprocessing.normalize or ())  # of the images; those of a first stage follow
    if isinstance(settings, TrainSettings) and settings.first_stage.use == "channels":
        first, errors = 1 if augment.spatial else 0, settings.first_stage.errors
        augmentations[first:] = [on_channels(each, slice(channels)) for each in augmentations[first:]]
        if errors:
            simulated = CoarseErrors(morphology=errors, removal=errors / 2)
            augmentations.append(on_channels(simulated, slice(channels, None)))
    return {
        "plan": plan,
        "optimizer": settings.optimizer,
        "trust": trust,
        "schedule": build(settings.scheduler, "scheduler", trust),
        "augmentations": augmentations,
        "averaging": trainer.averaging,
        "compiled": bool(trainer.compile),
        "fused": device.type in ("cpu", "cuda") and not is_scaled,
        "memory_format": memory_format(trainer, plan),
        "seed": settings.seed,
    }


def make_augmentations(augment: AugmentSettings, trust: Collection[str]) -> list[Augmentation]:
    """Build what is done to batches, the spatial transform first, which cuts off the margin that patches come with."""
    spatial = [build(augment.spatial, "augment.spatial", trust)] if augment.spatial else []
    return [*spatial, *(build(spec, "augment.intensity", trust) for spec in augment.intensity)]


def on_channels(augmentation: Augmentation, channels: slice) -> Augmentation:
    """Return an augmentation of these channels alone."""

    def augment(image: Tensor, label: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        image[:, channels], label = augmentation(image[:, channels], label, random)
        return image, label

    return augment


def make_network(settings: TrainingSettings, plan: TrainingPlan) -> nn.Module:
    """Build the network in the layout that the settings want."""
    network: nn.Module = build(settings.model, "model", settings.trust)
    return network.to(memory_format=memory_format(settings.trainer, plan))  # type: ignore[call-overload]


def make_data(
    settings: TrainingSettings,
    plan: TrainingPlan,
    train: Sequence[Path],
    val: Sequence[Path],
    kind: type[SegmentationData] = SegmentationData,
) -> SegmentationData:
    """Serve preprocessed files, in patches with the margin that the spatial augmentation can use."""
    spatial, trust = settings.augment.spatial, settings.trust
    margin = margin_for(build(spatial, "augment.spatial", trust) if spatial else None, train, plan)
    return kind(
        train,
        val,
        patch_size=patch_in_volume(plan),
        context=[inner + outer for inner, outer in zip(context_in_volume(plan), margin, strict=True)],
        batch_size=plan.batch_size,
        steps_per_epoch=settings.trainer.steps_per_epoch,
        foreground=settings.trainer.foreground,
        workers=settings.trainer.workers,
        seed=settings.seed,
        transforms=[build(spec, "augment.transforms", trust) for spec in settings.augment.transforms],
    )


def make_callbacks(
    trainer: TrainerSettings,
    run_dir: Path,
    classes: Sequence[str],
    pictures: Callback | None,
    progress: Progress,
    selection: Selection,
    console: Console | None = None,
) -> list[Callback]:
    """Return what watches the budget, keeps checkpoints and reports to the user.

    ``classes`` are those that are scored one by one; a ``console`` is drawn on.
    """
    step_metrics = StepMetrics()
    epochs = EpochLog(run_dir / "metrics.csv", progress, selection, step_metrics, classes)
    callbacks: list[Callback] = [
        Budget(
            progress,
            interval=trainer.validation_interval,
            share=trainer.validation_share,
            n_cases=trainer.validation_cases,
        ),
        step_metrics,
        epochs,
        Checkpoints(run_dir / "checkpoints", selection),
    ]
    if pictures:
        callbacks.append(pictures)
    if trainer.patience:
        # Counts validations: the end of an epoch without one would look at an old score again.
        callbacks.append(
            Patience(
                epochs.names.smoothed.tag,
                mode="min" if selection.lowest else "max",
                patience=trainer.patience,
                min_delta=0.0,
                check_on_train_epoch_end=False,
            )
        )
    callbacks.append(Plateau(progress, selection, trainer.min_gain))
    if console:
        callbacks.append(Display(console, progress, selection, step_metrics, epochs))
    return callbacks


def make_trainer(settings: TrainingSettings, run_dir: Path, callbacks: list[Callback], ranks: Ranks) -> Trainer:
    """Build Lightning's Trainer.

    Raises:
        MedsegError: the devices that the config wants are not there.
    """
    trainer = settings.trainer
    device = ranks.device
    try:
        return Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            # To Lightning each process is a machine with one device
            devices=1 if device.index is None else [device.index],
            num_nodes=ranks.size,
            strategy="ddp" if ranks.size > 1 else "auto",
            precision=LIGHTNING_PRECISION[pick_precision(trainer.precision, device)],
            max_epochs=settings.limits.epochs or -1,
            gradient_clip_val=trainer.gradient_clip,
            accumulate_grad_batches=trainer.accumulate,
            deterministic=trainer.deterministic,
            benchmark=device.type == "cuda" and not trainer.deterministic,  # patches are all of one size
            callbacks=callbacks,
            plugins=[CheckpointFiles(), Processes(ranks)],
            logger=make_trackers(settings.logger if ranks.is_first else {}, settings.trust),
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            check_val_every_n_epoch=NEVER,  # until the budget says so: it is not known yet which cases validate
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=run_dir,
        )
    except MisconfigurationException as error:
        raise MedsegError(f"trainer: {error}") from error
