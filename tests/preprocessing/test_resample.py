"""Resampling against PyTorch, PIL, SciPy and values worked out by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn.functional import interpolate

from medseg.preprocessing.resample import interpolation, resample_axis

LENGTHS = [(7, 7), (7, 20), (20, 7), (33, 32), (32, 33), (50, 3), (3, 50), (1, 4), (9, 1), (2, 1)]
MODES = {"cubic": "bicubic", "linear": "bilinear"}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("old", "new"), LENGTHS)
@pytest.mark.parametrize("kernel", MODES)
def test_equals_torch_with_antialias(kernel: str, old: int, new: int) -> None:
    x = noise(2, old, 5)
    expected = interpolate(x[None], size=(new, 5), mode=MODES[kernel], antialias=True, align_corners=False)[0]
    torch.testing.assert_close(resample_axis(x, 1, interpolation(old, new, kernel)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), LENGTHS)
@pytest.mark.parametrize(
    ("kernel", "method"), [("cubic", Image.Resampling.BICUBIC), ("linear", Image.Resampling.BILINEAR)]
)
def test_equals_pil(kernel: str, method: Image.Resampling, old: int, new: int) -> None:
    x = noise(6, old)
    expected = np.asarray(Image.fromarray(x.numpy()).resize((new, 6), method))
    np.testing.assert_allclose(resample_axis(x, 1, interpolation(old, new, kernel)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), LENGTHS)
def test_nearest_equals_torch(old: int, new: int) -> None:
    expected = interpolate(torch.arange(old).float()[None, None], size=new, mode="nearest-exact")[0, 0]
    got = resample_axis(torch.arange(old, dtype=torch.uint8), 0, interpolation(old, new, "nearest"))
    assert got.dtype == torch.uint8
    assert got.tolist() == expected.tolist()


def test_three_axes_equal_scipy() -> None:
    x, shape = noise(6, 5, 7), (9, 12, 8)
    zoom = np.divide(shape, x.shape)
    expected = ndimage.zoom(x.numpy(), zoom, order=1, mode="nearest", grid_mode=True)
    for axis, new in enumerate(shape):
        x = resample_axis(x, axis, interpolation(x.shape[axis], new, "linear"))
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_by_hand() -> None:
    # centres of the four output voxels lie at -0.25, 0.25, 0.75 and 1.25 input voxels; outer taps are dropped
    assert resample_axis(torch.tensor([0.0, 1.0]), 0, interpolation(2, 4, "linear")).tolist() == [0, 0.25, 0.75, 1]
    # shrinking by two: the triangle reaches two voxels, 3/8 and 1/8 inside, without the outermost 3/7 and 1/7
    halved = resample_axis(torch.tensor([0.0, 0, 8, 0]), 0, interpolation(4, 2, "linear"))
    torch.testing.assert_close(halved, torch.tensor([8 / 7, 24 / 7]))
    # output voxel 7 lies at 3.25; Keys' kernel at the distances 1.25, 0.25, 0.75 and 1.75
    _, weights = interpolation(8, 16, "cubic", slice(7, 8))
    expected = torch.tensor([[-9.0, 111, 29, -3]]) / 128
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("kernel", ["cubic", "linear", "nearest"])
@pytest.mark.parametrize(("old", "new"), LENGTHS)
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_equal_those_of_the_whole(kernel: str, old: int, new: int, axis: int) -> None:
    x = noise(old, old)
    whole = resample_axis(x, axis, interpolation(old, new, kernel))
    rows = slice(new // 3, new // 3 + max(1, new // 2))
    part = resample_axis(x, axis, interpolation(old, new, kernel, rows))
    assert torch.equal(part, whole[rows] if axis == 0 else whole[:, rows])


@pytest.mark.parametrize("kernel", ["cubic", "linear", "nearest"])
def test_equal_length_is_the_same_memory(kernel: str) -> None:
    x = noise(4, 6)
    assert resample_axis(x, 1, interpolation(6, 6, kernel)).data_ptr() == x.data_ptr()
    part = resample_axis(x, 0, interpolation(4, 4, kernel, slice(1, 3)))
    assert part.data_ptr() == x[1:].data_ptr()
    assert torch.equal(part, x[1:3])


@pytest.mark.parametrize(("old", "new"), LENGTHS)
def test_weights_add_up_to_one(old: int, new: int) -> None:
    indices, weights = interpolation(old, new, "cubic")
    assert indices.shape == weights.shape
    assert indices.dtype == torch.int64
    assert (len(indices), weights.dtype) == (new, torch.float32)
    assert indices.min() >= 0
    assert indices.max() < old
    torch.testing.assert_close(weights.sum(1), torch.ones(new))


def test_shrinking_removes_what_the_coarse_grid_cannot_hold() -> None:
    stripes = torch.tensor([0.0, 1]).repeat(40)
    inner = resample_axis(stripes, 0, interpolation(80, 20, "cubic"))[2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), rtol=0, atol=0.02)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strided_input(axis: int) -> None:
    x = noise(5, 6, 7).permute(2, 0, 1)
    got = resample_axis(x, axis, interpolation(x.shape[axis], 9, "cubic"))
    assert torch.equal(got, resample_axis(x.contiguous(), axis, interpolation(x.shape[axis], 9, "cubic")))
