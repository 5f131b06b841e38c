"""A folder of nnU-Net's results, such as ``Dataset004_X/nnUNetTrainer__nnUNetPlans__3d_fullres``, as models."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from medseg.config.settings import InferenceSettings, NetworkPlan, PostprocessSettings
from medseg.errors import MedsegError
from medseg.inference.nnunet.network import make_network, read_trained
from medseg.inference.nnunet.plans import plan_of, read_json
from medseg.inference.nnunet.postprocessing import largest_of
from medseg.inference.nnunet.preprocessing import preparation_of, weights
from medseg.inference.trained_model import Model
from medseg.io.labels import LabelMap
from medseg.io.layouts.decathlon_json import FILE, in_order
from medseg.io.layouts.nnunet_raw import classes_of
from medseg.models.slices import logits_of, patch_in_volume

log = logging.getLogger(__name__)

PLANS = "plans.json"
ALL = "fold_all"
FILES = ("checkpoint_final.pth", "checkpoint_best.pth")
DEFAULTS = InferenceSettings(overlap=0.5, tta=True, threshold=None, batch_size=1)
"""nnU-Net's prediction: windows half a patch apart, mirrored along every axis that was mirrored in training."""
NO_POSTPROCESSING = PostprocessSettings(largest=False, min_ml=0.0, min_voxels=0, fill_holes=False, smooth_mm=0.0)

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
TRAINERS = {"nnUNetTrainer", "nnUNet_Trainer_BS8", *("nnUNetTrainer" + variant for variant in VARIANTS.split())}
"""Those of nnU-Net 2.8.1, without those of its transformers."""


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
        if fold.trainer not in TRAINERS and fold.trainer not in trust:
            raise MedsegError(
                f"{fold.path}: trained by {fold.trainer}, which is none of nnU-Net's trainers for its U-Nets. A trainer"
                " can change what the network computes, and its class is not here to be read. If you know that this one"
                f" changes neither layers nor activations nor preprocessing, say so: trust=[{fold.trainer}]."
            )
    plan = plan_of(read_json(folder / PLANS), folds[0].configuration, folder / PLANS)
    dataset = read_json(folder / FILE)
    label_map = label_map_of(dataset, folder)
    channels = in_order(dataset.get("channel_names") or dataset.get("modality"))
    if not channels:
        raise MedsegError(f"{folder / FILE}: channel_names must name the channels.")
    suffixes = [[f"_{channel:04d}"] for channel in range(len(channels))]
    if len(channels) == 1 or plan.reader == "NaturalImage2DIO":  # a colour image is one file of three channels
        suffixes = [["_0000", ""]]
    names = [file.parent.name.removeprefix("fold_") for file in files]
    preprocessor = preparation_of(plan)
    components = largest_of(folder, names, label_map)
    beside = int(plan.slices)  # axes before those of a 2D network that goes through volumes
    models = []
    for fold in folds:
        is_batch_norm = fold.trainer == BATCH_NORM
        n_outputs = len(label_map.outputs)
        network = make_network(plan, preprocessor.n_channels, n_outputs, fold.weights, batch_norm=is_batch_norm)
        seen = NetworkPlan(
            patch_size=list(plan.settings["patch_size"]),
            mirror_axes=[axis + beside for axis in folds[0].mirror_axes],  # of the first fold, as by nnU-Net
            slice_axis=0 if plan.slices else None,
            context=0,
        )
        model = Model(
            path=fold.path,
            network=network,
            logits=logits_of(network, seen),
            preprocessor=preprocessor,
            patch_size=patch_in_volume(seen),
            mirror_axes=seen.mirror_axes,
            averaging="logits",
            weighting=weights,
            label_map=label_map,
            endings=suffixes,
            # channels of other origins are used, as by nnU-Net
            reading={"geometry": "warn", "reference": 0, "orientation": "apply"},
            precision="fp32",
            inference=DEFAULTS,
            postprocess=NO_POSTPROCESSING,
            largest_of=components,
        )
        models.append(model)
    return models


def checkpoints(path: Path) -> list[Path]:
    """Return the checkpoint file of each fold: all that are numbered, or else the one of all cases.

    Of a fold whose training has not ended it is the best so far, with a warning.

    Raises:
        MedsegError: there is none.
    """
    if path.suffix == ".pth":
        return [path]
    folds = [path] if path.name.startswith("fold_") else sorted(path.glob("fold_[0-9]*")) or [path / ALL]
    files = []
    for fold in folds:
        file = next((fold / name for name in FILES if (fold / name).is_file()), None)
        if file is None:
            log.warning("%s: left out, for it has no %s.", fold, " or ".join(FILES))
            continue
        if file.name != FILES[0]:
            log.warning("%s: its training has not ended; %s is taken.", fold, file.name)
        files.append(file)
    if not files:
        entries = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
        raise MedsegError(f"checkpoint={path}: no fold with {' or '.join(FILES)} here. There is {entries}.")
    return files


def label_map_of(dataset: dict[str, Any], folder: Path) -> LabelMap:
    """Return the classes; regions are written one over the other as they are, for nnU-Net does not make them nest."""
    if not isinstance(dataset.get("labels"), dict):
        raise MedsegError(f"{folder / FILE}: labels must be a mapping of class names to values.")
    labels, regions, order = classes_of(dataset, folder)
    return LabelMap(labels, regions, order, nested=regions is None)
