"""Intensity augmentations against what they are defined to be."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from medseg.augmentation import (
    Blur,
    Brightness,
    ChannelDropout,
    Contrast,
    Gamma,
    LowResolution,
    Noise,
    RandomNumbers,
)
from medseg.errors import MedsegError

Transform = Callable[[Tensor, Tensor, RandomNumbers], tuple[Tensor, Tensor]]
CERTAIN: list[Transform] = [
    Noise(probability=1),
    Blur(probability=1, channel_probability=1),
    Brightness(probability=1),
    Contrast(probability=1),
    LowResolution(probability=1, channel_probability=1, scale=(0.3, 0.8)),
    Gamma(probability=1),
    Gamma(probability=1, invert=True),
]
SHAPES = [(20, 24), (10, 12, 14)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(batch: int, seed: int = 0) -> RandomNumbers:
    return RandomNumbers([seeded(seed * 1000 + index) for index in range(batch)])


def case(batch: int, *shape: int, channels: int = 2) -> tuple[Tensor, Tensor]:
    image = torch.randn(batch, channels, *shape, generator=seeded(7)) + 0.5
    return image, (image[:, :1] > 0).to(torch.uint8)


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
@pytest.mark.parametrize("transform", CERTAIN, ids=lambda transform: type(transform).__name__)
def test_each_changes_every_sample_its_own_way_and_no_label(transform: Transform, shape: tuple[int, ...]) -> None:
    image, label = case(1, *shape)
    image, label = image.repeat(3, *[1] * (image.ndim - 1)), label.repeat(3, *[1] * (label.ndim - 1))
    before = label.clone()
    first, again, other = (transform(image.clone(), label, drawn(3, seed)) for seed in (1, 1, 2))
    assert torch.equal(first[1], before)
    assert first[0].shape == image.shape
    assert first[0].isfinite().all()
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert len({tuple(sample.flatten().tolist()) for sample in [*first[0], image[0]]}) == 4


@pytest.mark.parametrize("transform", CERTAIN, ids=lambda transform: type(transform).__name__)
def test_a_sample_comes_out_the_same_in_every_batch(transform: Transform) -> None:
    image, label = case(4, 10, 12, 14)
    together, _ = transform(image.clone(), label, drawn(4))
    alone, _ = transform(image[2:3].clone(), label[2:3], RandomNumbers([seeded(2)]))
    torch.testing.assert_close(together[2:3], alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", [Noise, Brightness, Contrast, Gamma, Blur, LowResolution, ChannelDropout])
def test_each_leaves_the_samples_alone_that_are_not_drawn(kind: Callable[..., Transform]) -> None:
    image, label = case(400, 6, 6)
    assert torch.equal(kind(probability=0)(image.clone(), label, drawn(400))[0], image)
    new = kind(probability=0.3)(image.clone(), label, drawn(400))[0]
    changed = (new != image).flatten(2).any(2)
    by_channel = kind in (Blur, LowResolution, ChannelDropout)
    expected = {ChannelDropout: 0.3 * 0.75}.get(kind, 0.3 * 0.75 if by_channel else 0.3)
    assert changed.any(1).float().mean().item() == pytest.approx(expected, abs=0.07)
    if not by_channel:
        assert torch.equal(changed.any(1), changed.all(1))


def test_noise_has_zero_mean_and_a_deviation_up_to_its_bound() -> None:
    image, label = case(50, 40, 40)
    added = Noise(probability=1, std=0.2)(image.clone(), label, drawn(len(image)))[0] - image
    deviations = added.std((1, 2, 3))
    assert added.mean().abs() < 0.002
    assert deviations.max() < 0.21
    assert deviations.mean().item() == pytest.approx(0.1, abs=0.02), "uniform between 0 and the bound"
    other = Noise(probability=1, std=0.2)(image.clone(), label, drawn(len(image), 1))[0] - image
    patterns = torch.stack([added[:, 0], added[:, 1], other[:, 0]]).flatten(1)
    assert (torch.corrcoef(patterns) - torch.eye(3)).abs().max() < 0.05, "each channel and each seed has its own"


@pytest.mark.parametrize("shape", [*SHAPES, (3, 30)], ids=["2D", "3D", "narrower than the kernel"])
def test_blur_is_that_of_scipy(shape: tuple[int, ...]) -> None:
    image, label = case(2, *shape)
    new = Blur(probability=1, channel_probability=1, sigma=(0.8, 0.8))(image.clone(), label, drawn(len(image)))[0]
    sigmas = [0, 0, *[0.8] * len(shape)]
    expected = ndimage.gaussian_filter(image.numpy(), sigmas, mode="nearest", truncate=4)
    np.testing.assert_allclose(new, expected, atol=1e-5)


def test_blur_draws_a_sigma_for_each_channel_within_its_range() -> None:
    impulse = torch.zeros(20, 2, 21, 21)
    impulse[:, :, 10, 10] = 1
    new = Blur(probability=1, channel_probability=1, sigma=(0.5, 1.5))(
        impulse.clone(), impulse[:, :1].byte(), drawn(20)
    )[0]
    torch.testing.assert_close(new.sum((2, 3)), torch.ones(20, 2))
    offsets = torch.arange(21) - 10.0
    sigmas = (new.sum(3) * offsets**2).sum(2).sqrt()  # the deviation of the impulse's spread along the rows
    assert 0.45 < sigmas.min() < 0.7
    assert 1.3 < sigmas.max() < 1.52
    assert (sigmas[:, 0] - sigmas[:, 1]).abs().min() > 0


def test_brightness_multiplies_each_channel_by_a_factor_within_its_range() -> None:
    image, label = case(100, 6, 6)
    ratios = Brightness(probability=1, factor=(0.5, 2))(image.clone(), label, drawn(len(image)))[0] / image
    factors = ratios.mean((2, 3))
    torch.testing.assert_close(ratios, factors[:, :, None, None].expand_as(ratios))
    assert 0.5 <= factors.min() < 0.55
    assert 1.85 < factors.max() <= 2
    assert 0.4 < (factors < 1).float().mean() < 0.6, "as often darker as brighter"


@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_contrast_stretches_about_the_mean_within_the_former_range(factor: float) -> None:
    image, label = case(3, 20, 24)
    new = Contrast(probability=1, factor=(factor, factor))(image.clone(), label, drawn(len(image)))[0].numpy()
    for old, result in zip(image.flatten(0, 1).numpy(), new.reshape(-1, 20, 24), strict=True):
        stretched = (old - old.mean()) * factor + old.mean()
        np.testing.assert_allclose(result, stretched.clip(old.min(), old.max()), atol=1e-5)


@pytest.mark.parametrize("gamma", [0.7, 1.5])
def test_gamma_bends_within_the_range_and_keeps_mean_and_deviation(gamma: float) -> None:
    image, label = case(3, 20, 24)
    new = Gamma(probability=1, gamma=(gamma, gamma))(image.clone(), label, drawn(len(image)))[0].numpy()
    for old, result in zip(image.flatten(0, 1).numpy(), new.reshape(-1, 20, 24), strict=True):
        bent = ((old - old.min()) / np.ptp(old)) ** gamma
        expected = (bent - bent.mean()) / bent.std() * old.std() + old.mean()
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_inverted_gamma_bends_the_bright_end() -> None:
    image, label = case(2, 20, 24)
    new = Gamma(probability=1, gamma=(1.5, 1.5), invert=True)(image.clone(), label, drawn(2))[0].numpy()
    for old, result in zip(image.flatten(0, 1).numpy(), new.reshape(-1, 20, 24), strict=True):
        bent = -(((old.max() - old) / np.ptp(old)) ** 1.5)
        expected = (bent - bent.mean()) / bent.std() * old.std() + old.mean()
        np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(20, 24), (10, 12, 14), (4, 16, 20)], ids=["2D", "3D", "thin"])
@pytest.mark.parametrize("scale", [0.5, 0.63, 1.0])
def test_low_resolution_is_that_of_torch(shape: tuple[int, ...], scale: float) -> None:
    image, label = case(2, *shape)
    transform = LowResolution(probability=1, channel_probability=1, scale=(scale, scale))
    new = transform(image.clone(), label, drawn(2))[0]
    coarse = [size if size == 4 else round(size * scale) for size in shape]
    small = F.interpolate(image, coarse, mode="nearest-exact")
    expected = F.interpolate(small, shape, mode="bilinear" if len(shape) == 2 else "trilinear")
    torch.testing.assert_close(new, expected, atol=1e-5, rtol=0)


def test_channel_dropout_empties_channels_but_never_all() -> None:
    image = torch.ones(500, 3, 2, 2)
    new, _ = ChannelDropout(probability=1, channel_probability=0.9)(image.clone(), image[:, :1].byte(), drawn(500))
    kept = new.flatten(2).amin(2)
    assert set(new.unique().tolist()) == {0, 1}
    assert torch.equal(kept, new.flatten(2).amax(2)), "a channel as a whole"
    assert kept.sum(1).min() == 1
    assert (kept.mean(0) - kept.mean()).abs().max() < 0.06, "any of them alike"
    alone, _ = ChannelDropout(probability=1, channel_probability=1)(
        image[:, :1].clone(), image[:, :1].byte(), drawn(500)
    )
    assert (alone == 1).all()


def test_a_constant_channel_stays_what_it_is() -> None:
    image = torch.full((2, 1, 8, 8), 3.0)
    for transform in (Contrast(probability=1), Gamma(probability=1), Blur(probability=1), LowResolution(probability=1)):
        torch.testing.assert_close(transform(image.clone(), image.byte(), drawn(2))[0], image)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Noise(probability=-0.1), "probability of Noise is -0.1"),
        (lambda: Noise(std=-1), r"std of Noise is -1; allowed: a number in \[0, inf\)"),
        (lambda: Blur(sigma=(0, 1)), "sigma of Blur"),
        (lambda: Brightness(factor=(2, 1)), "factor of Brightness"),
        (lambda: Contrast(factor=(1,)), "factor of Contrast"),
        (lambda: Gamma(gamma=(0.5, float("inf"))), "gamma of Gamma"),
        (lambda: LowResolution(scale=(0.5, 1.5)), "scale of LowResolution"),
        (lambda: ChannelDropout(channel_probability=2), "channel_probability of ChannelDropout is 2"),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], Any], words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        build()


@pytest.mark.parametrize("name", ["none", "light", "default"])
def test_the_config_builds(name: str) -> None:
    group = OmegaConf.load(Path(__file__).parents[2] / f"conf/augment/{name}.yaml")
    planned = {"plan": {"mirror_axes": [0, 1]}, "preprocessing": {"spacing": [1.0, 2.0]}}
    config: Any = OmegaConf.to_container(OmegaConf.merge(planned, group), resolve=True)
    image, label = case(4, 20, 24)
    for spec in filter(None, [config["spatial"], *config["intensity"]]):
        module, _, kind = spec.pop("_target_").rpartition(".")
        image, label = getattr(importlib.import_module(module), kind)(**spec)(image.clone(), label, drawn(len(image)))
    assert image.isfinite().all()
