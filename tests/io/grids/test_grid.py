"""Where grids lie, by hand and by nibabel."""

import nibabel as nib
import numpy as np
import pytest

from medseg.io.grids.grid import Grid, as_volume, corner_shift, index_map, inside, overlap, same_grid, same_spacing

AFFINE = np.array([[0, -2, 0, 10], [1, 0, 0, -5], [0, 0, 3, 7], [0, 0, 0, 1.0]])
GRID = Grid((4, 5, 6), AFFINE)


def moved(x=0.0, y=0.0, z=0.0, grid=GRID):
    affine = grid.affine.copy()
    affine[:3, 3] += [x, y, z]
    return Grid(grid.shape, affine)


def test_spacing_corners_and_box():
    np.testing.assert_allclose(GRID.spacing, nib.affines.voxel_sizes(AFFINE))
    far = nib.affines.apply_affine(AFFINE, [3, 4, 5])
    np.testing.assert_allclose(GRID.corners[-1], far)
    # x from 10 down by four steps of 2, y from -5 up by three of 1, z from 7 up by five of 3; and half a voxel around
    np.testing.assert_allclose(GRID.box, [[1, -5.5, 5.5], [11, -1.5, 23.5]])


@pytest.mark.parametrize(("shift", "same"), [(0.09, True), (0.11, False)])
def test_the_tolerance_is_a_tenth_of_the_smallest_voxel(shift, same):
    assert corner_shift(GRID, moved(z=shift)) == pytest.approx(shift)
    assert same_grid(GRID, moved(z=shift)) is same
    assert not same_grid(GRID, Grid((4, 5, 7), AFFINE))


def test_spacing_is_the_same_wherever_a_grid_lies():
    turned = AFFINE[:, [0, 1, 2, 3]] * [-1, 1, -1, 1]
    assert same_spacing(moved(50), Grid(GRID.shape, turned))
    assert not same_spacing(GRID, Grid(GRID.shape, AFFINE * [1, 1, 1.02, 1]))  # 6 voxels · 2 % = 0.12 voxels
    assert same_spacing(GRID, Grid(GRID.shape, AFFINE * [1, 1, 1.01, 1]))


@pytest.mark.parametrize(
    ("move", "share"), [({}, 1), ({"y": 1}, 3 / 4), ({"x": 4, "z": -9}, 3 / 5 * 3 / 6), ({"z": 18}, 0), ({"x": 99}, 0)]
)
def test_overlap_is_a_share_of_the_voxels(move, share):
    assert overlap(moved(**move), GRID) == pytest.approx(share)


def test_overlap_of_a_large_grid_is_sampled_evenly():
    small = Grid((30, 40, 50), np.eye(4))
    affine = np.eye(4)
    affine[:3, 3] = -100
    large = Grid((200, 200, 200), affine)
    assert overlap(large, small) == 1
    assert overlap(small, large) == pytest.approx(30 * 40 * 50 / 200**3, rel=0.2)


def test_index_map_is_the_way_through_mm():
    other = Grid((3, 3, 3), np.array([[0.3, -1, 0.1, 2], [1.2, 0.2, 0, 1], [0.4, 0, 2, 8], [0, 0, 0, 1.0]]))
    index = [2, 1, 0]
    mm = nib.affines.apply_affine(other.affine, index)
    back = nib.affines.apply_affine(np.linalg.inv(AFFINE), mm)
    np.testing.assert_allclose(nib.affines.apply_affine(index_map(GRID, other), index), back)


def test_inside_reaches_half_a_voxel_beyond_the_centres():
    fine = Grid((9, 1, 1), np.diag([0.25, 1, 1, 1]))  # at 0, 0.25, … 2
    assert inside(Grid((2, 1, 1), np.eye(4)), fine)[:, 0, 0].tolist() == [True] * 7 + [False] * 2


def test_a_slice_is_a_volume_of_one_voxel():
    assert as_volume(GRID) is GRID
    np.testing.assert_array_equal(as_volume(Grid((4, 5), AFFINE)).affine, AFFINE)
    flat = AFFINE * [1, 1, 0, 1]
    volume = as_volume(Grid((4, 5), flat))
    assert volume.shape == (4, 5, 1)
    np.testing.assert_allclose(volume.affine[:3, 2], [0, 0, np.sqrt(2)])  # the side of a square as large as 1 · 2 mm²
    np.testing.assert_array_equal(volume.affine[:, [0, 1, 3]], flat[:, [0, 1, 3]])
