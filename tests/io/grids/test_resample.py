"""Images and labels on other grids, compared with SimpleITK, with known functions of the place, and there and back."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from medseg.io.grids.grid import Grid
from medseg.io.grids.resample import resample_image, resample_labels

SOURCE = Grid((22, 26, 18), np.array([[0.2, -1.5, 0.1, 20], [-1.3, -0.1, 0.4, 16], [0.3, 0.2, 2.0, -24], [0, 0, 0, 1]]))
TO_ITK = np.diag([-1.0, -1.0, 1.0])  # RAS to LPS


def centred(shape, matrix, centre):
    """A grid whose middle lies at ``centre`` in mm."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = centre - matrix @ ((np.array(shape) - 1) / 2)
    return Grid(tuple(shape), affine)


def middle(grid):
    return grid.box.mean(0)


def random_grid(seed, spacing=(0.8, 2.2), shear=0.2, shape=(20, 24, 16)):
    """A grid around the middle of ``SOURCE``, its axes anywhere and not at right angles."""
    rng = np.random.default_rng(seed)
    matrix = Rotation.random(rng=rng).as_matrix() * rng.uniform(*spacing, 3)
    matrix = matrix @ (np.eye(3) + rng.uniform(-shear, shear, (3, 3)))
    return centred(shape, matrix * rng.choice([-1, 1], 3), middle(SOURCE) + rng.uniform(-2, 2, 3))


def noise(grid, blur=1.5, seed=0):
    return gaussian_filter(np.random.default_rng(seed).normal(size=grid.shape), blur).astype(np.float32)


def positions(grid):
    """Where voxels lie in mm, (*shape, 3)."""
    return nib.affines.apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))


def depth(grid, source=SOURCE):
    """How far voxels of ``grid`` lie within the outermost centres of ``source``, in its voxels; negative outside."""
    indices = nib.affines.apply_affine(np.linalg.inv(source.affine), positions(grid))
    return np.minimum(indices, np.array(source.shape) - 1 - indices).min(-1)


def itk(array, grid):
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    matrix = TO_ITK @ grid.affine[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin((TO_ITK @ grid.affine[:3, 3]).tolist())
    return image


def by_itk(array, source, target, kernel=sitk.sitkLinear, outside=0.0):
    reference = itk(np.zeros(target.shape, np.uint8), target)
    image = sitk.Resample(itk(array, source), reference, sitk.Transform(), kernel, float(outside), sitk.sitkFloat32)
    return sitk.GetArrayFromImage(image).T


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spacing", [(0.5, 1.2), (0.8, 2.2), (3.0, 6.0)])
def test_a_gradient_stays_where_it_is(seed, spacing):
    # linear interpolation, and any mean about the centre, give a linear function of the place back as it is
    target = random_grid(seed, spacing, shape=(12, 10, 14))
    slope = np.array([1.0, -2.0, 0.5])
    result = resample_image((positions(SOURCE) @ slope).astype(np.float32)[None], SOURCE, target)[0]
    reach = np.linalg.norm(np.linalg.solve(SOURCE.affine, target.affine)[:3, :3], axis=0).sum() / 2
    within = depth(target) > reach
    if spacing[0] < 3:
        assert within.mean() > 0.1
    np.testing.assert_allclose(result[within], (positions(target) @ slope)[within], atol=2e-4)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shear", [0.0, 0.2])
def test_values_are_those_of_simpleitk(seed, shear):
    target = random_grid(seed, (0.7, 1.3), shear, shape=(36, 34, 32))
    image = noise(SOURCE)
    result = resample_image(image[None], SOURCE, target)[0]
    expected = by_itk(image, SOURCE, target, outside=image.min())
    assert 0.2 < (expected > image.min()).mean() < 1
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("scale", [(1, 1, 1.4), (0.5, 0.7, 1), (1.2, 0.3, 0.9)])
def test_parallel_axes_give_simpleitks_values_too(scale):
    matrix = SOURCE.affine[:3, :3] * scale
    target = centred((30, 20, 24), matrix[:, [2, 0, 1]] * [1, -1, 1], middle(SOURCE) + np.array([1, 2, 3]))
    image = noise(SOURCE)
    expected = by_itk(image, SOURCE, target, outside=image.min())
    assert (expected > image.min()).mean() > 0.3
    np.testing.assert_allclose(resample_image(image[None], SOURCE, target)[0], expected, atol=1e-4)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("flips", [*itertools.product([1, -1], repeat=3)])
def test_other_axis_orders_and_flips_are_copies(order, flips):
    image, labels = noise(SOURCE), np.random.default_rng(0).integers(0, 9, SOURCE.shape, dtype=np.int32)
    turn = np.array([*zip(order, flips, strict=True)])
    shape = tuple(np.array(SOURCE.shape)[np.argsort(order)])
    target = Grid(shape, SOURCE.affine @ nib.orientations.inv_ornt_aff(turn, SOURCE.shape))
    expected = [nib.orientations.apply_orientation(array, turn) for array in (image, image**2, labels)]
    np.testing.assert_array_equal(resample_image(np.stack([image, image**2]), SOURCE, target), expected[:2])
    np.testing.assert_array_equal(resample_labels(labels, SOURCE, target), expected[2])


@pytest.mark.parametrize("rounding", [0, 3e-8])
def test_where_grids_coincide_voxels_are_copies_though_headers_are_of_single_precision(rounding):
    rng = np.random.default_rng(0)
    image = rng.random((50, 61, 47)).astype(np.float32) * (rng.random((50, 61, 47)) < 0.1)
    affine = np.diag([0.9, 0.7, 1.1, 1]) @ np.array([[1, 0, 0, 3], [0, 1, 0, -5], [0, 0, 1, 7], [0, 0, 0, 1]])
    affine[:3] *= 1 + rounding * rng.normal(size=(3, 4))
    expected = np.zeros((49, 73, 31), np.float32)
    expected[:47, 5:66] = image[3:, :, 7:38]
    result = resample_image(image[None], Grid(image.shape, np.diag([0.9, 0.7, 1.1, 1])), Grid(expected.shape, affine))
    np.testing.assert_array_equal(result[0], expected)


def test_a_coarse_voxel_is_the_mean_of_those_in_it():
    image = np.random.default_rng(0).normal(size=(12, 9, 10)).astype(np.float32)
    coarse = Grid((4, 3, 5), np.array([[3, 0, 0, 1], [0, 3, 0, 1], [0, 0, 2, 0.5], [0, 0, 0, 1.0]]))
    expected = image.reshape(4, 3, 3, 3, 5, 2).mean((1, 3, 5))
    result = resample_image(image[None], Grid(image.shape, np.eye(4)), coarse)[0]
    np.testing.assert_allclose(result[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-5)


def test_noise_does_not_come_back_on_a_coarse_rotated_grid():
    source = Grid((48, 48, 48), np.eye(4))
    image = np.random.default_rng(0).normal(size=source.shape).astype(np.float32)
    target = centred((9, 9, 9), 3 * Rotation.from_euler("xyz", [0.3, 0.5, 0.2]).as_matrix(), middle(source))
    assert resample_image(image[None], source, target).std() < 0.3  # of 27 voxels' mean: 0.19
    assert by_itk(image, source, target).std() > 0.5  # without a low-pass


@pytest.mark.parametrize("lowest", [0.1, -1024.0])
def test_background_keeps_its_value_and_goes_on_outside(lowest):
    image = np.maximum(noise(SOURCE), 0) * 1000 + np.float32(lowest)
    for target in (random_grid(0), random_grid(1, (3, 6)), Grid((40, 30, 30), SOURCE.affine * [0.6, 0.7, 1.9, 1])):
        result = resample_image(image[None], SOURCE, target)[0]
        assert result.min() == image.min()
        assert (result == image.min()).mean() > 0.1
        assert result.max() <= image.max() * (1 + 1e-6)
        assert (result[depth(target) < -0.51] == image.min()).all()


def test_there_and_back():
    target = random_grid(3, (0.8, 1.0), shape=(90, 90, 90))
    image = noise(SOURCE, blur=2)
    back = resample_image(resample_image(image[None], SOURCE, target), target, SOURCE)[0]
    assert np.corrcoef(back.ravel(), image.ravel())[0, 1] > 0.98
    labels = (image > 0).astype(np.int32) + 2 * (image > 0.05)
    there = resample_labels(resample_labels(labels, SOURCE, target), target, SOURCE)
    assert (there == labels).mean() > 0.95


def shares_by_itk(labels, source, target):
    """The share of each value in each voxel, one after the other through SimpleITK; of 0, what the others leave."""
    values = np.array([0, *np.unique(labels[labels != 0])])
    shares = [by_itk((labels == value).astype(np.float32), source, target) for value in values[1:]]
    return values, np.stack([1 - sum(shares), *shares])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 40])
def test_labels_are_the_largest_share(seed, count):
    rng, target = np.random.default_rng(seed), random_grid(seed, (0.7, 1.3))
    sites = rng.uniform(middle(SOURCE) - 18, middle(SOURCE) + 18, (count, 3))
    values = rng.choice([*range(-50, 0), *range(1, 5000)], count, replace=False)
    labels = values[np.linalg.norm(positions(SOURCE)[..., None, :] - sites, axis=-1).argmin(-1)].astype(np.int32)
    labels[np.linalg.norm(positions(SOURCE) - middle(SOURCE), axis=-1) > 16] = 0
    values, shares = shares_by_itk(labels, SOURCE, target)
    second, first = np.sort(shares, axis=0)[-2:]
    clear = first - second > 1e-4
    assert clear.mean() > 0.95
    result = resample_labels(labels, SOURCE, target)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result[clear], values[shares.argmax(0)][clear])


def ball(grid, radius=11.0):
    return (np.linalg.norm(positions(grid) - middle(SOURCE), axis=-1) < radius).astype(np.int32)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("spacing", [(0.6, 0.9), (1.2, 1.9), (3.0, 3.5)])
def test_a_ball_stays_rounder_than_by_nearest_neighbours(spacing):
    scores = []
    for seed in range(6):
        target = random_grid(seed, spacing, shape=(40, 40, 40))
        truth, labels = ball(target), ball(SOURCE)
        nearest = by_itk(labels.astype(np.float32), SOURCE, target, sitk.sitkNearestNeighbor).astype(np.int32)
        scores.append((dice(resample_labels(labels * 7, SOURCE, target) // 7, truth), dice(nearest, truth)))
    ours, nearest = np.mean(scores, axis=0)
    assert ours > max(nearest, 0.95)


def test_labels_outside_the_source_are_background():
    labels = np.full(SOURCE.shape, 3, dtype=np.int32)
    target = random_grid(0, (1.5, 2.5))
    for background in (0, 9):
        result = resample_labels(labels, SOURCE, target, background)
        assert (result[depth(target) < -0.51] == background).all()
        assert (result[depth(target) > -0.49] == 3).all()
        assert {*np.unique(result)} == {3, background}


def test_slices_are_found_in_their_plane_only():
    affine = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]])
    image = noise(Grid((20, 24), affine))
    turned = affine[:, [1, 0, 2, 3]] * [1, -1, 1, 1]
    turned[:3, 3] = [19.0, 0, 1.9]  # half a slice away is within
    turned[:3, :2] = [[0, -1], [1, 0], [0, 0]]
    target = Grid((24, 20), turned)
    np.testing.assert_allclose(
        resample_image(image[None], Grid(image.shape, affine), target)[0], image[::-1].T, atol=1e-6
    )
    turned = turned.copy()
    turned[2, 3] = 2.1
    result = resample_image(image[None], Grid(image.shape, affine), Grid((24, 20), turned))
    assert (result == image.min()).all()
