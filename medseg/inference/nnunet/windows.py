"""nnU-Net's weights of a window's voxels."""

from functools import lru_cache

import torch
from torch import Tensor

LEAST = 2.0**-24 / 10
"""The smallest weight, for nnU-Net keeps weights of up to 10 in half precision."""


@lru_cache(maxsize=8)
def weights(patch_size: tuple[int, ...]) -> Tensor:
    """Return (*patch): a Gaussian of sigma patch/8 whose peak is voxel patch // 2, half a voxel beyond the middle."""
    result = torch.ones(())
    for size in patch_size:
        distance = (torch.arange(size) - size // 2) / (size / 8)
        result = result[..., None] * torch.exp(-0.5 * distance**2)
    return result.clamp_min(LEAST)
