"""Hiding random blocks of images, which a network then learns to reconstruct from the rest.

He et al., "Masked Autoencoders Are Scalable Vision Learners" (CVPR 2022); Xie et al., "SimMIM" (CVPR 2022). For U-Nets
in 3D: Wald et al., "Revisiting MAE pre-training for 3D medical image segmentation" (CVPR 2025). A U-Net's skip
connections would hand the image through as it is; what is hidden in all channels cannot be handed through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated

import torch
from torch import Tensor

from medseg.augmentation.random import RandomNumbers
from medseg.config.arguments import check_argument, check_declared
from medseg.config.schema import PLANNED, Setting


@dataclass(frozen=True, kw_only=True)
class BlockMasking:
    """Set blocks of an image to 0 in all channels: the mean of a channel normalised by z-score.

    The patch is divided into blocks from its first corner on, those at its far ends cut off where it is no multiple of
    them. Of the blocks a share is hidden, rounded, but neither none nor all; which ones is drawn for each sample.

    Args:
        share: of the blocks that are hidden.
        block: voxels of a block along each axis, one number or one an axis.

    Raises:
        MedsegError: an argument is out of its range.
    """

    share: Annotated[float, Setting("share of the blocks that are hidden", "(0, 1)")] = 0.6
    block: Annotated[Sequence[int] | int, Setting("voxels of a block along each axis", "[1, inf)", PLANNED)] = 8

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("pretext", self)
        check_argument("pretext", self, "block", self.block, self.block != [], "voxels, 1 or more")

    def __call__(self, image: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Image (B, C, *spatial) -> the image with blocks set to 0, and where they are, bool (B, 1, *spatial)."""
        shape = image.shape[2:]
        sizes = [self.block] * len(shape) if isinstance(self.block, int) else list(self.block)
        check_argument("pretext", self, "block", sizes, len(sizes) == len(shape), f"{len(shape)} numbers, one an axis")
        counts = [-(-length // size) for length, size in zip(shape, sizes, strict=True)]
        check_argument("pretext", self, "block", sizes, prod(counts) > 1, f"smaller than the patch, {list(shape)}")
        ranks = random.standard(prod(counts)).argsort(dim=1, stable=True).argsort(dim=1)  # (B, blocks)
        most = max(1, min(prod(counts) - 1, int(self.share * prod(counts) + 0.5)))
        hidden = torch.as_tensor(ranks < most).reshape(len(image), 1, *counts)
        hidden = hidden.to(image.device, non_blocking=True)
        for axis, (length, size) in enumerate(zip(shape, sizes, strict=True), start=2):
            hidden = hidden.repeat_interleave(size, axis).narrow(axis, 0, length)
        return image.masked_fill(hidden, 0), hidden
