"""A network that takes patches on whole images, with no more probabilities in memory than windows still touch.

Windows run along one axis, the main axis. Probabilities are summed in a buffer as long as a window on it, and the
slices across this axis that no later window touches are yielded. So memory grows with the cross-section, not with the
image's length.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import combinations, product

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.system.memory import attempted

log = logging.getLogger(__name__)

Network = Callable[[Tensor], list[Tensor]]
Activation = Callable[[Tensor], Tensor]
Weighting = Callable[[tuple[int, ...]], Tensor]
"""A window's size to the weights (*patch) of its voxels, all above 0."""

CHUNK_SIZE = 1 << 27
"""Probabilities yielded at once, in numbers; few slices at once are slow where slices lie interleaved in memory."""

PASS_SIZE = 1 << 27
"""Probabilities that one pass of the network may make, in numbers: with many classes it takes fewer windows."""


@dataclass
class MemoryLimits:
    """What memory has turned out to allow, for all scans that follow.

    ``windows`` is the most that one pass of the network takes; ``is_device_full`` tells that the probabilities of a
    scan did not fit on the device, of which the user is told once.
    """

    windows: int = sys.maxsize
    is_device_full: bool = False


def softmax(logits: Tensor) -> Tensor:
    """Probabilities (B, K, *) of classes that exclude each other, in float32."""
    return logits.softmax(1, dtype=torch.float32)


def sigmoid(logits: Tensor) -> Tensor:
    """Probabilities (B, K, *) of regions, in float32."""
    return logits.float().sigmoid()


def unchanged(logits: Tensor) -> Tensor:
    """Logits (B, K, *) as they are, in float32 and in memory of their own."""
    return logits.to(torch.float32, copy=True)


@lru_cache(maxsize=8)
def gaussian(patch_size: tuple[int, ...]) -> Tensor:
    """Return window weights (*patch): a Gaussian of sigma patch/8, kept above zero so that every voxel counts."""
    weight = torch.ones(())
    for size in patch_size:
        position = (torch.arange(size) - (size - 1) / 2) / (size / 8)
        weight = weight[..., None] * torch.exp(-0.5 * position**2)
    return weight.clamp_min(float(weight.max()) * 1e-3)


def sliding_window(
    networks: Sequence[Network],
    image: Tensor,
    *,
    patch_size: Sequence[int],
    n_outputs: int,
    main_axis: int,
    from_end: bool = False,
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    context: Sequence[int] | None = None,
    activation: Activation = softmax,
    weighting: Weighting = gaussian,
    device: torch.device | None = None,
    limits: MemoryLimits | None = None,
) -> Iterator[Tensor]:
    """Yield the probabilities of a whole image, averaged over windows and networks, in blocks of slices.

    Windows are weighted, by default by a Gaussian (sigma an eighth of the patch), as in nnU-Net (Isensee et al., Nature
    Methods 2021), because a network is surest of the middle of its patch.

    Args:
        networks: each takes patches (B, C, *patch) to a list of logits (B, K, *patch), finest first. With a context,
            what it is given is larger than its output by that much on either side.
        image: (C, *spatial), on the device that adds up the probabilities.
        patch_size: the window's size; a smaller image is padded with zeros.
        n_outputs: K.
        main_axis: the spatial axis across which slices are cut, along which they are finished in turn.
        from_end: begin at the far end of the main axis.
        overlap: share of a window that its neighbour covers, 0 to below 1.
        batch_size: windows to one pass; fewer where their probabilities would be many, or where memory runs out.
        mirror_axes: spatial axes that test-time augmentation flips, in every combination.
        context: voxels along each axis that the network sees beside its output; None: none.
        activation: what is averaged, made of logits (B, K, *).
        weighting: gives the weights of a window's voxels.
        device: the networks', which each batch of windows is brought to; None: the image's.
        limits: further bounds the batch, and is lowered where memory runs out, so that later scans begin with what was
            enough for this one.

    Yields:
        (K, *spatial) float32 with some slices of the main axis only, all of them in turn; ``from_end``, the last ones
        first and in reversed order. They are overwritten when the next are asked for.
    """
    margin = list(context or [0] * len(patch_size))
    padded, inner = pad(image, patch_size)
    grid = padded.shape[1:]

    def position(corner: Sequence[int]) -> int:  # on the main axis, counted from where windows begin
        start = corner[main_axis]
        return grid[main_axis] - patch_size[main_axis] - start if from_end else start

    begins_of_axes = (starts(size, patch, overlap) for size, patch in zip(grid, patch_size, strict=True))
    all_corners = sorted(product(*begins_of_axes), key=position)
    padded = F.pad(padded, [side for m in reversed(margin) for side in (m, m)])
    seen = [patch + 2 * m for patch, m in zip(patch_size, margin, strict=True)]
    weight = weighting(tuple(patch_size)).to(image.device)
    size = max(1, min(batch_size, PASS_SIZE // (n_outputs * weight.numel())))
    chunks = [all_corners[first : first + size] for first in range(0, len(all_corners), size)]
    # No later window touches what lies before the first window of the next chunk. So a chunk finishes the slices
    # up to there, and the buffer must hold as many as one chunk spans from its first window to the end of its last.
    finished = [*(position(chunk[0]) for chunk in chunks[1:]), grid[main_axis]]
    length = max(position(chunk[-1]) - position(chunk[0]) for chunk in chunks) + patch_size[main_axis]
    sums = SliceSums(n_outputs, grid, main_axis, length, image.device)
    if from_end:  # the image's span on the main axis, counted from where the windows begin
        span, end = inner[main_axis], grid[main_axis]
        inner = (*inner[:main_axis], slice(end - span.stop, end - span.start), *inner[main_axis + 1 :])
    limits = limits or MemoryLimits()

    def probs_of(corners: Sequence[tuple[int, ...]]) -> Tensor:  # (B, K, *patch) on the image's device
        patches = torch.stack([padded[(slice(None), *window(corner, seen))] for corner in corners])  # (B, C, *seen)
        return mirrored(networks, patches.to(device or image.device), mirror_axes, activation).to(image.device)

    for chunk, stop in zip(chunks, finished, strict=True):
        rest = chunk
        while rest:
            corners = rest[: limits.windows]
            batch = attempted(partial(probs_of, corners)) if len(corners) > 1 else probs_of(corners)
            if batch is None:  # memory ran out: half as many windows, now and from now on
                limits.windows = len(corners) // 2
                log.warning(
                    "memory is short: %d windows go through the network at once, fewer than inference.batch_size",
                    limits.windows,
                )
                continue
            for corner, probs in zip(corners, batch, strict=True):
                at = (*corner[:main_axis], position(corner), *corner[main_axis + 1 :])
                sums.add(at, probs.flip(1 + main_axis) if from_end else probs, weight)
            del batch, probs  # not needed while others work on the slices
            rest = rest[len(corners) :]
        yield from sums.take(stop, inner)


class SliceSums:
    """Weighted sums of windows over the slices across the main axis that later windows may still touch."""

    def __init__(self, n_outputs: int, grid: Sequence[int], main_axis: int, length: int, device: torch.device) -> None:
        self.main_axis, self.first = main_axis, 0
        shape = [*grid[:main_axis], min(length, grid[main_axis]), *grid[main_axis + 1 :]]
        self.total = torch.zeros((n_outputs, *shape), device=device)
        self.norm = torch.zeros((1, *shape), device=device)

    def add(self, corner: Sequence[int], probs: Tensor, weight: Tensor) -> None:
        """Add the probabilities (K, *patch) of the window at ``corner``, weighted by ``weight`` (*patch)."""
        at = [start - self.first if axis == self.main_axis else start for axis, start in enumerate(corner)]
        where = (slice(None), *window(at, weight.shape))
        self.total[where].addcmul_(probs, weight)
        self.norm[where] += weight

    def take(self, stop: int, inner: Sequence[slice]) -> Iterator[Tensor]:
        """Yield the averages (K, *) of all slices before ``stop``, a few at a time, and make room for later ones.

        ``inner`` is the part of the grid that is asked for; the rest is padding.
        """
        axis = 1 + self.main_axis
        at_once = max(1, CHUNK_SIZE // (self.total.numel() // self.total.shape[axis]))
        span = inner[self.main_axis]
        first, last = max(self.first, span.start), min(stop, span.stop)
        others = tuple(slice(None) if each == self.main_axis else whole for each, whole in enumerate(inner))
        for low in range(first, last, at_once):
            block = (low - self.first, min(at_once, last - low))
            yield self.total.narrow(axis, *block).div_(self.norm.narrow(axis, *block))[(slice(None), *others)]
        if stop > self.first:
            move_up(self.total, axis, stop - self.first)
            move_up(self.norm, axis, stop - self.first)
            self.first = stop


def move_up(x: Tensor, axis: int, by: int) -> None:
    """Move the slices of ``x`` up along an axis, in place; zeros follow."""
    rest = x.shape[axis] - by
    for low in range(0, rest, by):  # so many at once that what is read and what is written do not overlap
        count = min(by, rest - low)
        x.narrow(axis, low, count).copy_(x.narrow(axis, low + by, count))
    x.narrow(axis, rest, by).zero_()


def mirrored(
    networks: Sequence[Network], patches: Tensor, axes: Sequence[int], activation: Activation = softmax
) -> Tensor:
    """Return (B, K, *patch) probabilities, averaged over the networks and every combination of flips along ``axes``."""
    flips = [flip for n in range(len(axes) + 1) for flip in combinations([axis + 2 for axis in axes], n)]
    total: Tensor | None = None
    for network in networks:
        for flip in flips:
            probs = activation(network(patches.flip(flip) if flip else patches)[0])
            probs = probs.flip(flip) if flip else probs
            total = probs if total is None else total.add_(probs)
    assert total is not None  # there is a network, and the empty combination of flips
    count = len(networks) * len(flips)
    return total.div_(count) if count > 1 else total


def pad(image: Tensor, patch_size: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad (C, *spatial) with zeros to the patch size; also return where the image lies in the result."""
    missing = [max(0, patch - size) for size, patch in zip(image.shape[1:], patch_size, strict=True)]
    inner = tuple(slice(m // 2, m // 2 + size) for m, size in zip(missing, image.shape[1:], strict=True))
    if not any(missing):
        return image, inner
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
