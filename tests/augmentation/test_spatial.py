"""Rotation, scaling and mirroring against SciPy, and the promises about what they leave alone."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medseg.augmentation import RandomNumbers, Spatial
from medseg.errors import MedsegError

SHAPES = [(24, 36), (20, 24, 30)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(batch: int, seed: int = 0) -> RandomNumbers:
    return RandomNumbers([seeded(seed * 1000 + index) for index in range(batch)])


def always(**options: object) -> Spatial:
    """A transform that rotates and scales every sample."""
    return Spatial(**{"rotation": 30, "rotation_probability": 1, "scale_probability": 1} | options)


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

    def constant(draws: RandomNumbers, bounds: Sequence[float], *shape: int) -> Tensor:
        return torch.full((len(draws), *shape), 25.0)

    monkeypatch.setattr(RandomNumbers, "uniform", constant)
    monkeypatch.setattr(RandomNumbers, "log_uniform", lambda draws, bounds: torch.full((len(draws),), float(bounds[0])))
    return np.deg2rad(25.0)


@pytest.mark.parametrize("spacing", [None, (1.0, 1.5, 2.0)])
@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
def test_it_is_the_affine_map_of_scipy(
    fixed_angle: float, shape: tuple[int, ...], spacing: tuple[float, ...] | None
) -> None:
    dims = len(shape)
    lengths = spacing[:dims] if spacing else None
    image, label = case(2, *shape, channels=2)
    transform = always(scale=(1.2, 1.2), spacing=lengths)
    new_image, new_label = transform(image.clone(), label.clone(), drawn(len(image)))

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
    new_image, new_label = always(scale=(0.9, 1.1), mirror_axes=[0, 1])(image.clone(), label.clone(), drawn(len(image)))
    neighbours = np.ones((3,) * len(shape))
    for new, mask in zip(new_image[:, 0].numpy() > 0.5, new_label[:, 0].numpy() > 0, strict=True):
        border = ndimage.binary_dilation(mask, neighbours) & ~ndimage.binary_erosion(mask, neighbours)
        assert mask.any()
        assert not ((new != mask) & ~border).any(), "they differ by a voxel at most"


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
def test_mirroring_alone_is_exact_and_as_often_as_not(shape: tuple[int, ...]) -> None:
    image, label = case(1, *shape)
    many, labels = image.expand(64, *image.shape[1:]), label.expand(64, *label.shape[1:])
    transform = Spatial(rotation_probability=0, scale_probability=0, mirror_axes=[1])
    new_image, new_label = transform(many, labels, drawn(64))
    is_mirrored = torch.tensor([bool((new == image[0].flip(2)).all()) for new in new_image])
    assert 20 < is_mirrored.sum() < 44
    assert torch.equal(new_image[~is_mirrored], many[~is_mirrored])
    assert torch.equal(new_label, torch.where(is_mirrored.reshape(-1, *[1] * (label.ndim - 1)), label.flip(3), label))


def test_mirroring_and_rotation_are_one_map() -> None:
    image, label = case(8, 24, 36)
    still = always(rotation=0, scale=(1, 1), mirror_axes=[0, 1])
    exact = Spatial(rotation=0, scale=(1, 1), rotation_probability=0, scale_probability=0, mirror_axes=[0, 1])
    by_interpolation = still(image.clone(), label.clone(), drawn(8))
    by_flips = exact(image.clone(), label.clone(), drawn(8))
    torch.testing.assert_close(by_interpolation[0], by_flips[0], atol=1e-4, rtol=0)
    assert torch.equal(by_interpolation[1], by_flips[1])
    assert not torch.equal(by_flips[0], image)


def test_samples_that_are_not_drawn_keep_their_bits() -> None:
    image, label = case(16, 24, 36)
    transform = Spatial(rotation_probability=0.5, scale_probability=0)
    new_image, new_label = transform(image.clone(), label.clone(), drawn(16))
    same_image, same_label = ((a == b).flatten(1).all(1) for a, b in ((image, new_image), (label, new_label)))
    assert torch.equal(same_image, same_label)
    assert 2 < same_image.sum() < 14


def test_every_sample_has_its_own_draw_and_a_seed_repeats_them() -> None:
    image, label = case(1, 24, 36)
    image, label = image.repeat(4, 1, 1, 1), label.repeat(4, 1, 1, 1)
    transform = always(mirror_axes=[0])
    first, again, other = (transform(image.clone(), label.clone(), drawn(len(image), seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert len({tuple(sample.flatten().tolist()) for sample in first[0]}) == 4


def test_objects_grow_by_the_magnification_and_turn_up_to_the_angle() -> None:
    rows, columns = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    bar = ((rows.abs() < 3) & (columns.abs() < 12))[None, None].to(torch.uint8)
    bars = bar.repeat(64, 1, 1, 1)
    _, larger = always(rotation=0, scale=(2, 2))(bars.float(), bars.clone(), drawn(len(bars)))
    assert larger.sum().item() == 4 * bars.sum().item()
    _, turned = always(rotation=40, scale=(1, 1))(bars.float(), bars.clone(), drawn(len(bars)))
    weights = turned[:, 0].float()
    mixed = (weights * rows * columns).sum((1, 2))
    angles = 0.5 * torch.atan2(2 * mixed, (weights * (columns**2 - rows**2)).sum((1, 2))).rad2deg()
    assert angles.abs().max() < 41
    assert angles.max() > 30
    assert angles.min() < -30


def test_a_thin_patch_is_a_stack_of_slices() -> None:
    slices = torch.arange(1.0, 9.0).reshape(1, 1, 8, 1, 1).expand(2, 1, 8, 32, 32).contiguous()
    new_image, new_label = always(rotation=90)(slices.clone(), slices.long(), drawn(len(slices)))
    inside = (slice(None), slice(None), slice(None), slice(12, 20), slice(12, 20))
    torch.testing.assert_close(new_image[inside], slices[inside])
    assert torch.equal(new_label[inside], slices.long()[inside])
    assert (new_image == 0).any(), "yet it has been turned within them"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_keep_their_type_and_values(dtype: torch.dtype) -> None:
    label = torch.randint(0, 201, (2, 1, 24, 36), generator=seeded()).clamp(max=200).to(torch.uint8).to(dtype)
    _, new = always()(torch.zeros(2, 1, 24, 36), label.clone(), drawn(2))
    assert new.dtype == dtype
    assert set(new.unique().tolist()) <= set(label.unique().tolist()) | {0}


def test_mixed_precision_does_not_move_the_grid() -> None:
    image, label = case(2, 20, 24, 30)
    expected = always()(image.clone(), label.clone(), drawn(len(image)))
    with torch.autocast("cpu", torch.bfloat16):
        result = always()(image.clone(), label.clone(), drawn(len(image)))
    assert torch.equal(result[0], expected[0])
    assert torch.equal(result[1], expected[1])


def test_the_margin_brings_in_the_true_neighbours(fixed_angle: float) -> None:
    image, label = case(2, 40, 50)
    transform = always(scale=(0.8, 0.8))
    assert transform.reach([20, 24]) <= [10, 13]
    new_image, new_label = transform(image, label, drawn(2), margin=(10, 13))
    assert new_image.shape == (2, 1, 20, 24)
    matrix = rotation(fixed_angle, 0, 1, 2) / 0.8
    expected = moved(image[0, 0], matrix, order=1)[10:-10, 13:-13]  # of the larger volume
    np.testing.assert_allclose(new_image[0, 0], expected, atol=2e-4)
    assert (new_label[0, 0].numpy() != moved(label[0, 0], matrix, order=0)[10:-10, 13:-13]).mean() < 5e-3


@pytest.mark.parametrize("shape", [(20, 24), (16, 20, 24), (4, 20, 24)], ids=["2D", "3D", "thin"])
def test_a_margin_of_its_reach_leaves_no_padding(shape: tuple[int, ...]) -> None:
    transform = always(rotation=None, elastic_probability=1, spacing=(1.0, 1.5, 2.0)[: len(shape)])
    margin = transform.reach(shape)
    assert len(shape) == 2 or shape[0] > 4 or margin[0] == 0
    whole = torch.ones(
        64, 1, *[size + 2 * beside + 2 * (beside > 0) for size, beside in zip(shape, margin, strict=True)]
    )
    wider = [beside + (beside > 0) for beside in margin]  # the outermost voxels fade into the padding
    new_image, new_label = transform(whole, whole.to(torch.uint8), drawn(64), margin=wider)
    assert new_image.shape[2:] == torch.Size(shape)
    torch.testing.assert_close(new_image, torch.ones_like(new_image), atol=1e-4, rtol=0)
    assert (new_label == 1).all()


def test_a_sample_that_stays_is_the_centre_of_its_larger_patch() -> None:
    image, label = case(3, 24, 36)
    transform = Spatial(rotation_probability=0, scale_probability=0)
    new_image, new_label = transform(image, label, drawn(3), margin=(2, 5))
    assert torch.equal(new_image, image[:, :, 2:-2, 5:-5])
    assert torch.equal(new_label, label[:, :, 2:-2, 5:-5])


@pytest.mark.parametrize("margin", [(0, 0, 0), (3, 4, 2)])
def test_a_sample_comes_out_the_same_in_every_batch(margin: tuple[int, ...]) -> None:
    image, label = case(5, 20, 24, 30)
    transform = Spatial(rotation_probability=0.5, elastic_probability=0.5, mirror_axes=[0, 1, 2])
    together = transform(image.clone(), label.clone(), drawn(5), margin)
    for index in range(5):
        draws = RandomNumbers([seeded(index)])
        alone = transform(image[index : index + 1].clone(), label[index : index + 1].clone(), draws, margin)
        torch.testing.assert_close(together[0][index : index + 1], alone[0], atol=1e-5, rtol=0)
        assert (together[1][index : index + 1] != alone[1]).float().mean() < 1e-3


@pytest.mark.parametrize("shape", [(40, 60), (24, 32, 40)], ids=["2D", "3D"])
def test_elastic_deformation_is_smooth_bounded_and_of_both_alike(shape: tuple[int, ...]) -> None:
    dims, length = len(shape), 0.3 * max(shape)
    options = {"elastic_probability": 1, "elastic_scale": 0.3, "elastic_magnitude": (0.4, 0.4)}
    transform = Spatial(rotation_probability=0, scale_probability=0, **options)
    beside = int(0.4 * length) + 2
    ranges = [torch.arange(float(-beside), size + beside) for size in shape]
    where = torch.stack(torch.meshgrid(*ranges, indexing="ij"))  # every voxel shows its own place
    stripes = (where.sum(0, keepdim=True) // 6 % 2).to(torch.uint8)
    many = [1] * (dims + 1)
    new_where, new_stripes = transform(where.repeat(3, *many), stripes.repeat(3, *many), drawn(3), [beside] * dims)
    inner = (slice(None), *[slice(beside, -beside)] * dims)
    displaced = (new_where - where[inner]).abs()
    assert displaced.max() <= 0.4 * length + 1e-3
    assert displaced.flatten(1).amax(1).min() > 1, "every sample is deformed"
    steps = np.stack(np.gradient(new_where.double().numpy(), axis=tuple(range(2, dims + 2))), axis=2)
    jacobian = np.linalg.det(np.moveaxis(steps, (1, 2), (-2, -1)))
    assert (jacobian > 0).all(), "nothing folds over"
    assert max(np.abs(np.diff(steps, axis=axis)).max() for axis in range(3, dims + 3)) < 0.3, "no kinks"
    read = (new_where.round().long() + beside).unbind(1)
    assert (stripes[0][read] != new_stripes[:, 0]).float().mean() < 2e-3, "the label is read where the image is"


def test_a_thin_patch_is_deformed_within_its_slices_all_alike() -> None:
    image = smooth(1, 1, 24, 36)[:, :, 0][:, :, None].repeat(2, 1, 5, 1, 1).reshape(2, 1, 5, 24, 36)
    transform = Spatial(
        rotation_probability=0, scale_probability=0, elastic_probability=1, elastic_magnitude=(0.3, 0.3)
    )
    new, _ = transform(image.clone(), (image > 0).to(torch.uint8), drawn(2))
    assert not torch.allclose(new, image, atol=0.05)
    torch.testing.assert_close(new, new[:, :, :1].expand_as(new), atol=1e-5, rtol=0)


def test_unknown_voxels_stay_unknown() -> None:
    label = torch.full((4, 1, 40, 40), 255, dtype=torch.uint8)
    _, new = always(elastic_probability=1)(torch.zeros(4, 1, 40, 40), label, drawn(4), margin=(8, 8))
    assert new.unique().tolist() in ([255], [0, 255])
    assert (new[:, :, 8:-8, 8:-8] == 255).all()


def test_probabilities_of_rotation_and_scaling_are_their_own() -> None:
    image, label = smooth(1, 12, 12).repeat(600, 1, 1, 1), torch.zeros(600, 1, 12, 12, dtype=torch.uint8)
    for options, share in (({"scale_probability": 0}, 0.2), ({"rotation_probability": 0}, 0.2), ({}, 0.36)):
        new, _ = Spatial(**options)(image.clone(), label.clone(), drawn(600))
        assert (new != image).flatten(1).any(1).float().mean().item() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "mirrored", "angle"),
    [
        ((64, 64, 64), [0, 1, 2], 30),
        ((40, 56, 40), [], 30),
        ((16, 64, 64), [0, 1], 30),
        ((16, 64, 64), [1, 2], 180),
        ((256, 256, 1), [0, 1], 180),
        ((64, 96), [0, 1], 180),
        ((64, 128), [0, 1], 15),
        ((64, 64), [0], 30),
    ],
)
def test_the_angle_follows_the_rule_where_none_is_given(shape, mirrored, angle) -> None:
    transform = Spatial(mirror_axes=mirrored, scale_probability=0)
    assert transform.reach(shape) == Spatial(rotation=angle, scale_probability=0).reach(shape)
    assert transform.reach(shape) != Spatial(rotation=angle / 6, scale_probability=0).reach(shape)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rotation": 200}, r"rotation of Spatial is 200; allowed: a number in \[0, 180\]"),
        ({"scale": [0, 1]}, r"scale of Spatial is \[0, 1\]"),
        ({"scale": [1.4, 0.7]}, "low <= high"),
        ({"scale_probability": 1.5}, "scale_probability of Spatial is 1.5"),
        ({"elastic_magnitude": [0, 0.5]}, "elastic_magnitude of Spatial"),
        ({"elastic_scale": 0}, "elastic_scale of Spatial is 0"),
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
        Spatial(**options)(*case(1, 24, 36), drawn(1))
