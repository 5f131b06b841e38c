"""Small weight files in the formats that weights are published in, written down from these formats' own sources."""

import torch
from torch import Tensor

LAYERS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
WIDTHS = (64, 128, 256, 512)


def torchvision_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of torchvision's ResNets: https://download.pytorch.org/models/resnet*.pth."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    is_deep, before = int(name.removeprefix("resnet")) >= 50, 64
    for stage, (blocks, width) in enumerate(zip(LAYERS[name], WIDTHS, strict=True), start=1):
        out = width * (4 if is_deep else 1)
        for block in range(blocks):
            place = f"layer{stage}.{block}"
            kernels = (
                [(width, before, 1), (width, width, 3), (out, width, 1)]
                if is_deep
                else [
                    (width, before, 3),
                    (width, width, 3),
                ]
            )
            for number, (outputs, inputs, size) in enumerate(kernels, start=1):
                shapes |= {f"{place}.conv{number}.weight": (outputs, inputs, size, size)}
                shapes |= norm(f"{place}.bn{number}", outputs)
            if block == 0 and before != out:
                shapes |= {f"{place}.downsample.0.weight": (out, before, 1, 1), **norm(f"{place}.downsample.1", out)}
            before = out
    return shapes | {"fc.weight": (1000, before), "fc.bias": (1000,)}


def norm(place: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Return what a BatchNorm of the files has; the oldest ones lack ``num_batches_tracked``."""
    return {f"{place}.{name}": (channels,) for name in ("weight", "bias", "running_mean", "running_var")}


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Return random values of these shapes, with which a network can compute: small, and variances above 0."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(shape, generator=generator) * 0.1 + (0.5 if name.endswith("running_var") else -0.05)
        for name, shape in shapes.items()
    }
