"""A training batch, augmented."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from medseg.augmentation.random import RandomNumbers

Augmentation = Callable[..., tuple[Tensor, Tensor]]
"""(image, label, random) to image and label; see ``medseg.augmentation``."""


@torch.no_grad()
def augmented(
    image: Tensor, label: Tensor, augmentations: Sequence[Augmentation], random: RandomNumbers, margin: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return copies of images (B, C, *patch) and labels (B, 1, *patch), augmented in full precision.

    ``margin`` is by how many voxels on either side of each axis a batch is larger than what the network sees; the first
    of the augmentations cuts it off.
    """
    image, label = image.clone(), label.clone()  # what is augmented in place may be needed again
    options: dict[str, Any] = {"margin": margin} if any(margin) else {}
    with torch.autocast(image.device.type, enabled=False):
        for augmentation in augmentations:
            image, label = augmentation(image, label, random, **options)
            options = {}  # the margin is gone
    return image, label
