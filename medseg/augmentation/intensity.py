"""What changes an image's values and leaves the label as it is; forms and defaults are nnU-Net's.

Isensee et al. (Nature Methods 2021), supplementary note 2, and the recipe of nnU-Net v2's default trainer. Each sample
is chosen by ``probability``. Strengths are drawn for each of its channels, as modalities differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from medseg.augmentation.filters import along_axes, coarsened, gaussian
from medseg.augmentation.random import RandomNumbers
from medseg.augmentation.spatial import in_plane
from medseg.config.arguments import check_declared, check_range
from medseg.config.schema import Setting

Probability = Annotated[float, Setting("share of the samples that it changes", "[0, 1]")]
ChannelProbability = Annotated[float, Setting("share of the channels of these samples that it changes", "[0, 1]")]
Range = Annotated[Sequence[float], Setting("[low, high] to draw from", "(0, inf)")]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Add Gaussian noise. Its standard deviation, one a sample, is drawn between 0 and ``std``.

    ``std`` is in units of the normalised image, 0 or more. (nnU-Net calls its bound 0.1 a variance and uses it as a
    standard deviation, as here.)
    """

    probability: Probability = 0.1
    std: Annotated[float, Setting("largest standard deviation of the noise", "[0, inf)")] = 0.1

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("augment", self)

    def __call__(self, image: Tensor, label: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        chosen = random.chosen(self.probability).tolist()
        stds, seeds = random.uniform((0, self.std)).tolist(), random.seeds()
        image = image.contiguous()
        for index in [index for index, is_chosen in enumerate(chosen) if is_chosen]:
            # The noise itself is made where the image is: a volume of it would take long to make here and to move.
            generator = torch.Generator(image.device).manual_seed(seeds[index])
            noise = torch.empty_like(image[index]).normal_(generator=generator)
            image[index].add_(noise, alpha=stds[index])
        return image, label


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Convolve with a Gaussian whose standard deviation along each axis, in voxels, is drawn from ``sigma``.

    Each channel of a chosen sample is blurred with ``channel_probability``. nnU-Net mirrors the image at its borders
    and cuts the Gaussian off at about three standard deviations; this repeats the border and goes to four.
    """

    probability: Probability = 0.2
    channel_probability: ChannelProbability = 0.5
    sigma: Range = (0.5, 1.0)

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("augment", self)
        check_range("augment", self, "sigma")

    def __call__(self, image: Tensor, label: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        channels, shape = image.shape[1], image.shape[2:]
        chosen = _chosen(random, self.probability, self.channel_probability, channels)
        sigma = random.uniform(self.sigma, channels, len(shape))
        reach = int(4 * self.sigma[1] + 0.5)  # as scipy.ndimage

        def blur(x: Tensor, sigma: Tensor) -> Tensor:
            return along_axes(x, [gaussian(sigma[:, axis], size, reach) for axis, size in enumerate(shape)])

        return _change(image, chosen, blur, sigma), label


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """Multiply each channel by a factor drawn from ``factor``, as often below 1 as above."""

    probability: Probability = 0.15
    factor: Range = (0.75, 1.25)

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("augment", self)
        check_range("augment", self, "factor")

    def __call__(self, image: Tensor, label: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        channels = image.shape[1]
        chosen = _chosen(random, self.probability, 1, channels)
        factor = random.factors(self.factor, channels)
        return _change(
            image, chosen, lambda x, factor: x.flatten(1).mul_(factor[:, None]).reshape(x.shape), factor
        ), label


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Stretch each channel about its mean by a factor drawn from ``factor``, cut to its former range.

    Factors are as often below 1 as above.
    """

    probability: Probability = 0.15
    factor: Range = (0.75, 1.25)

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("augment", self)
        check_range("augment", self, "factor")

    def __call__(self, image: Tensor, label: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        channels = image.shape[1]
        chosen = _chosen(random, self.probability, 1, channels)
        return _change(image, chosen, _stretch, random.factors(self.factor, channels)), label


@dataclass(frozen=True, kw_only=True)
class LowResolution:
    """Make channels as coarse as if only a share of their voxels along each axis, drawn from ``scale``, were there.

    Each channel of a chosen sample is changed with ``channel_probability``. Voxels are taken by nearest neighbour and
    interpolated linearly. Thin 3D patches (see ``Spatial``) get coarser only within their slices.
    """

    probability: Probability = 0.25
    channel_probability: ChannelProbability = 0.5
    scale: Annotated[Sequence[float], Setting("[low, high] share of the voxels along each axis", "(0, 1]")] = (0.5, 1.0)

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("augment", self)
        check_range("augment", self, "scale")

    def __call__(self, image: Tensor, label: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        channels, shape = image.shape[1], image.shape[2:]
        chosen = _chosen(random, self.probability, self.channel_probability, channels)
        axes = in_plane(shape)

        def coarsen(x: Tensor, scale: Tensor) -> Tensor:
            scales = [scale if axis in axes else torch.ones_like(scale) for axis in range(len(shape))]
            return along_axes(x, [coarsened(*pair) for pair in zip(scales, shape, strict=True)])

        return _change(image, chosen, coarsen, random.uniform(self.scale, channels)), label


@dataclass(frozen=True, kw_only=True)
class Gamma:
    """Raise each channel, scaled to 0..1, to a power drawn from ``gamma``; its mean and standard deviation stay.

    With ``invert`` the channel is turned upside down before and back after, so that its bright end is bent most and not
    its dark one. Powers are as often below 1 as above.
    """

    probability: Probability = 0.3
    gamma: Range = (0.7, 1.5)
    invert: Annotated[bool, Setting("bend the bright end rather than the dark one")] = False

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("augment", self)
        check_range("augment", self, "gamma")

    def __call__(self, image: Tensor, label: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        channels = image.shape[1]
        chosen = _chosen(random, self.probability, 1, channels)

        def bend(x: Tensor, gamma: Tensor) -> Tensor:
            return _power(x.neg_(), gamma).neg_() if self.invert else _power(x, gamma)

        return _change(image, chosen, bend, random.factors(self.gamma, channels)), label


@dataclass(frozen=True, kw_only=True)
class ChannelDropout:
    """Set whole channels to 0, so that the network learns to do without them; at least one always stays.

    Each channel of a chosen sample is dropped with ``channel_probability``; if all would be, one is kept, any of them
    alike. nnU-Net has nothing like it. 0 is the mean of a channel normalised by z-score.
    """

    probability: Probability = 0.2
    channel_probability: ChannelProbability = 0.5

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("augment", self)

    def __call__(self, image: Tensor, label: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        chosen, numbers = random.chosen(self.probability, 1), random.standard(image.shape[1])
        dropped = chosen & (numbers < self.channel_probability) & (numbers < numbers.amax(1, keepdim=True))
        return _change(image, dropped, torch.zeros_like), label


def _chosen(random: RandomNumbers, probability: float, channel_probability: float, channels: int) -> Tensor:
    """Which channels of which samples are drawn: bool (B, C)."""
    return random.chosen(probability, 1) & random.chosen(channel_probability, channels)


def _change(image: Tensor, chosen: Tensor, function: Callable[..., Tensor], *strengths: Tensor) -> Tensor:
    """Replace channels of ``image`` (B, C, *spatial), in place, by ``function(channels, *strengths)``.

    ``chosen`` (B, C) and ``strengths`` (B, C, ...) are on the CPU. ``function`` gets the n chosen channels
    (n, *spatial), a copy, and their strengths (n, ...) on the image's device.
    """
    indices = chosen.flatten().nonzero().squeeze(1)
    if not len(indices):
        return image
    image = image.contiguous()
    moved = [s.flatten(0, 1)[indices].to(image.device, image.dtype, non_blocking=True) for s in strengths]
    indices = indices.to(image.device, non_blocking=True)
    channels = image.flatten(0, 1)  # (B C, *spatial), a view
    channels.index_copy_(0, indices, function(channels.index_select(0, indices), *moved))
    return image


def _stretch(x: Tensor, factor: Tensor) -> Tensor:
    """x (n, *spatial) stretched about the mean of each row by factor (n,), within its range; in place."""
    flat, factor = x.flatten(1), factor[:, None]
    low, high = flat.aminmax(dim=1, keepdim=True)
    mean = flat.mean(1, keepdim=True)
    flat.sub_(mean).mul_(factor).add_(mean).clamp_(low, high)
    return x


def _power(x: Tensor, gamma: Tensor) -> Tensor:
    """x (n, *spatial) to the power gamma (n,) within each row's range, mean and SD kept; in place."""
    flat = x.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    mean, std = _mean_and_std(flat)
    flat.sub_(low).div_((high - low).clamp_(min=_TINY)).pow_(gamma[:, None])
    bent_mean, bent_std = _mean_and_std(flat)
    flat.sub_(bent_mean).mul_(std / bent_std.clamp_(min=_TINY)).add_(mean)
    return x


def _mean_and_std(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n, 1) of each row; several times faster on a CPU than torch.std_mean."""
    mean = flat.mean(1, keepdim=True)
    return mean, torch.linalg.vector_norm(flat - mean, dim=1, keepdim=True) / flat.shape[1] ** 0.5


_TINY = 1e-7
"""Keeps the division by the range of a constant channel finite."""
