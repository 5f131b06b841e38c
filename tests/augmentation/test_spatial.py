"""Rotation, scaling and mirroring against SciPy, and the promises about what they leave alone."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medseg.augmentation import Spatial, spatial
from medseg.errors import MedsegError

SHAPES = [(24, 36), (20, 24, 30)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(batch: int, *shape: int, channels: int = 1) -> Tensor:
    """A smooth random image, of deviation 1."""
    noise = torch.randn(batch, channels, *shape, generator=seeded()).numpy()
    blurred = ndimage.gaussian_filter(noise, [0, 0, *[3.0] * len(shape)])
    return torch.from_numpy(blurred / blurred.std())


def case(batch: int, *shape: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """A smooth image and the label that its first channel has above 0.5."""
    image = smooth(batch, *shape, channels=channels)
    return image, (image[:, :1] > 0.5).to(torch.uint8)


def rotation(angle: float, first: int, second: int, dims: int) -> NDArray[np.float64]:
    matrix = np.eye(dims)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
    return matrix


def moved(volume: Tensor, matrix: NDArray[np.float64], order: int) -> NDArray[np.float32]:
    """SciPy's: the result at x is the volume at matrix @ x, both counted from the centre, and 0 outside."""
    centre = (np.array(volume.shape) - 1) / 2
    return ndimage.affine_transform(
        volume.numpy(), matrix, offset=centre - matrix @ centre, order=order, mode="grid-constant"
    )


@pytest.fixture
def fixed_angle(monkeypatch: pytest.MonkeyPatch) -> float:
    """Every rotation is by 25 degrees, from an axis to a later one."""

    def constant(bounds: Sequence[float], shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return torch.full(tuple(shape), 25.0)

    monkeypatch.setattr(spatial, "uniform", constant)
    return np.deg2rad(25.0)


@pytest.mark.parametrize("spacing", [None, (1.0, 1.5, 2.0)])
@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
def test_it_is_the_affine_map_of_scipy(
    fixed_angle: float, shape: tuple[int, ...], spacing: tuple[float, ...] | None
) -> None:
    dims = len(shape)
    lengths = spacing[:dims] if spacing else None
    image, label = case(2, *shape, channels=2)
    transform = Spatial(scale=(1.2, 1.2), probability=1, spacing=lengths)
    new_image, new_label = transform(image, label, seeded())

    turn = np.eye(dims)
    for first, second in [(0, 1), (0, 2), (1, 2)][: 1 if dims == 2 else 3]:
        turn = rotation(fixed_angle, first, second, dims) @ turn
    voxel = np.diag(lengths or (1.0,) * dims)
    matrix = np.linalg.inv(voxel) @ turn @ voxel / 1.2  # a magnified object is read from nearer the centre
    for sample, channel in product(range(2), range(2)):
        expected = moved(image[sample, channel], matrix, order=1)
        np.testing.assert_allclose(new_image[sample, channel], expected, atol=2e-4)
    expected_label = moved(label[0, 0], matrix, order=0)
    assert (new_label[0, 0].numpy() != expected_label).mean() < 1e-3, "but for voxels on the very middle"


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
def test_the_label_stays_with_the_image(shape: tuple[int, ...]) -> None:
    image, label = case(4, *shape)
    new_image, new_label = Spatial(scale=(0.9, 1.1), probability=1, mirror_axes=[0, 1])(image, label, seeded())
    neighbours = np.ones((3,) * len(shape))
    for new, mask in zip(new_image[:, 0].numpy() > 0.5, new_label[:, 0].numpy() > 0, strict=True):
        border = ndimage.binary_dilation(mask, neighbours) & ~ndimage.binary_erosion(mask, neighbours)
        assert mask.any()
        assert not ((new != mask) & ~border).any(), "they differ by a voxel at most"


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
def test_mirroring_alone_is_exact_and_as_often_as_not(shape: tuple[int, ...]) -> None:
    image, label = case(1, *shape)
    many, labels = image.expand(64, *image.shape[1:]), label.expand(64, *label.shape[1:])
    new_image, new_label = Spatial(probability=0, mirror_axes=[1])(many, labels, seeded())
    is_mirrored = torch.tensor([bool((new == image[0].flip(2)).all()) for new in new_image])
    assert 20 < is_mirrored.sum() < 44
    assert torch.equal(new_image[~is_mirrored], many[~is_mirrored])
    assert torch.equal(new_label, torch.where(is_mirrored.reshape(-1, *[1] * (label.ndim - 1)), label.flip(3), label))


def test_mirroring_and_rotation_are_one_map() -> None:
    image, label = case(8, 24, 36)
    still = Spatial(rotation=0, scale=(1, 1), probability=1, mirror_axes=[0, 1])
    exact = Spatial(rotation=0, scale=(1, 1), probability=0, mirror_axes=[0, 1])
    by_interpolation, by_flips = still(image, label, seeded()), exact(image, label, seeded())
    torch.testing.assert_close(by_interpolation[0], by_flips[0], atol=1e-4, rtol=0)
    assert torch.equal(by_interpolation[1], by_flips[1])
    assert not torch.equal(by_flips[0], image)


def test_samples_that_are_not_drawn_keep_their_bits() -> None:
    image, label = case(16, 24, 36)
    before = image.clone(), label.clone()
    new_image, new_label = Spatial(probability=0.5)(image, label, seeded())
    same_image, same_label = ((a == b).flatten(1).all(1) for a, b in ((image, new_image), (label, new_label)))
    assert torch.equal(same_image, same_label)
    assert 2 < same_image.sum() < 14
    assert torch.equal(image, before[0]), "what was given is not written to"
    assert torch.equal(label, before[1])


def test_every_sample_has_its_own_draw_and_a_seed_repeats_them() -> None:
    image, label = case(1, 24, 36)
    image, label = image.repeat(4, 1, 1, 1), label.repeat(4, 1, 1, 1)
    transform = Spatial(probability=1, mirror_axes=[0])
    first, again, other = (transform(image, label, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert len({tuple(sample.flatten().tolist()) for sample in first[0]}) == 4


def test_objects_grow_by_the_magnification_and_turn_up_to_the_angle() -> None:
    rows, columns = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    bar = ((rows.abs() < 3) & (columns.abs() < 12))[None, None].to(torch.uint8)
    bars = bar.repeat(64, 1, 1, 1)
    _, larger = Spatial(rotation=0, scale=(2, 2), probability=1)(bars.float(), bars, seeded())
    assert larger.sum().item() == 4 * bars.sum().item()
    _, turned = Spatial(rotation=40, scale=(1, 1), probability=1)(bars.float(), bars, seeded())
    weights = turned[:, 0].float()
    mixed = (weights * rows * columns).sum((1, 2))
    angles = 0.5 * torch.atan2(2 * mixed, (weights * (columns**2 - rows**2)).sum((1, 2))).rad2deg()
    assert angles.abs().max() < 41
    assert angles.max() > 30
    assert angles.min() < -30


def test_a_thin_patch_is_a_stack_of_slices() -> None:
    slices = torch.arange(1.0, 9.0).reshape(1, 1, 8, 1, 1).expand(2, 1, 8, 32, 32).contiguous()
    new_image, new_label = Spatial(rotation=90, probability=1)(slices, slices.long(), seeded())
    inside = (slice(None), slice(None), slice(None), slice(12, 20), slice(12, 20))
    torch.testing.assert_close(new_image[inside], slices[inside])
    assert torch.equal(new_label[inside], slices.long()[inside])
    assert (new_image == 0).any(), "yet it has been turned within them"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_keep_their_type_and_values(dtype: torch.dtype) -> None:
    label = torch.randint(0, 201, (2, 1, 24, 36), generator=seeded()).clamp(max=200).to(torch.uint8).to(dtype)
    _, new = Spatial(probability=1)(torch.zeros(2, 1, 24, 36), label, seeded())
    assert new.dtype == dtype
    assert set(new.unique().tolist()) <= set(label.unique().tolist()) | {0}


def test_mixed_precision_does_not_move_the_grid() -> None:
    image, label = case(2, 20, 24, 30)
    expected = Spatial(probability=1)(image, label, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        result = Spatial(probability=1)(image, label, seeded())
    assert torch.equal(result[0], expected[0])
    assert torch.equal(result[1], expected[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rotation": 200}, "rotation of Spatial is 200; allowed: degrees from 0 to 180"),
        ({"scale": [0, 1]}, r"scale of Spatial is \[0, 1\]"),
        ({"scale": [1.4, 0.7]}, "low <= high"),
        ({"probability": 1.5}, "probability of Spatial is 1.5"),
        ({"mirror_axes": [0, 0]}, "mirror_axes"),
        ({"mirror_axes": [3]}, "mirror_axes"),
        ({"spacing": [1, 0]}, "spacing"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        Spatial(**options)


@pytest.mark.parametrize("options", [{"mirror_axes": [2]}, {"spacing": [1.0, 1.0, 1.0]}])
def test_a_third_axis_is_refused_in_2d(options: dict[str, object]) -> None:
    with pytest.raises(MedsegError, match="the patch is 2D"):
        Spatial(**options)(*case(1, 24, 36), seeded())
