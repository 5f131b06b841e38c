"""Whole images through a network that takes patches."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, product

import torch
import torch.nn.functional as F
from torch import Tensor

Network = Callable[[Tensor], list[Tensor]]
Activation = Callable[[Tensor], Tensor]


def softmax(logits: Tensor) -> Tensor:
    """Probabilities (B, K, *) of classes that exclude each other."""
    return logits.softmax(1)


def sliding_window(
    network: Network,
    image: Tensor,
    *,
    patch_size: Sequence[int],
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    context: Sequence[int] | None = None,
    activation: Activation = softmax,
) -> Tensor:
    """Return class probabilities of a whole image, averaged over overlapping windows.

    Windows are weighted by a Gaussian (sigma an eighth of the patch), as in nnU-Net (Isensee et al., Nature Methods
    2021), because a network is surest of the middle of its patch.

    Args:
        network: patches (B, C, *patch) to a list of logits (B, K, *patch), finest first. With a context, what it is
            given is larger than its output by that much on either side.
        image: (C, *spatial) on the network's device.
        patch_size: the window's size; a smaller image is padded with zeros.
        overlap: share of a window that its neighbour covers, 0 to below 1.
        batch_size: windows to one pass.
        mirror_axes: spatial axes that test-time augmentation flips, in every combination.
        context: voxels along each axis that the network sees beside its output; None: none.
        activation: logits (B, K, *) to probabilities.

    Returns:
        (K, *spatial) float32 probabilities.
    """
    margin = list(context or [0] * len(patch_size))
    padded, inner = pad(image, patch_size)
    grid = padded.shape[1:]
    corners = list(product(*(starts(size, patch, overlap) for size, patch in zip(grid, patch_size, strict=True))))
    padded = F.pad(padded, [side for m in reversed(margin) for side in (m, m)])
    seen = [patch + 2 * m for patch, m in zip(patch_size, margin, strict=True)]
    weight = gaussian(tuple(patch_size)).to(image.device)
    total: Tensor | None = None
    norm = torch.zeros(grid, device=image.device)
    for chunk in batches(corners, batch_size):
        windows = [window(corner, patch_size) for corner in chunk]
        patches = torch.stack([padded[(slice(None), *window(corner, seen))] for corner in chunk])  # (B, C, *seen)
        for w, scores in zip(windows, mirrored(network, patches, mirror_axes, activation), strict=True):
            if total is None:
                total = torch.zeros((len(scores), *grid), device=image.device)
            total[(slice(None), *w)] += scores * weight
            norm[w] += weight
    assert total is not None  # there is at least one window
    return total.div_(norm)[(slice(None), *inner)]


def mirrored(network: Network, patches: Tensor, axes: Sequence[int], activation: Activation = softmax) -> Tensor:
    """Return (B, K, *patch) probabilities, averaged over every combination of flips along ``axes``."""
    flips = [flip for n in range(len(axes) + 1) for flip in combinations([axis + 2 for axis in axes], n)]
    total = sum(activation(network(patches.flip(flip))[0].float()).flip(flip) for flip in flips)
    assert isinstance(total, Tensor)  # the empty combination is always there
    return total / len(flips)


def pad(image: Tensor, patch_size: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad (C, *spatial) with zeros to the patch size; also return where the image lies in the result."""
    missing = [max(0, patch - size) for size, patch in zip(image.shape[1:], patch_size, strict=True)]
    inner = tuple(slice(m // 2, m // 2 + size) for m, size in zip(missing, image.shape[1:], strict=True))
    amounts = [side for m in reversed(missing) for side in (m // 2, m - m // 2)]
    return F.pad(image, amounts), inner


def starts(size: int, patch: int, overlap: float) -> list[int]:
    """Return evenly spread window starts along one axis, the first at 0 and the last flush with the end."""
    step = max(1.0, patch * (1 - overlap))
    count = max(1, -int(-(size - patch) // step) + 1)
    return [round(i * (size - patch) / max(1, count - 1)) for i in range(count)]


def window(corner: Sequence[int], patch_size: Sequence[int]) -> tuple[slice, ...]:
    """Return the window at ``corner`` as slices."""
    return tuple(slice(start, start + patch) for start, patch in zip(corner, patch_size, strict=True))


def batches(items: Sequence[tuple[int, ...]], size: int) -> Iterator[Sequence[tuple[int, ...]]]:
    """Cut a sequence into runs of at most ``size``."""
    return (items[i : i + size] for i in range(0, len(items), size))


@lru_cache(maxsize=8)
def gaussian(patch_size: tuple[int, ...]) -> Tensor:
    """Return window weights (*patch): a Gaussian of sigma patch/8, kept above zero so that every voxel counts."""
    weight = torch.ones(())
    for size in patch_size:
        position = (torch.arange(size) - (size - 1) / 2) / (size / 8)
        weight = weight[..., None] * torch.exp(-0.5 * position**2)
    return weight.clamp_min(float(weight.max()) * 1e-3)
