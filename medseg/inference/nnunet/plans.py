"""nnU-Net's ``plans.json`` beside a trained model: one configuration of it, in today's form."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError

ARCHITECTURES = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
"""The networks that are read, and what each calls its blocks of a stage."""

NEEDED = (
    *("patch_size", "spacing", "normalization_schemes", "use_mask_for_norm"),
    *("resampling_fn_data", "resampling_fn_probabilities"),
)
"""What a configuration must say."""

MOST_INHERITED = 16
"""Configurations that one may inherit from, the one from the other."""

OWN = {"preprocessor_name": "DefaultPreprocessor", "label_manager": "LabelManager"}
"""Classes that a plan may name, of which only nnU-Net's own are known."""


@dataclass(frozen=True)
class Plan:
    """What a configuration says.

    ``settings`` are its values with what it inherits. ``transpose`` are the axes of the array that nnU-Net reads, (z,
    y, x), in the order of the network; ``reader`` is the class that reads it. ``statistics`` describe the foreground of
    the training images, channel by channel. ``slices`` tells whether a 2D network goes through volumes.
    """

    path: Path
    name: str
    settings: dict[str, Any]
    transpose: tuple[int, int, int]
    reader: str
    statistics: dict[str, Any]
    slices: bool

    @property
    def dims(self) -> int:
        """Spatial axes of the network."""
        return len(self.settings["patch_size"])


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of nnU-Net's.

    Raises:
        MedsegError: it is missing, no JSON, or no mapping.
    """
    return read_json_object(path, "A trained model of nnU-Net needs it: copy it again from its source.")


def plan_of(plans: dict[str, Any], name: str, path: Path) -> Plan:
    """Return configuration ``name`` of the contents of a ``plans.json``; ``path`` is where they were found.

    Raises:
        MedsegError: there is no such configuration, it needs another network's masks (a cascade), or names classes that
            are not nnU-Net's own.
    """
    settings = inherited(plans.get("configurations", {}), name, path)
    if settings.get("previous_stage"):
        raise MedsegError(
            f"{path}: {name} is the second network of a cascade: beside the image it takes the masks of"
            f" {settings['previous_stage']}. Cascades are not run; give a model of 3d_fullres, 3d_lowres or 2d."
        )
    for key, own in OWN.items():
        if (name_of_class := (settings | plans).get(key, own)) != own:
            raise MedsegError(f"{path}: {key} is {name_of_class}, a class of somebody's own; only {own} is known.")
    if missing := [key for key in NEEDED if key not in settings]:
        raise MedsegError(
            f"{path}: configuration {name} does not say {', '.join(missing)}. Is it a plan of nnU-Net v2?"
        )
    try:
        return Plan(
            path,
            name,
            with_architecture(settings, path),
            tuple(plans["transpose_forward"]),
            plans["image_reader_writer"],
            plans.get("foreground_intensity_properties_per_channel")
            or plans.get("foreground_intensity_properties_by_modality", {}),
            len(settings["patch_size"]) == 2 and plans["original_median_shape_after_transp"][0] > 1,
        )
    except KeyError as error:
        raise MedsegError(f"{path} says nothing of {error}. Is it a plan of nnU-Net v2?") from error


def inherited(configurations: dict[str, Any], name: str, path: Path, visited: Sequence[str] = ()) -> dict[str, Any]:
    """Return a configuration with what it has from those that it inherits from."""
    if name not in configurations or name in visited or len(visited) > MOST_INHERITED:
        known = ", ".join(configurations) or "none"
        raise MedsegError(f"{path}: no configuration {name!r}, or one that inherits from itself; there are {known}.")
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    return inherited(configurations, parent, path, (*visited, name)) | own if parent else own


def with_architecture(settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return settings that describe the network as nnU-Net does since 2.4; earlier ones were named differently."""
    if "architecture" in settings:
        return settings
    kind = settings["UNet_class_name"]
    if kind not in ARCHITECTURES:
        raise MedsegError(f"{path}: the network is a {kind}; {' and '.join(ARCHITECTURES)} are read.")
    stages, dims = len(settings["n_conv_per_stage_encoder"]), len(settings["patch_size"])
    base, most = settings["UNet_base_num_features"], settings["unet_max_num_features"]
    arguments = {
        "n_stages": stages,
        "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": settings["conv_kernel_sizes"],
        "strides": settings["pool_op_kernel_sizes"],
        ARCHITECTURES[kind]: settings["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = f"dynamic_network_architectures.architectures.unet.{kind}"
    return settings | {"architecture": {"network_class_name": name, "arch_kwargs": arguments}}
