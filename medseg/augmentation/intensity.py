"""Noise, blur, brightness, contrast and gamma: they change the image's values and leave the label as it is.

The forms are nnU-Net's: Isensee et al. (Nature Methods 2021), supplementary note 2. Strengths differ by channel, as
modalities do; factors are drawn so that a half is as likely as a double.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.augmentation.draws import change, check, check_probability, check_range, chosen, log_uniform, uniform


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Add Gaussian noise. Its standard deviation, one a sample, is drawn between 0 and ``std``.

    ``std`` is in units of the normalised image, 0 or more.
    """

    probability: float = 0.15
    std: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_probability(self, self.probability)
        check(self, "std", self.std, self.std >= 0, "0 or more")

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        indices = chosen(len(image), self.probability, generator)
        std = uniform((0, self.std), (len(image), 1), generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        # The noise itself is made where the image is: a volume of it would take long to make here and to move there.
        noise = torch.Generator(image.device).manual_seed(seed)
        return change(image, indices, std, lambda x, s: _normal_like(x, noise).mul_(s).add_(x)), label


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Convolve with a Gaussian whose standard deviation, one a channel, is drawn from ``sigma``, in voxels."""

    probability: float = 0.1
    sigma: Sequence[float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_probability(self, self.probability)
        check_range(self, "sigma", self.sigma)

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        indices = chosen(len(image), self.probability, generator)
        sigma = uniform(self.sigma, image.shape[:2], generator)
        reach = int(4 * self.sigma[1] + 0.5)  # four sigma, as scipy.ndimage
        return change(image, indices, sigma, lambda x, s: _gaussian(x, s, reach)), label


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """Multiply each channel by a factor drawn from ``factor``."""

    probability: float = 0.15
    factor: Sequence[float] = (0.75, 1.25)

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_probability(self, self.probability)
        check_range(self, "factor", self.factor)

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        indices = chosen(len(image), self.probability, generator)
        factor = log_uniform(self.factor, image.shape[:2], generator)
        return change(image, indices, factor, torch.mul), label


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Stretch each channel about its mean by a factor drawn from ``factor``, cut to its former range."""

    probability: float = 0.15
    factor: Sequence[float] = (0.75, 1.25)

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_probability(self, self.probability)
        check_range(self, "factor", self.factor)

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        indices = chosen(len(image), self.probability, generator)
        factor = log_uniform(self.factor, image.shape[:2], generator)
        return change(image, indices, factor, _stretch), label


@dataclass(frozen=True, kw_only=True)
class Gamma:
    """Raise each channel, scaled to 0..1, to a power drawn from ``gamma``; its mean and deviation stay as they were."""

    probability: float = 0.3
    gamma: Sequence[float] = (0.7, 1.5)

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_probability(self, self.probability)
        check_range(self, "gamma", self.gamma)

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial) and its label -> the same shapes."""
        indices = chosen(len(image), self.probability, generator)
        gamma = log_uniform(self.gamma, image.shape[:2], generator)
        return change(image, indices, gamma, _power), label


def _normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def _gaussian(x: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Blur x (n, C, *spatial) by sigma (n, C, 1, ..., 1), axis by axis; the border voxels are repeated outwards.

    Shifted sums: every channel has a kernel of its own, and grouped convolutions are slow where groups are this small.
    """
    taps = [torch.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-reach, reach + 1)]
    kernel = torch.stack(taps)  # (taps, n, C, 1, ..., 1)
    kernel = kernel / kernel.sum(0)
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        edges = [0] * (2 * (x.ndim - 1 - axis)) + [reach, reach]
        padded = F.pad(x, edges + [0] * (2 * (x.ndim - 2) - len(edges)), mode="replicate")
        x = padded.narrow(axis, 0, size) * kernel[0]
        for tap in range(1, len(kernel)):
            x.addcmul_(padded.narrow(axis, tap, size), kernel[tap])
    return x


def _stretch(x: Tensor, factor: Tensor) -> Tensor:
    """x (n, C, *spatial) stretched about the mean of each channel by factor (n, C, 1, ..., 1)."""
    axes = tuple(range(2, x.ndim))
    mean, low, high = x.mean(axes, keepdim=True), x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
    return ((x - mean) * factor + mean).clamp(low, high)


def _power(x: Tensor, gamma: Tensor) -> Tensor:
    """x (n, C, *spatial) to the power gamma (n, C, 1, ..., 1) within each channel's range, mean and deviation kept."""
    axes = tuple(range(2, x.ndim))
    low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
    bent = ((x - low) / (high - low).clamp(min=_TINY)) ** gamma
    std, mean = torch.std_mean(x, axes, keepdim=True)
    bent_std, bent_mean = torch.std_mean(bent, axes, keepdim=True)
    return (bent - bent_mean) * (std / bent_std.clamp(min=_TINY)) + mean


_TINY = 1e-7
"""Keeps the division by the range of a constant channel finite."""
