"""Distorting images in the ways of Models Genesis, so that a network learns what images look like by mending them.

Zhou et al., "Models Genesis: Generic Autodidactic Models for 3D Medical Image Analysis" (MICCAI 2019, Medical Image
Analysis 2021), with the probabilities of its published code. There, images have values from 0 to 1; here, each channel
is distorted within its own range in the patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from medseg.augmentation.random import RandomNumbers
from medseg.config.arguments import check_declared
from medseg.config.schema import Setting

KNOTS = 1000
"""Points of a curve between which intensities are interpolated."""
WINDOWS = 5
"""Windows painted in a sample at most; after each, the next comes with probability ``ANOTHER``."""
ANOTHER = 0.95
INNER = (1 / 6, 1 / 3)
"""Sizes of windows that are painted over, as shares of an axis."""
OUTER = (3 / 7, 4 / 7)
"""Sizes of windows that are kept while all else is painted over."""
SHUFFLED = 0.1
"""Largest window within which voxels are shuffled, as a share of an axis."""


@dataclass(frozen=True, kw_only=True)
class Genesis:
    """Shuffle voxels locally, bend intensities, paint over parts: the distortions of Models Genesis, in this order.

    Local shuffling differs in one point: Zhou et al. shuffle within 10 000 windows of random sizes, which together
    cover most of a volume; here a sample is divided into windows of one random size, at a random offset, and all of
    them are shuffled.

    Args:
        nonlinear_probability: of a sample's intensities to be bent by random Bézier curves, one a channel, half of
            which turn dark into bright.
        shuffling_probability: of its voxels to be shuffled within small windows.
        painting_probability: of parts of it to be replaced by noise.
        outpainting_share: of the painted samples in which what lies outside some windows is replaced, not inside.

    Raises:
        MedsegError: a probability is none.
    """

    nonlinear_probability: Annotated[float, Setting("share of the samples whose intensities are bent", "[0, 1]")] = 0.9
    shuffling_probability: Annotated[
        float, Setting("share of those whose voxels are shuffled in small windows", "[0, 1]")
    ] = 0.5
    painting_probability: Annotated[float, Setting("share of those of which parts are replaced by noise", "[0, 1]")] = (
        0.9
    )
    outpainting_share: Annotated[
        float, Setting("share of these that keep windows alone, not what is round them", "[0, 1]")
    ] = 0.8

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("pretext", self)

    def __call__(self, image: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Image (B, C, *spatial) -> the distorted image, and that all of it is to be mended, bool (B, 1, *spatial)."""
        low, high = image.flatten(2).aminmax(dim=2, keepdim=True)
        scaled = (image.flatten(2) - low) / (high - low).clamp(min=_TINY)
        scaled = scaled.reshape(image.shape)
        scaled = self._shuffle(scaled, random)
        scaled = self._bend(scaled, random)
        scaled = self._paint(scaled, random)
        distorted = (scaled.flatten(2) * (high - low) + low).reshape(image.shape)
        return distorted, torch.ones_like(image[:, :1], dtype=torch.bool)

    def _shuffle(self, image: Tensor, random: RandomNumbers) -> Tensor:
        """Shuffle the voxels of some samples within windows; those of all channels alike."""
        shape = image.shape[2:]
        is_chosen = random.chosen(self.shuffling_probability).tolist()
        largest = torch.tensor([max(1, int(size * SHUFFLED)) for size in shape])
        sizes = (random.standard(len(shape)) * largest).long() + 1  # (B, axes)
        offsets = (random.standard(len(shape)) * sizes).long()
        seeds = random.seeds()
        image = image.clone()
        for sample in [sample for sample, is_one in enumerate(is_chosen) if is_one]:
            windows = window_numbers(shape, sizes[sample].tolist(), offsets[sample].tolist(), image.device)
            generator = torch.Generator(image.device).manual_seed(seeds[sample])
            numbers = torch.rand(windows.numel(), generator=generator, device=image.device)
            image[sample] = shuffled_within(image[sample], windows, numbers)
        return image

    def _bend(self, image: Tensor, random: RandomNumbers) -> Tensor:
        """Bend the intensities of some samples, by a curve for each channel."""
        channels = image.shape[1]
        is_chosen = random.chosen(self.nonlinear_probability, 1).expand(-1, channels)
        points, is_inverted = random.standard(channels, 2, 2), random.chosen(0.5, channels)
        chosen = is_chosen.flatten().nonzero().squeeze(1)
        if not len(chosen):
            return image
        curves = bezier(points.flatten(0, 1)[chosen], is_inverted.flatten()[chosen])
        flat = image.flatten(0, 1).flatten(1).clone()  # (B C, voxels)
        positions, values = (curve.to(image.device, image.dtype, non_blocking=True) for curve in curves)
        chosen = chosen.to(image.device, non_blocking=True)
        flat[chosen] = interpolated(flat[chosen], positions, values)
        return flat.reshape(image.shape)

    def _paint(self, image: Tensor, random: RandomNumbers) -> Tensor:
        """Replace by noise what lies inside windows of some samples, or what lies outside those of others."""
        shape = image.shape[2:]
        is_painted, is_outer = random.chosen(self.painting_probability), random.chosen(self.outpainting_share)
        bounds = torch.where(is_outer[:, None], torch.tensor(OUTER), torch.tensor(INNER))  # (B, 2)
        low, high = bounds[:, None, None, :].unbind(-1)
        sizes = low + random.standard(WINDOWS, len(shape)) * (high - low)
        starts, another = random.standard(WINDOWS, len(shape)), random.standard(WINDOWS) < ANOTHER
        another[:, 0] |= is_outer  # one window is always kept
        there = another.cumprod(1).bool()
        starts, sizes, there, outer = (
            drawn.to(image.device, non_blocking=True) for drawn in (starts, sizes, there, is_outer)
        )
        windows = inside(shape, starts, sizes, there)
        seeds = random.seeds()
        replaced = (windows ^ outer.reshape(-1, *[1] * len(shape)))[:, None]
        image = image.clone()
        for sample in is_painted.nonzero().flatten().tolist():
            generator = torch.Generator(image.device).manual_seed(seeds[sample])
            noise = torch.rand(image[sample].shape, generator=generator, device=image.device, dtype=image.dtype)
            image[sample] = torch.where(replaced[sample], noise, image[sample])
        return image


def bezier(points: Tensor, is_inverted: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions and values (n, KNOTS) of n curves from 0…1 to 0…1: cubic Bézier curves, sorted to be functions.

    As in the code of Zhou et al.: positions are sorted, and so are the values, unless the curve is inverted; then these
    run from the curve's last point to its first.

    Args:
        points: the two inner control points (x, y) of each curve, in 0…1: (n, 2, 2).
        is_inverted: bool (n,).
    """
    t = torch.linspace(0, 1, KNOTS, dtype=torch.float64)
    weights = torch.stack([3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2])  # of the inner points; the outer ones are 0 and 1
    x, y = (points.double().mT @ weights + t**3).unbind(1)  # (n, KNOTS)
    values = torch.where(is_inverted[:, None], y.flip(1), y.sort(dim=1).values)
    return x.sort(dim=1).values, values


def interpolated(x: Tensor, positions: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly between knots: x (n, m), positions and values (n, knots), positions ascending."""
    upper = torch.searchsorted(positions, x.contiguous()).clamp(1, positions.shape[1] - 1)
    before, after = positions.gather(1, upper - 1), positions.gather(1, upper)
    weight = ((x - before) / (after - before).clamp(min=_TINY)).clamp(0, 1)
    return torch.lerp(values.gather(1, upper - 1), values.gather(1, upper), weight)


def window_numbers(shape: Sequence[int], sizes: Sequence[int], offsets: Sequence[int], device: torch.device) -> Tensor:
    """Number the windows of a sample: of each voxel (*shape) the number of the window that it lies in, int64."""
    numbers = torch.zeros(1, dtype=torch.long, device=device)
    for length, size, offset in zip(shape, sizes, offsets, strict=True):
        along = (torch.arange(length, device=device) + offset) // size
        numbers = numbers[..., None] * (length // size + 2) + along
    return numbers[0]


def shuffled_within(image: Tensor, windows: Tensor, numbers: Tensor) -> Tensor:
    """Shuffle voxels of (C, *spatial) among those of the same window, in the order of random ``numbers`` (voxels,)."""
    positions = windows.flatten().argsort(stable=True)  # window by window
    order = numbers.argsort()
    sources = order[windows.flatten()[order].argsort(stable=True)]  # the same, each window's in random order
    result = torch.empty_like(image.flatten(1))
    result[:, positions] = image.flatten(1)[:, sources]
    return result.reshape(image.shape)


def inside(shape: Sequence[int], starts: Tensor, sizes: Tensor, there: Tensor) -> Tensor:
    """Tell which voxels lie inside any window: bool (B, *shape).

    Args:
        shape: of the images.
        starts: where each of W windows begins, as a fraction of the positions where it can: (B, W, axes).
        sizes: how long it is, as a share of each axis; at least a voxel: (B, W, axes).
        there: which of the windows there are: bool (B, W).
    """
    is_inside = there
    for axis, length in enumerate(shape):
        size = (sizes[..., axis] * length).floor().clamp(min=1)
        first = (starts[..., axis] * (length - size + 1)).floor()
        voxels = torch.arange(length, device=starts.device)
        along = (voxels >= first[..., None]) & (voxels < (first + size)[..., None])  # (B, W, length)
        is_inside = is_inside[..., None] & along.reshape(*along.shape[:2], *[1] * axis, length)
    return is_inside.any(1)


_TINY = 1e-7
"""Keeps the division by the range of a constant channel finite."""
