"""Parts of medseg on the pretended GPU; ``python gpu_parts.py FILE GROUP...`` writes into a JSON file what each did.

A part is a training of a few steps on random patches, with Lightning and a validation, or a whole command.
"""

from pretended_gpu import KIND, LEDGER, pretended  # before torch

# isort: split
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from brats_phantom import write_brats
from lightning.pytorch import LightningDataModule
from plain_settings import composed
from small_networks import small, small_plan
from torch.utils.data import DataLoader

from medseg.cli.command_line import main
from medseg.config.check import planned
from medseg.config.schema import CONF, typed
from medseg.config.settings import PretrainSettings, TrainingPlan, TrainSettings
from medseg.io.labels import IGNORE, LabelMap
from medseg.models.slices import context_in_volume, patch_in_volume
from medseg.preprocessing.geometry import Geometry
from medseg.system.device import pick_devices
from medseg.system.distributed.ranks import Ranks
from medseg.training.assembly import (
    make_callbacks,
    make_module,
    make_progress,
    make_reconstruction,
    make_trainer,
)
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.module import TrainingModule
from medseg.training.optim.ema import average_into
from medseg.training.probe import Probe
from medseg.training.segmentation import SegmentationModule

STEPS = 3
NETWORKS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
LOSSES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
REGIONS = LabelMap(
    {"background": 0, "edema": 1, "core": 2, "enhancing": 3},
    regions={"WT": ["edema", "core", "enhancing"], "TC": ["core", "enhancing"], "ET": ["enhancing"]},
)


@dataclass
class Part:
    """What a part did: its error; the waits of a step, by place; the operations on the device; the bytes of a step."""

    error: str = ""
    waits: dict[str, int] = field(default_factory=dict)
    operations: dict[str, str] = field(default_factory=dict)
    doubles: dict[str, str] = field(default_factory=dict)
    peak: int = 0
    estimate: int | None = None


def run_part(work: Callable[[], int | None]) -> Part:
    """Run a part; of its steps the last but one is told of, as the last also ends the epoch."""
    gc.collect()
    LEDGER.clear()
    before, part = LEDGER.bytes, Part()
    waits, peaks, begin = [], [], TrainingModule.on_train_batch_start

    def begin_step(module: TrainingModule, batch: Any, batch_idx: int) -> None:
        waits.append(dict(LEDGER.waits))
        peaks.append(LEDGER.peak - before)
        LEDGER.waits.clear()
        LEDGER.peak = LEDGER.bytes
        begin(module, batch, batch_idx)

    # A module stays on the device at the end: parameters that it holds twice could not be moved back.
    stays = {"on_train_batch_start": begin_step, "cpu": lambda module: module}
    try:
        with patch.multiple(TrainingModule, **stays):
            part.estimate = work()
    except Exception as error:  # whatever it is, it is told of
        part.error = f"{type(error).__name__}: {error}" + (f" ({error.__cause__})" if error.__cause__ else "")
    part.waits, part.peak = (waits[-1], peaks[-1]) if waits else ({}, 0)
    part.operations, part.doubles = dict(LEDGER.operations), dict(LEDGER.doubles)
    return part


class RandomPatches(LightningDataModule):
    """The same batch in each step, and one case to validate on."""

    def __init__(self, batch: dict[str, Any], case: dict[str, Any]) -> None:
        super().__init__()
        self.batch, self.case = batch, case
        self.batch_size, self.val_files = 2, list[Path]()  # nothing to divide the validations by

    def examples(self) -> Iterator[dict[str, Any]]:
        yield self.batch

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([self.batch] * STEPS, batch_size=None, collate_fn=dict)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([self.case], batch_size=None, collate_fn=dict)  # type: ignore[arg-type]


def train(
    *arguments: str,
    model: str = "unet",
    dims: int = 3,
    labels: LabelMap | int = 3,
    margin: int = 2,
    is_counted: bool = False,
    **plan_values: Any,
) -> int | None:
    """Train a small network for an epoch, as ``medseg train`` or with ``pretext=…`` ``medseg pretrain`` would.

    ``labels`` are classes or regions, or a number of classes. Returns the bytes that a step is estimated to take, where
    they are to be counted.
    """
    torch.manual_seed(0)
    label_map = labels
    if isinstance(label_map, int):
        label_map = LabelMap({"background": 0, **{f"class_{index}": index for index in range(1, label_map)}})
    is_pretext = any(argument.startswith("pretext=") for argument in arguments)
    command, dataset = ("pretrain", "scans") if is_pretext else ("train", "folder")
    limits = ("trainer.max_epochs=1", f"trainer.steps_per_epoch={STEPS}", "logger=none", "trainer.compile=false")
    limits += (f"trainer.accelerator={KIND}", "trainer.averaging=0.5", "trainer.validation_interval=1")
    limits += () if any("channels_last" in argument for argument in arguments) else ("trainer.channels_last=false",)
    config = deepcopy(composed(command, f"dataset={dataset}", "dataset.root=x", f"model={model}", *limits, *arguments))
    config["model"] |= small(config["model"], model) | {"spatial_dims": dims}
    plan = small_plan(dims, config["plan"]["divisor"] or 4) | {"slice_axis": None, "batch_size": 2}
    plan |= {"out_channels": 2 if is_pretext else len(label_map.outputs), "mirror_axes": list(range(dims))}
    overlay = {"plan": plan | plan_values, "preprocessing": config["preprocessing"] | {"normalize": ["zscore"] * 2}}
    settings_of = typed(PretrainSettings if is_pretext else TrainSettings, planned(config, overlay))
    plan_of = typed(TrainingPlan, planned(config, overlay)["plan"])

    shape = [patch + 2 * c for patch, c in zip(patch_in_volume(plan_of), context_in_volume(plan_of), strict=True)]
    whole = [size + 2 * (margin if axis != plan_of.slice_axis else 0) for axis, size in enumerate(shape)]
    dims = len(shape)
    annotated = torch.ones(2, len(label_map.names), dtype=torch.bool)
    label = torch.randint(len(label_map.names), (2, 1, *whole), dtype=torch.uint8)
    label[:, :, :3] = IGNORE
    channels = plan_of.in_channels // (2 * plan_of.context + 1)
    batch = {"image": torch.randn(2, channels, *whole), "label": label, "annotated": annotated}
    geometry = Geometry(  # flipped, cropped, not resampled
        native_shape=tuple(size + 4 for size in shape),
        order=tuple(range(dims)),
        flips=(True, *[False] * (dims - 1)),
        crop=tuple((1, size + 3) for size in shape),
        shape=tuple(size + 2 for size in shape),
    )
    native = geometry.native_shape
    case = {"image": torch.randn(channels, *geometry.shape), "geometry": geometry.to_dict(), "index": 0}
    case |= {"spacing": [1.0] * dims, "unit": "mm", "voxel_volume": 1.0, "annotated": annotated[0]}
    case |= {"truth": torch.zeros(native, dtype=torch.uint8).numpy()}
    if is_pretext:
        case = {"image": torch.randn(2, 2, *shape), "number": 0}
    progress, selection, ranks = make_progress(settings_of.trainer), Selection(), Ranks(devices=pick_devices("auto", 1))
    if is_pretext:
        module: TrainingModule = make_reconstruction(settings_of, plan_of, {}, progress, selection, ranks.device)
    else:
        module = make_module(settings_of, plan_of, label_map, {}, progress, selection, ranks.device)
    with TemporaryDirectory() as folder:
        names = [] if is_pretext else list(label_map.reported)
        callbacks = make_callbacks(settings_of.trainer, Path(folder), names, None, progress, selection)
        make_trainer(settings_of, Path(folder), callbacks, ranks).fit(module, RandomPatches(batch, case))
    assert len(selection.scores) == 1, "it was validated"
    if not is_counted:
        return None
    return Probe(config, torch.device(KIND, 0), label_map).memory(overlay)


BRATS = ("dataset=brats", "dataset.root=brats")
COMMAND = (
    *("model.depth=2", "model.base_channels=4", "plan.batch_size=2", "trainer.max_epochs=1", "trainer.max_time=null"),
    *(f"trainer.steps_per_epoch={STEPS}", f"trainer.accelerator={KIND}", "trainer.compile=false", "trainer.workers=0"),
    *("trainer.channels_last=false", "logger=none"),
)
PHANTOM = ("dataset.cases=8", "dataset.size=24", "dataset.root=phantom")
SCANS = "phantom/3d-1-channels-8-cases-size-24-seed-0/imagesTs"


def command(*arguments: str) -> None:
    """Run a command line, which must end well."""
    assert main(list(arguments)) == 0


def brats() -> None:
    """Train by regions on a folder of cases named as BraTS names them."""
    write_brats(Path("brats"), "brats2021", cases=8, size=24, seed=0)
    command("train", *BRATS, *COMMAND, "run_dir=regions")


def older_gpu() -> int | None:
    """Train as a V100 or T4 does, in fp16, with a step whose loss overflows: it does not count into the average."""
    loss_of = SegmentationModule.loss_of

    def overflowing(module: SegmentationModule, batch: dict[str, Any], step: int, *others: Any) -> torch.Tensor:
        return loss_of(module, batch, step, *others) * (float("inf") if step == 1 else 1.0)

    with (
        patch.object(torch.cuda, "is_bf16_supported", lambda *_, **__: False),
        patch.object(SegmentationModule, "loss_of", overflowing),
        patch("medseg.training.module.average_into", wraps=average_into) as averaging,
    ):
        estimate = train("trainer.precision=auto")
    assert averaging.call_count == STEPS - 1
    return estimate


def measured(model: str, classes: int) -> int | None:
    """Train on larger patches, whatever comes of it: a CPU's bf16 convolutions now and then make a gradient of NaN."""
    with patch("medseg.training.module.check_steps", lambda *_: False):
        side = 64 if model in ("swin_unetr", "vnet") else 32  # the least of which something is left at the bottom
        return train(*deep(model), model=model, labels=classes, patch_size=[side] * 3, is_counted=True)


AUGMENTATIONS = {
    "elastic": ("augment.spatial.elastic_probability=1", "augment.spatial.rotation_probability=1"),
    **{name: (f"augment={name}",) for name in ("default", "light", "none", "spatial")},
}


def deep(model: str) -> tuple[str, ...]:
    """Return the setting of deep supervision, where a network has it."""
    node = composed("train", "dataset=folder", "dataset.root=x", f"model={model}")["model"]
    return ("model.deep_supervision=true",) if "deep_supervision" in node else ()


GROUPS: dict[str, dict[str, Callable[[], int | None]]] = {
    "commands": {
        "train by classes": lambda: command("train", *PHANTOM, *COMMAND, "run_dir=classes"),
        "train by regions": brats,
        "predict": lambda: command("predict", "checkpoint=classes", f"input={SCANS}", "output=masks", f"device={KIND}"),
    },
    "networks": {
        f"{model} {dims}D": partial(train, *deep(model), model=model, dims=dims)
        for model in NETWORKS
        for dims in (2, 3)
    },
    "losses": {
        f"{loss} by {kind}": partial(train, f"loss={loss}", labels=labels)
        for loss in LOSSES
        for kind, labels in (("classes", 3), ("regions", REGIONS))
    },
    "augmentations": {
        f"{name} {dims}D": partial(train, *arguments, dims=dims)
        for name, arguments in AUGMENTATIONS.items()
        for dims in (2, 3)
    }
    | {f"errors of a first stage {dims}D": partial(train, in_channels=4, dims=dims) for dims in (2, 3)},
    "pretexts": {
        f"{pretext} {dims}D": partial(train, *arguments, "model.deep_supervision=true", dims=dims)
        for pretext, arguments in {
            "masked": ("pretext=masked", "pretext.block=2"),
            "genesis": ("pretext=genesis",),
        }.items()
        for dims in (2, 3)
    },
    "precision": {
        **{
            f"{optimizer} {precision}": partial(train, f"optimizer={optimizer}", f"trainer.precision={precision}")
            for optimizer in ("adamw", "adam", "sgd")
            for precision in ("bf16", "fp16", "fp32")
        },
        "an older GPU's fp16": older_gpu,
        "accumulated": partial(train, "trainer.accumulate=2"),
    },
    "layouts": {
        **{f"channels last {dims}D": partial(train, "trainer.channels_last=true", dims=dims) for dims in (2, 3)},
        "2D on slices": partial(train, "plan.context=1", dims=2, slice_axis=2, in_channels=6),
    },
    "deterministic": {
        f"{model} {dims}D": partial(train, *deep(model), "trainer.deterministic=true", model=model, dims=dims)
        for model in NETWORKS
        for dims in (2, 3)
    },
    "memory": {
        f"{model} {classes} classes": partial(measured, model, classes)
        for model in NETWORKS
        for classes in (3, 25, 105)
    },
}

if __name__ == "__main__":
    file, *groups = sys.argv[1:]
    only = os.environ.get("ONLY", "")
    with pretended(), TemporaryDirectory() as folder, chdir(folder):
        parts = {name: part for group in groups for name, part in GROUPS[group].items() if only in name}
        done = {name: asdict(run_part(work)) for name, work in parts.items()}
    Path(file).write_text(json.dumps(done))
