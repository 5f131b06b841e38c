"""Errors of a first stage, made in the channels that it adds, so that a second stage does not trust them blindly.

Isensee et al. (Nature Methods 2021), supplementary note 2: random binary morphology and removed components, with the
probabilities of nnU-Net v2's cascade. There, channels are masks, and structuring elements balls; here they are
probabilities, of which greyscale morphology changes every level set as binary morphology would, with cubes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.augmentation.random import RandomNumbers
from medseg.augmentation.spatial import in_plane

GRAIN = 4
"""Voxels along each axis of the blocks in which components are followed: closer ones count as one. Following single
voxels through a patch would take as many passes over all of it as it is long."""


@dataclass(frozen=True, kw_only=True)
class CoarseErrors:
    """Dilate, erode, open or close each channel of some samples, and remove one component of each channel of others.

    Thin 3D patches (see ``Spatial``) change within their slices.

    Args:
        morphology: share of the samples whose channels grow or shrink.
        radius: [low, high] voxels by which they do, drawn for each channel.
        removal: share of the samples whose channels lose a component.
        largest: share of the patch that a removed component has at most.
    """

    morphology: float = 0.4
    radius: Sequence[int] = (1, 8)
    removal: float = 0.2
    largest: float = 0.15

    def __call__(self, image: Tensor, label: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Probabilities (B, C, *spatial) and the label -> the same shapes."""
        channels, shape = image.shape[1], image.shape[2:]
        low, high = self.radius
        is_changed, kinds = random.chosen(self.morphology).tolist(), (4 * random.standard(channels)).long().tolist()
        radii = (low + (high - low + 1) * random.standard(channels)).long().tolist()
        is_reduced = random.chosen(self.removal)
        order = random.standard(prod(-(-size // GRAIN) for size in shape))  # of the blocks: where a component is met
        image = image.clone()
        for sample in [index for index, is_one in enumerate(is_changed) if is_one]:
            for channel, (kind, radius) in enumerate(zip(kinds[sample], radii[sample], strict=True)):
                x = image[sample, channel]
                first, second = ((grown, None), (shrunk, None), (shrunk, grown), (grown, shrunk))[kind]
                x = first(x, radius)
                image[sample, channel] = second(x, radius) if second else x
        indices = is_reduced.nonzero().flatten()
        if len(indices):
            order = order[indices].to(image.device, non_blocking=True)
            indices = indices.to(image.device, non_blocking=True)
            there = image.index_select(0, indices)
            component = one_component(there.flatten(0, 1), order.repeat_interleave(channels, 0)).reshape(there.shape)
            is_small = component.flatten(2).mean(2) <= self.largest
            kept = 1 - component * is_small.reshape(*is_small.shape, *[1] * len(shape))
            image.index_copy_(0, indices, there * kept)
        return image, label


def grown(x: Tensor, radius: int) -> Tensor:
    """Return the largest value within ``radius`` voxels of each, along every axis that ``Spatial`` turns about."""
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.ndim - 1]
    for axis in in_plane(x.shape):
        reach = [radius if other == axis else 0 for other in range(x.ndim)]
        x = pool(x[None], [2 * r + 1 for r in reach], stride=1, padding=reach)[0]
    return x


def shrunk(x: Tensor, radius: int) -> Tensor:
    """Return the smallest value likewise."""
    return -grown(-x, radius)


def one_component(x: Tensor, order: Tensor) -> Tensor:
    """Return where one component of each row of ``x`` is likelier than not: 0 or 1, as ``x`` (n, *spatial).

    It is grown from the first of the row's blocks, in a random ``order`` (n, blocks), that hold any of it, as often as
    blocks follow each other along all axes. What winds more is cut off there.
    """
    shape = x.shape[1:]
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(shape) - 1]
    there = (x > 0.5).to(x.dtype)
    padding = [side for size in reversed(shape) for side in (0, -size % GRAIN)]
    blocks = pool(F.pad(there, padding)[:, None], GRAIN)  # (n, 1, *blocks)
    flat = blocks.flatten(1)
    first = ((1 + order) * flat).argmax(1, keepdim=True)
    seen = torch.zeros_like(flat).scatter_(1, first, 1).reshape(blocks.shape) * blocks
    for _ in range(sum(blocks.shape[2:])):
        seen = pool(seen, 3, stride=1, padding=1) * blocks
    seen = seen[:, 0]
    for axis, size in enumerate(shape, 1):
        seen = seen.repeat_interleave(GRAIN, axis).narrow(axis, 0, size)
    return seen * there
