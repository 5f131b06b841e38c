"""Which operations CUDA cannot do deterministically, and which MPS cannot do at all, by PyTorch's own files."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchgen
import yaml

SOURCES: dict[str, tuple[str, ...]] = {
    "nn.AvgPool3d": ("avg_pool3d_backward",),
    "nn.AdaptiveAvgPool2d": ("_adaptive_avg_pool2d_backward",),
    "nn.AdaptiveAvgPool3d": ("_adaptive_avg_pool3d_backward",),
    "nn.AdaptiveMaxPool2d": ("adaptive_max_pool2d_backward",),
    "nn.FractionalMaxPool2d": ("fractional_max_pool2d_backward",),
    "nn.FractionalMaxPool3d": ("fractional_max_pool3d_backward",),
    "nn.MaxUnpool1d": (),  # max_unpool2d
    "nn.MaxUnpool2d": ("max_unpool2d",),
    "nn.MaxUnpool3d": ("max_unpool3d",),
    "nn.functional.interpolate": (
        "upsample_linear1d_backward",
        "upsample_bilinear2d_backward",
        "upsample_bicubic2d_backward",
        "upsample_trilinear3d_backward",
    ),
    "nn.ReflectionPad1d": ("reflection_pad1d_backward",),
    "nn.ReflectionPad2d": ("reflection_pad2d_backward",),
    "nn.ReflectionPad3d": ("reflection_pad3d_backward",),
    "nn.NLLLoss": ("nll_loss2d_forward",),  # on spatial axes
    "nn.CTCLoss": ("_ctc_loss_backward",),
    "nn.EmbeddingBag": ("_embedding_bag_dense_backward",),
    "Tensor.put_": ("put_",),
    "histc": ("histc",),
    "bincount": (),  # with weights alone
    "median": ("median.dim",),
    "nn.functional.grid_sample": ("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    "cumsum": ("cumsum",),  # of floating point
    "Tensor.scatter_reduce": (),  # of products
    "Tensor.resize_": (),  # of quantised tensors
}
"""The operations that raise under ``torch.use_deterministic_algorithms``, by the names in its documentation."""

OLDER = ("max_pool3d_with_indices_backward",)
"""Which PyTorch before 2.13 had no deterministic form of."""


def documented() -> set[str]:
    """Return the names that PyTorch's documentation lists as raising on CUDA."""
    text = torch.use_deterministic_algorithms.__doc__ or ""
    raising = text.split("operations will throw")[1].split("In addition")[0]
    return set(re.findall(r"\* :(?:class|func|meth):`torch\.([\w.]+)`", raising))


def not_deterministic(operation: str) -> bool:
    """Tell whether an operation, such as ``aten.cumsum.default``, raises on CUDA where it must be deterministic."""
    return name_of(operation) in {name for names in SOURCES.values() for name in names} | {*OLDER}


def has_mps_kernel(operation: str) -> bool:
    """Tell whether there is a kernel of an operation for MPS, or it is made of other operations."""
    return has_kernel(name_of(operation))


def name_of(operation: str) -> str:
    """Return the name of an operation as native_functions.yaml has it."""
    return operation.removeprefix("aten.").removesuffix(".default")


@cache
def native_functions() -> dict[str, dict[str, Any]]:
    """Return PyTorch's list of operations, by name."""
    file = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    return {entry["func"].split("(")[0]: entry for entry in yaml.safe_load(file.read_text())}


def has_kernel(name: str) -> bool:
    """Look an operation up; where it only gives its result new memory, the one that writes it."""
    entry = native_functions().get(name)
    if entry is None:  # made by torchgen of another, such as an out-of-place form
        return True
    if "structured_delegate" in entry:
        return has_kernel(entry["structured_delegate"])
    keys = {key.strip() for keys in entry.get("dispatch", {}) for key in keys.split(",")}
    return not keys or any(key == "MPS" or key.startswith("Composite") for key in keys)
