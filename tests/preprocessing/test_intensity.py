"""Normalisation and denoising against SimpleITK, NumPy and values worked out by hand."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from medseg.errors import MedsegError
from medseg.preprocessing.intensity import DEFAULT_METHOD, METHODS, check_methods, denoise, normalise


def image(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape[1:], dtype=torch.bool)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_zscore_equals_simpleitk(scale: float, offset: float) -> None:
    x = scale * (offset + torch.randn(1, 40, 50, generator=torch.Generator().manual_seed(0)))
    count = x.numel()  # SimpleITK divides by count - 1
    expected = (
        sitk.GetArrayFromImage(sitk.Normalize(sitk.GetImageFromArray(x[0].numpy()))) * (count / (count - 1)) ** 0.5
    )
    np.testing.assert_allclose(normalise(x, everywhere(x), ["zscore"])[0], expected, atol=2e-4)


def test_zscore_of_many_large_values() -> None:
    x = (1e5 + torch.arange(4_000_000) % 2).float()[None]  # 100000, 100001, ...: a float32 sum would drift
    assert normalise(x, everywhere(x), ["zscore"]).unique().tolist() == [-1, 1]


def test_statistics_are_those_of_the_foreground() -> None:
    foreground = torch.tensor([False, False, True, True, True])
    got = normalise(image(0, 0, 2, 4, 6), foreground, ["zscore"])
    deviation = (8 / 3) ** 0.5
    torch.testing.assert_close(got, image(-4, -4, -2, 0, 2) / deviation)


def test_percentile() -> None:
    x = torch.arange(201.0)[None]
    got = normalise(x, everywhere(x), ["percentile"])[0]  # percentiles 1 and 199
    expected = (np.clip(np.arange(201), 1, 199) - 1) / 198
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_percentile_of_a_sparse_image_keeps_it() -> None:
    x = torch.zeros(1, 1001)
    x[0, 7] = 3
    assert normalise(x, everywhere(x), ["percentile"])[0, 7] == 1


def test_unit() -> None:
    foreground = torch.tensor([False, True, True, True])
    assert normalise(image(1, 2, 4, 6), foreground, ["unit"]).tolist() == [[0, 0, 0.5, 1]]


def test_ct() -> None:
    got = normalise(image(-1000, -50, 100, 3000), everywhere(image(1, 2, 3, 4)), ["ct"], [[-100, 200, 50, 25]])
    assert got.tolist() == [[-6, -4, 2, 6]]


def test_each_channel_by_its_own_method() -> None:
    x = torch.tensor([[1.0, 2, 3], [10, 20, 30], [7, 7, 7]])
    got = normalise(x, everywhere(x), ["none", "unit", "zscore"])
    assert got.tolist() == [[1, 2, 3], [0, 0.5, 1], [0, 0, 0]]


@pytest.mark.parametrize("method", METHODS)
def test_constant_channel_becomes_zeros(method: str) -> None:
    x = torch.full((1, 2, 3), 9.0)
    assert not normalise(x, everywhere(x), [method], [[0, 1, 0, 1]]).any()


@pytest.mark.parametrize("method", ["zscore", "percentile", "unit"])
def test_uniform_object_stays_visible(method: str) -> None:
    x = image(0, 0, 255, 255)
    got = normalise(x, x[0] > 0, [method])[0]
    assert got[0] == got[1]
    assert got[2] == got[3] > got[0] + 0.9


def test_modalities() -> None:
    assert set(DEFAULT_METHOD.values()) <= set(METHODS)
    assert DEFAULT_METHOD["ct"] == "ct"
    assert DEFAULT_METHOD[None] == "zscore"


def test_gaussian() -> None:
    spike = np.zeros((2, 21, 21), np.float32)
    spike[1, 10, 10] = 1
    got = denoise(spike, "gaussian", 1.5)
    assert not got[0].any()
    assert got.dtype == np.float32
    assert got[1].sum() == pytest.approx(1, abs=1e-5)
    assert got[1, 10, 12] / got[1, 10, 10] == pytest.approx(np.exp(-(2**2) / (2 * 1.5**2)), rel=1e-4)


def test_median() -> None:
    x = np.zeros((1, 7, 7), np.float32)
    x[0, :, 4:] = 1
    noisy = x.copy()
    noisy[0, 3, 1] = 50
    assert np.array_equal(denoise(noisy, "median", 1), x)
    noisy[0, 3, 1:3] = noisy[0, 2, 1:3] = 50  # four of nine voxels: still not the median; five would be
    assert np.array_equal(denoise(noisy, "median", 1)[0, :, :3], x[0, :, :3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["zscor"], None, None, 1), "'zscor' is not one of .* Did you mean 'zscore'"),
        ((["zscore", "ct"], None, None, 1), r"window=None: 'ct' needs \[low, high, mean, std\] per channel"),
        ((["zscore", "ct"], [[0, 1, 0, 1]], None, 1), "per channel"),
        ((["zscore"], None, "bilateral", 1), "'bilateral' is not one of gaussian, median"),
        ((["zscore"], None, "median", 0), "denoise_strength=0"),
    ],
)
def test_mistakes(arguments: tuple, message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        check_methods(*arguments)
