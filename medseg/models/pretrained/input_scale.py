"""Bringing preprocessed images to the intensities that a network's published weights were trained on.

Both are described by mean and standard deviation, so that it takes one factor and one shift for each channel. They are
applied to the network's input itself, since zeros that a convolution pads with must mean the same as in training. They
are no weights: they follow from the names of the weights and of the normalisation, which checkpoints have.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn

Scale = Literal["standard", "unit", "symmetric"]
"""Mean 0 and standard deviation 1; 0…1; -1…1."""

COLOUR_MEAN, COLOUR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images in 0…1, by colour: what torchvision's and EfficientNet's weights were trained with."""

SCALE_OF: dict[str, Scale] = {"zscore": "standard", "ct": "standard", "percentile": "unit", "unit": "unit"}
"""How ``preprocessing.normalize`` leaves a channel; "none" can be anything, and is left as it is."""


def statistics(scale: Scale, channels: int, *, in_colour: bool) -> list[tuple[float, float]]:
    """Return mean and standard deviation of each channel of an ordinary image on a scale.

    Of an image in 0…1 they are taken to be ImageNet's: of each colour, or for images that are not in colour their mean.
    """
    if scale == "standard":
        return [(0.0, 1.0)] * channels
    colours = list(zip(COLOUR_MEAN, COLOUR_STD, strict=True))
    unit = colours if in_colour else [(fmean(COLOUR_MEAN), fmean(COLOUR_STD))] * channels
    return unit if scale == "unit" else [(2 * mean - 1, 2 * std) for mean, std in unit]


def factors(
    normalize: Sequence[str], expected: Scale, channels: int, *, in_colour: bool
) -> tuple[list[float], list[float]]:
    """Return factor and shift of each channel, from normalised images to those that weights expect.

    Args:
        normalize: the method of each channel of the images (see ``medseg.preprocessing.intensity``).
        expected: the scale that the weights were trained on.
        channels: of the network, a multiple of the images' where neighbouring slices are channels too.
        in_colour: whether the channels are the red, green and blue that the weights were trained on.
    """
    factor, shift = [1.0] * channels, [0.0] * channels
    targets = statistics(expected, channels, in_colour=in_colour)
    neighbours = channels // len(normalize)
    for channel, (mean, std) in enumerate(targets):
        scale = SCALE_OF.get(normalize[channel // neighbours])
        if scale and scale != expected:
            scale_mean, scale_std = statistics(scale, channels, in_colour=in_colour)[channel]
            factor[channel] = std / scale_std
            shift[channel] = mean - scale_mean * factor[channel]
    return factor, shift


def scale_input(network: nn.Module, factor: Sequence[float], shift: Sequence[float], dims: int) -> None:
    """Make a network take ``factor`` · image + ``shift``, a number a channel, in place of the image."""
    shape = (1, -1, *[1] * dims)
    network.register_buffer("input_factor", torch.tensor(factor).reshape(shape), persistent=False)
    network.register_buffer("input_shift", torch.tensor(shift).reshape(shape), persistent=False)
    network.register_forward_pre_hook(_scaled)


def _scaled(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor]:
    (image,) = inputs
    return (image * network.input_factor + network.input_shift,)
