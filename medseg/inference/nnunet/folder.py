"""A folder of nnU-Net's results, such as ``Dataset004_X/nnUNetTrainer__nnUNetPlans__3d_fullres``, as models."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.inference.nnunet.network import Trained, make_network, read_trained
from medseg.inference.nnunet.plans import Plan, read_json, read_plan
from medseg.inference.nnunet.postprocessing import largest_of
from medseg.inference.nnunet.preprocessing import preparation_of, weights
from medseg.inference.trained_model import Model
from medseg.io.labels import LabelMap
from medseg.io.layouts.dataset_json import FILE, in_order
from medseg.io.layouts.nnunet_raw import classes_of
from medseg.models.slices import logits_of

log = logging.getLogger(__name__)

PLANS = "plans.json"
ALL = "fold_all"
FILES = ("checkpoint_final.pth", "checkpoint_best.pth")
DEFAULTS = {"overlap": 0.5, "tta": True, "threshold": None, "batch_size": 1}
"""nnU-Net's prediction: windows half a patch apart, mirrored along every axis that was mirrored in training."""
NO_POSTPROCESSING = {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0}


def is_nnunet(path: Path) -> bool:
    """Tell whether a path is a trained model of nnU-Net v2, a fold of one, or a checkpoint file in a fold."""
    folder = model_folder(path)
    return all((folder / name).is_file() for name in (PLANS, FILE))


def model_folder(path: Path) -> Path:
    """Return the folder of the model that a path is, or is a fold or a fold's file of."""
    fold = path.parent if path.suffix == ".pth" else path
    return fold.parent if fold.name.startswith("fold_") else fold


def read_nnunet(path: Path, trust: Collection[str] = ()) -> list[Model]:
    """Read the folds of a trained model, the members of an ensemble.

    Args:
        path: the model's folder, one fold's, or a checkpoint file in it.
        trust: names of trainers that are known to leave the network as it is, beside nnU-Net's own.

    Raises:
        MedsegError: no fold is there, a file is missing or damaged, or the model is of a kind that is not read.
    """
    folder, files = model_folder(path), checkpoints(path)
    folds = [read_trained(file) for file in files]
    for fold in folds:
        check_trainer(fold.trainer, fold.path, trust)
    plan = read_plan(folder / PLANS, folds[0].configuration)
    dataset = read_json(folder / FILE)
    label_map = label_map_of(dataset, folder)
    names = [file.parent.name.removeprefix("fold_") for file in files]
    common = {
        "preprocessor": preparation_of(plan),
        "label_map": label_map,
        "endings": endings_of(plan, len(channels_of(dataset, folder))),
        "postprocess": {**NO_POSTPROCESSING, "largest_of": largest_of(folder, names, label_map)},
    }
    return [model_of(fold, plan, folds[0], common) for fold in folds]


def checkpoints(path: Path) -> list[Path]:
    """Return the checkpoint file of each fold: all that are numbered, or else the one of all cases."""
    if path.suffix == ".pth":
        return [path]
    folds = [path] if path.name.startswith("fold_") else sorted(path.glob("fold_[0-9]*")) or [path / ALL]
    found = [file for fold in folds if (file := checkpoint_of(fold))]
    if not found:
        there = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
        raise MedsegError(f"checkpoint={path}: no fold with {' or '.join(FILES)} here. There is {there}.")
    return found


def checkpoint_of(fold: Path) -> Path | None:
    """Return the fold's final checkpoint, or else its best so far, with a word."""
    found = next((fold / name for name in FILES if (fold / name).is_file()), None)
    if found is None:
        log.warning("%s: left out, for it has no %s.", fold, " or ".join(FILES))
    elif found.name != FILES[0]:
        log.warning("%s: its training has not ended; %s is taken.", fold, found.name)
    return found


def model_of(fold: Trained, plan: Plan, first: Trained, common: dict[str, Any]) -> Model:
    """Return one fold as a model. Mirrored are, as nnU-Net does, the axes of the first fold."""
    network = make_network(
        plan,
        common["preprocessor"].n_channels,
        len(common["label_map"].outputs),
        fold.weights,
        batch_norm=fold.trainer == BATCH_NORM,
    )
    beside = int(plan.slices)  # axes before those of a 2D network that goes through volumes
    return Model(
        path=fold.path,
        network=network,
        logits=logits_of(network, {"slice_axis": 0 if plan.slices else None, "context": 0}),
        patch_size=[1] * beside + list(plan.settings["patch_size"]),
        mirror_axes=[axis + beside for axis in first.mirror_axes],
        averaging="logits",
        weighting=weights,
        # as nnU-Net takes channels of other origins
        reading={"geometry": "warn", "reference": 0, "orientation": "apply"},
        precision="fp32",
        inference=DEFAULTS,
        **common,
    )


def label_map_of(dataset: dict[str, Any], folder: Path) -> LabelMap:
    """Return the classes; regions are painted one over the other as they are, for nnU-Net does not make them nest."""
    if not isinstance(dataset.get("labels"), dict):
        raise MedsegError(f"{folder / FILE}: labels must be a mapping of class names to values.")
    labels, regions, order = classes_of(dataset, folder)
    return LabelMap(labels, regions, order, nested=regions is None)


def channels_of(dataset: dict[str, Any], folder: Path) -> Sequence[str]:
    """Return the names of the channels."""
    names = in_order(dataset.get("channel_names") or dataset.get("modality"))
    if not names:
        raise MedsegError(f"{folder / FILE}: channel_names must name the channels.")
    return names


def endings_of(plan: Plan, count: int) -> list[list[str]]:
    """Return the endings of the channels' file names; a colour picture is one file of three channels."""
    if count == 1 or plan.reader == "NaturalImage2DIO":
        return [["_0000", ""]]
    return [[f"_{channel:04d}"] for channel in range(count)]


BATCH_NORM = "nnUNetTrainerBN"
"""The one that replaces the plan's norm by a batch norm."""

VARIANTS = """
Adam Adam1en3 Adam3en4 Adan Adan1en1 Adan1en3 Adan3en4 AdanCosAnneal BN Benchmark_5epochs
Benchmark_5epochs_noDataLoading CELoss CELoss_5epochs CosAnneal DA5 DA5Segord0 DA5_10epochs DA5ord0
DiceCELoss_noSmooth DiceLoss DiceTopK10Loss NoDA NoDeepSupervision NoMirroring Topk10Loss Topk10LossLS01 VanillaAdam
VanillaAdam1en3 VanillaAdam3en4 _100epochs _10epochs _1epoch _2000epochs _2000epochs_NoMirroring _20epochs
_250epochs _250epochs_NoMirroring _4000epochs _4000epochs_NoMirroring _500epochs _50epochs _5epochs _750epochs
_8000epochs _8000epochs_NoMirroring _DASegOrd0 _DASegOrd0_NoMirroring _noDummy2DDA _onlyMirror01
_onlyMirror01_1500ep _onlyMirror01_DA5 _onlyMirror01_DASegOrd0 _probabilisticOversampling
_probabilisticOversampling_010 _probabilisticOversampling_033 _warmup
"""
KNOWN = {"nnUNetTrainer", "nnUNet_Trainer_BS8", *("nnUNetTrainer" + variant for variant in VARIANTS.split())}
"""Those of nnU-Net 2.8.1, without those of its transformers."""


def check_trainer(name: str, path: Path, trust: Collection[str]) -> None:
    """Refuse a trainer of which nobody knows whether it changes the network, unless it is trusted."""
    if name not in KNOWN and name not in trust:
        raise MedsegError(
            f"{path}: trained by {name}, which is none of nnU-Net's trainers for its U-Nets. A trainer can change what"
            " the network computes, and its class is not here to be read. If you know that this one changes neither"
            f" layers nor activations nor preprocessing, say so: trust=[{name}]."
        )
