"""What a training may begin with: a trained network of medseg's, of nnU-Net's, or a file of weights.

Files are read with ``weights_only=True``, which runs no code of theirs.
"""

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg.config.instantiate import build, unknown_targets
from medseg.config.untrusted import check_settings, read_json_object
from medseg.errors import MedsegError
from medseg.inference.checkpoint import checked, locate, network_weights
from medseg.inference.nnunet.folder import checkpoints, is_nnunet, label_map_of
from medseg.inference.nnunet.network import numbers_of_numpy, our_name, unet_arguments, with_biases, without_weights
from medseg.inference.nnunet.plans import Plan, plan_of
from medseg.inference.nnunet.preprocessing import schemes_of
from medseg.io.datasets.splits import SUBSETS, parts_by_hash
from medseg.io.labels import LabelMap
from medseg.models.weight_checks import NESTS, check_finite, limit_parameters, weights_in
from medseg.system.torch_files import load_safely

log = logging.getLogger(__name__)

SCHEMES = {"ZScoreNormalization": "zscore", "CTNormalization": "ct", "NoNormalization": "none"}
"""nnU-Net's normalisations that are not to the range 0 to 1."""

USUAL_AXES = (2, 1, 0)
"""Axes of nnU-Net's 3D networks in our order, unless a plan says otherwise."""

SPLIT_CURE = "Restore it, or take the weights without their run: copy the .ckpt file to another folder and give that."

REPORT = "finetune.json"
"""What a run that began with other weights says of them, in its directory."""


@dataclass(frozen=True)
class Source:
    """A trained network, as far as a file tells of it.

    ``outputs`` are the classes or regions that the channels of its head stand for, empty where these are none of a
    segmentation, None where they are not known. ``settings`` has the nodes ``model``, ``plan`` and ``preprocessing`` of
    a config, with what is known. ``split`` is the part that each scan was in, by the hash of the scan's voxels; None:
    not known. ``before`` is the same of those that it began with itself. ``plan_file`` is its whole plan, where that is
    kept.
    """

    path: Path
    weights: dict[str, Tensor]
    outputs: tuple[str, ...] | None = None
    regions: bool = False
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    split: dict[str, str] | None = None
    before: dict[str, str] = field(default_factory=dict)
    plan_file: Path | None = None

    @property
    def seen(self) -> dict[str, str]:
        """The part of every scan that the weights are known to have seen."""
        return {**self.before, **(self.split or {})}


def read_source(path: str | Path) -> Source:
    """Read a run's directory or checkpoint, nnU-Net's model folder or ``.pth`` file, or a state dict.

    Raises:
        MedsegError: there is nothing that can be read safely, or it holds no weights, or some that are not finite.
    """
    path = Path(path)
    if path.is_dir() and is_nnunet(path):
        folds = checkpoints(path)
        if len(folds) > 1:
            log.info("%s has %d folds; %s is taken", path, len(folds), folds[0])
        path = folds[0]
    file = locate(path, "finetune.checkpoint")
    advice = (
        " Give the directory of a run, a .ckpt file, nnU-Net's folder or .pth file, or a state dict that torch.save"
        " wrote."
    )
    with torch.serialization.safe_globals(numbers_of_numpy()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*pickle protocol", UserWarning)  # an error follows
        content = load_safely(file, name=f"finetune.checkpoint={file}", advice=advice)
    if isinstance(content, Mapping) and "medseg" in content:
        source = of_medseg(file, content)
    elif isinstance(content, Mapping) and "network_weights" in content:
        source = of_nnunet(file, content)
    else:
        source = Source(file, weights_in(content))
    if not source.weights:
        is_mapping = isinstance(content, Mapping)
        names = f"the keys {', '.join(map(str, content))[:200]}" if is_mapping and content else type(content).__name__
        raise MedsegError(
            f"finetune.checkpoint={file}: no weights in it, but {names}. They are looked for at the top and under"
            f" {', '.join(NESTS)}."
        )
    check_finite(file, source.weights, "finetune.checkpoint")
    return source


def of_medseg(file: Path, raw: Mapping[str, Any]) -> Source:
    """Return what a checkpoint of medseg's, and the run's directory round it, tell."""
    content = checked(raw["medseg"], file, "a PyTorch file")
    if (content["config"].get("first_stage") or {}).get("use") == "channels":
        raise MedsegError(
            f"finetune.checkpoint={file}: its network takes the probabilities of a first stage as channels, and would"
            " see others in their place. Begin with a run of one stage, with experiment=roi or without."
        )
    classes = content["classes"] or None  # none: pre-trained without
    label_map = LabelMap(classes, content["regions"], content["region_order"]) if classes else None
    run, weights, model = file.parent.parent, network_weights(raw.get("state_dict", {})), content["config"]["model"]
    trust = ()  # of a network that medseg does not ship a config takes no more than what the user names, too
    if not any(unknown_targets(model, "model", trust)):
        with torch.random.fork_rng(devices=[]), limit_parameters(weights, file):
            build(model, "model", trust)
    return Source(
        path=file,
        weights=weights,
        outputs=label_map.outputs if label_map else (),
        regions=bool(content["regions"]),
        settings={node: content["config"][node] for node in ("model", "plan", "preprocessing")},
        split=split_of(run),
        before=seen_before(run),
        plan_file=run / "plan.json" if (run / "plan.json").is_file() else None,
    )


def split_of(run: Path) -> dict[str, str] | None:
    """Return the part of each scan of a run by the hash of its voxels; None where no split tells."""
    path = run / "splits.json"
    return (parts_by_hash(path, SPLIT_CURE) or None) if path.is_file() else None


def seen_before(run: Path) -> dict[str, str]:
    """Return the parts of the scans that the weights had seen with which a run began."""
    path = run / REPORT
    seen = read_json_object(path, SPLIT_CURE).get("seen") if path.is_file() else {}
    if not (isinstance(seen, dict) and all(part in SUBSETS for part in seen.values())):
        raise MedsegError(f"{path}: seen must be a mapping of scans to {', '.join(SUBSETS)}. {SPLIT_CURE}")
    return seen


def of_nnunet(file: Path, content: Mapping[str, Any]) -> Source:
    """Return what a checkpoint of nnU-Net v2 tells, its plan included, as medseg's U-Net with medseg's axes."""
    weights = weights_in(content)
    init_args = content.get("init_args") or {}
    plan: Plan | None
    try:
        plan = plan_of(init_args["plans"], init_args["configuration"], file)
        unet_arguments(plan)
    except (MedsegError, KeyError, TypeError) as error:  # no plan, or one that medseg's U-Net does not follow
        log.warning("%s: its weights are used without its plan (%s)", file, error)
        plan = None
    if not any(name.startswith("encoder.stages.") for name in map(bare, weights)):
        return Source(file, weights)  # another network of the same program
    axes = our_axes(plan) if plan else USUAL_AXES
    mapped = {name: turned(weight, axes) for name, weight in renamed(weights).items()}
    if plan is None:
        return Source(file, mapped)
    label_map = label_map_of(init_args["dataset_json"], file.parent) if "dataset_json" in init_args else None
    settings = settings_of(plan, axes)
    check_settings(settings, file)
    count = len(label_map.outputs) if label_map else 1
    without_weights(unet_arguments(plan), file, settings["plan"]["in_channels"], count, weights)
    return Source(
        path=file,
        weights=mapped,
        outputs=label_map.outputs if label_map else None,
        regions=bool(label_map and label_map.regions),
        settings=settings,
    )


def bare(name: str) -> str:
    """Return a weight's name without what wrappers put before it."""
    return re.sub(r"^((module|_orig_mod)\.)+", "", name)


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return nnU-Net's weights under the names of medseg's U-Net, with zeros for the biases that it goes without."""
    names = [bare(name) for name in weights]
    stages = [int(match[1]) for name in names if (match := re.match(r"encoder\.stages\.(\d+)\.", name))]
    mapped = {our_name(bare(name), max(stages)) or bare(name): weight for name, weight in weights.items()}
    return with_biases(mapped)


def our_axes(plan: Plan) -> list[int] | None:
    """Return which axis of nnU-Net's network each axis of ours is; None: they are in the same order.

    Ours go to the right, front and head; nnU-Net's array is turned the other way round, (z, y, x), and then transposed.
    Pictures are read the same. Directions do not matter: nnU-Net mirrors along all axes.
    """
    beside = 3 - plan.dims
    if beside and not plan.slices:
        return None
    spatial = plan.transpose[beside:]
    return [spatial.index(axis) for axis in (2, 1, 0) if axis in spatial]


def turned(weight: Tensor, axes: Sequence[int] | None) -> Tensor:
    """Return a convolution's weight (out, in, *kernel) with its kernel's axes in our order."""
    if axes is None or weight.ndim != len(axes) + 2:
        return weight
    return weight.permute(0, 1, *(axis + 2 for axis in axes)).contiguous()


def settings_of(plan: Plan, axes: Sequence[int] | None) -> dict[str, dict[str, Any]]:
    """Return a plan of nnU-Net's as the nodes of a config."""
    order = axes or range(plan.dims)
    arguments = unet_arguments(plan)
    strides, kernels = (
        [
            [size] * plan.dims if isinstance(size, int) else [size[axis] for axis in order]
            for size in arguments.pop(name)
        ]
        for name in ("strides", "kernel_sizes")
    )
    schemes = schemes_of(plan)
    methods = [SCHEMES.get(scheme.name, "unit") for scheme in schemes]
    windows = [list(scheme.window or (0.0, 1.0, 0.0, 1.0)) for scheme in schemes]
    return {
        "model": {"_target_": "medseg.models.UNet", "base_channels": arguments["channels"][0], **arguments},
        "plan": {
            "strides": strides,
            "kernel_sizes": kernels,
            "in_channels": len(schemes),
            "slice_axis": 2 - plan.transpose[0] if plan.slices else None,
        },
        "preprocessing": {
            "spacing": None if plan.slices else [float(plan.settings["spacing"][axis]) for axis in order],
            "normalize": methods,
            "window": windows if "ct" in methods else None,
        },
    }
