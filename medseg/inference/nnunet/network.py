"""nnU-Net's checkpoints, and its PlainConvUNet and ResidualEncoderUNet as medseg's U-Net.

Facts from dynamic_network_architectures 0.4, with which nnU-Net 2.8.1 builds its networks.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg.errors import MedsegError, listing
from medseg.inference.nnunet.plans import ARCHITECTURES, Plan
from medseg.models.unet import UNet
from medseg.models.weight_checks import check_finite, limit_parameters
from medseg.system.torch_files import load_safely

PACKAGE = "dynamic_network_architectures."
NORMS = {"InstanceNorm": "instance", "BatchNorm": "batch"}
ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu"}
TRANSLATED = {
    *("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage_decoder", "conv_bias"),
    *("norm_op", "norm_op_kwargs", "nonlin", "nonlin_kwargs", *ARCHITECTURES.values()),
}
NEEDED_ARGUMENTS = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder")
WITHOUT_EFFECT = {"dropout_op", "dropout_op_kwargs", "deep_supervision"}
"""Arguments that are of training only."""

MOST_STAGES = 32
"""A patch would have to be larger than any array to be halved as often."""

PARTS = {"conv": 0, "norm": 1}
"""Places in ``Layers.block`` without dropout."""


def make_network(plan: Plan, n_channels: int, n_outputs: int, weights: dict[str, Tensor], *, batch_norm: bool) -> UNet:
    """Return the trained network.

    Args:
        plan: says how it is built.
        n_channels: of the image.
        n_outputs: classes with the background, or regions.
        weights: nnU-Net's ``network_weights``.
        batch_norm: whether the trainer put a batch norm in the place of the plan's norm.

    Raises:
        MedsegError: the network is another one than those two, has options that the U-Net lacks, or weights that do
            not fit it: each has its place, and each place its weight.
    """
    arguments = unet_arguments(plan)
    if batch_norm:
        arguments["norm"] = "batch"
    network = without_weights(arguments, plan.path.parent, n_channels, n_outputs, weights)
    mapped = mapped_weights(weights, arguments["depth"], plan)
    if not plan.settings["architecture"]["arch_kwargs"].get("conv_bias", False):
        mapped = with_biases(mapped)
    state = network.state_dict()
    problems = [f"{key} is missing" for key in state.keys() - mapped.keys()]
    problems += [f"{key} has no place" for key in mapped.keys() - state.keys()]
    problems += [
        f"{key} has shape {tuple(mapped[key].shape)} where {tuple(state[key].shape)} is expected"
        for key in state.keys() & mapped.keys()
        if state[key].shape != mapped[key].shape
    ]
    if problems:
        raise MedsegError(
            f"{plan.path.parent}: the weights do not fit the plan's network:\n{listing(sorted(problems))}"
        )
    network.load_state_dict(mapped, assign=True)
    return network


def without_weights(
    arguments: dict[str, Any], path: Path, n_channels: int, n_outputs: int, weights: Mapping[str, Tensor]
) -> UNet:
    """Return the network of ``unet_arguments`` on PyTorch's meta device: its weights are not drawn only to be replaced.

    Raises:
        MedsegError: the file or folder at ``path`` has no weights for so large a network.
    """
    with torch.device("meta"), limit_parameters(weights, path):
        return UNet(in_channels=n_channels, out_channels=n_outputs, **arguments)


def unet_arguments(plan: Plan) -> dict[str, Any]:
    """Return the arguments of ``medseg.models.UNet``, without channels and outputs, for the plan's network."""
    architecture = plan.settings["architecture"]
    kind = architecture["network_class_name"].rpartition(".")[2]
    if kind not in ARCHITECTURES or not architecture["network_class_name"].startswith(PACKAGE):
        raise MedsegError(
            f"{plan.path}: the network is {architecture['network_class_name']}; {' and '.join(ARCHITECTURES)} are read."
        )
    options = architecture["arch_kwargs"]
    needed = (*NEEDED_ARGUMENTS, ARCHITECTURES[kind])
    if problems := [f"{key} is missing" for key in needed if key not in options] or unknown_options(options, plan.dims):
        raise MedsegError(f"{plan.path}: a {kind} with options that are not read:\n{listing(problems)}")
    stages, blocks = options["n_stages"], options["n_conv_per_stage_decoder"]
    return {
        "spatial_dims": plan.dims,
        "depth": stages - 1,
        "channels": each_stage(options["features_per_stage"], stages),
        "strides": each_stage(options["strides"], stages)[1:],
        "kernel_sizes": each_stage(options["kernel_sizes"], stages),
        "blocks": options[ARCHITECTURES[kind]],
        # finest first; nnU-Net lists them in the order of computation
        "decoder_blocks": blocks if isinstance(blocks, int) else list(reversed(blocks)),
        "norm": NORMS[without_dims(options["norm_op"])] if options.get("norm_op") else "none",
        "activation": ACTIVATIONS[options["nonlin"].rpartition(".")[2]],
        "residual": kind == "ResidualEncoderUNet",
        "downsampling": "strided",
        "deep_supervision": True,  # nnU-Net keeps the layers of every level's output
    }


def unknown_options(options: dict[str, Any], dims: int) -> list[str]:
    """Return which arguments of nnU-Net's network medseg's U-Net has no equal of."""
    stages = options["n_stages"]
    if not isinstance(stages, int) or not 2 <= stages <= MOST_STAGES:
        return [f"n_stages={stages!r}, which must be 2 to {MOST_STAGES}"]
    others = options.keys() - TRANSLATED - WITHOUT_EFFECT
    problems = [f"{key}={options[key]!r}" for key in sorted(others) if options[key] not in (None, False)]
    norm, nonlin = options.get("norm_op"), str(options.get("nonlin")).rpartition(".")[2]
    if norm is not None and without_dims(norm) not in NORMS:
        problems.append(f"norm_op={norm}")
    if nonlin not in ACTIVATIONS:
        problems.append(f"nonlin={options.get('nonlin')}")
    defaults = {"norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin_kwargs": {"negative_slope": 0.01}}
    for key, usual in defaults.items():
        asked = {name: value for name, value in (options.get(key) or {}).items() if name not in ("inplace", "momentum")}
        problems += [f"{key}.{name}={value}" for name, value in asked.items() if usual.get(name) != value]
    first = each_stage(options["strides"], stages)[0]
    if first not in (1, [1] * dims):
        problems.append(f"strides of the first stage: {first}")
    return problems


def each_stage(value: Any, stages: int) -> list[Any]:
    """Return a value a stage, where one may stand for all."""
    return [value] * stages if isinstance(value, int) else list(value)


def without_dims(name: str) -> str:
    """Return the class of a dotted name, without the 2d or 3d at its end."""
    return re.sub(r"\dd$", "", name.rpartition(".")[2])


LAYERS: list[tuple[str, Callable[[re.Match[str], int], str]]] = [
    (r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(conv|norm)", lambda m, _: f"encoder.{m[1]}.{m[2]}.{PARTS[m[3]]}"),
    (r"encoder\.stem\.convs\.0\.(conv|norm)", lambda m, _: f"encoder.0.0.{PARTS[m[1]]}"),
    (
        r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv1\.(conv|norm)",
        lambda m, _: f"{residual_block(m)}.first.{PARTS[m[3]]}",
    ),
    (r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv2\.conv", lambda m, _: f"{residual_block(m)}.second"),
    (r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv2\.norm", lambda m, _: f"{residual_block(m)}.norm"),
    (
        r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.skip\.(\d)\.(conv|norm)",
        lambda m, _: f"{residual_block(m)}.shortcut.{int(m[3]) + PARTS[m[4]]}",
    ),
    (r"decoder\.transpconvs\.(\d+)", lambda m, depth: f"up.{depth - 1 - int(m[1])}"),
    (
        r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)",
        lambda m, depth: f"decoder.{depth - 1 - int(m[1])}.{m[2]}.{PARTS[m[3]]}",
    ),
    (r"decoder\.seg_layers\.(\d+)", lambda m, depth: f"heads.{depth - 1 - int(m[1])}"),
]
"""nnU-Net's names of layers, and the layers of medseg's U-Net of this depth that they are."""


def residual_block(match: re.Match[str]) -> str:
    """Return the residual block that a name means; the stem comes before those of the first level."""
    return f"encoder.{match[1]}.{int(match[2]) + (match[1] == '0')}"


def mapped_weights(weights: dict[str, Tensor], depth: int, plan: Plan) -> dict[str, Tensor]:
    """Return nnU-Net's weights under the names of medseg's U-Net.

    nnU-Net's modules have second names: a layer is in the list ``all_modules``, too, and the encoder in the decoder.

    Raises:
        MedsegError: a weight has no place, or another value under its second name.
    """
    mapped: dict[str, Tensor] = {}
    problems = []
    for key, weight in weights.items():
        ours = our_name(key, depth)
        if ours is None:
            problems.append(f"{key} has no place")
            continue
        if ours in mapped and not torch.equal(mapped[ours], weight):
            problems.append(f"{key} differs from {first_name(key)}, though it is the same layer")
        mapped[ours] = weight.clone() if ours not in mapped else mapped[ours]
    if problems:
        raise MedsegError(f"{plan.path.parent}: the weights are not those of the plan's network:\n{listing(problems)}")
    return mapped


def with_biases(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of medseg's U-Net with zeros for the biases that nnU-Net's convolutions go without: the same."""
    biases = {
        f"{layer}.bias": torch.zeros(weight.shape[1 if layer.startswith("up.") else 0])
        for name, weight in weights.items()
        for layer, _, kind in [name.rpartition(".")]
        if kind == "weight" and weight.ndim >= 4 and "shortcut" not in layer
    }
    return {**biases, **weights}


def our_name(key: str, depth: int) -> str | None:
    """Return the name that a weight of nnU-Net's has in medseg's U-Net of this depth; None: it has no place."""
    layer, _, parameter = first_name(key).rpartition(".")
    ours = next((name(m, depth) for pattern, name in LAYERS if (m := re.fullmatch(pattern, layer))), None)
    return f"{ours}.{parameter}" if ours else None


def first_name(key: str) -> str:
    """Return the name of a weight outside lists of all layers, and without what wrappers put before it.

    >>> first_name("decoder.encoder.stages.0.0.convs.0.all_modules.1.weight")
    'encoder.stages.0.0.convs.0.norm.weight'
    """
    key = key.removeprefix("_orig_mod.").removeprefix("module.")
    key = re.sub(r"^decoder\.encoder\.", "encoder.", key)
    return re.sub(r"\.all_modules\.(\d)\.", lambda m: ".conv." if m[1] == "0" else ".norm.", key)


NUMBERS = ("f2", "f4", "f8", "i4", "i8", "b1")
"""Types of numbers in nnU-Net's log, as pickles name them."""

NEEDED_ENTRIES = ("network_weights", "trainer_name", "init_args")


@dataclass(frozen=True)
class Trained:
    """A fold: its file, trainer and configuration, the network's axes that may be mirrored, and its weights."""

    path: Path
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    weights: dict[str, Tensor]


def read_trained(path: Path) -> Trained:
    """Read ``checkpoint_final.pth`` or the like. The optimizer's state, twice as large, stays on disk.

    Raises:
        MedsegError: the file is damaged, holds objects that are not loaded, is no checkpoint of nnU-Net v2, or its
            weights are not finite.
    """
    with torch.serialization.safe_globals(numbers_of_numpy()):
        content = load_safely(path, mmap=True)
    if not isinstance(content, dict) or any(key not in content for key in NEEDED_ENTRIES):
        raise MedsegError(
            f"{path}: a PyTorch file, but no checkpoint of nnU-Net v2 (it needs {', '.join(NEEDED_ENTRIES)})."
        )
    check_finite(path, content["network_weights"])
    return Trained(
        path,
        content["trainer_name"],
        content["init_args"]["configuration"],
        tuple(content.get("inference_allowed_mirroring_axes") or ()),
        content["network_weights"],
    )


def numbers_of_numpy() -> list[Any]:
    """Return NumPy's numbers, in which nnU-Net's log is kept, as the classes that a file may name.

    Their module is called differently by NumPy 1 and 2.
    """
    scalar: Any = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, (number_type, "numpy.dtype"), *(type(np.dtype(kind)) for kind in NUMBERS)]


def number_type(name: str, *options: bool) -> np.dtype[Any]:
    """Return the type of a number, in the place of ``numpy.dtype``, whose texts can ask for one of any size.

    Raises:
        ValueError: it is none of ``NUMBERS``.
    """
    if name not in NUMBERS:
        raise ValueError(f"{name!r} is no type of a number")
    return np.dtype(name, *options)
