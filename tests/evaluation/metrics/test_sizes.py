"""Sizes against the formulas of bodies whose volume and surface are known."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medseg.evaluation.metrics.sizes import STEPS, columns, shares, sizes, surface_areas
from medseg.io.case import Scan
from medseg.io.labels import LabelMap

ONE = LabelMap({"background": 0, "body": 1})
Spacing = tuple[float, float, float]


def scan_of(indices: np.ndarray, affine: np.ndarray) -> Scan:
    return Scan(np.zeros((1, *indices.shape), np.float32), affine)


def points(spacing: Spacing, reach: float) -> np.ndarray:
    """World coordinates (i, j, k, 3) of a grid around 0 that reaches so far."""
    axes = [np.arange(-int(reach / step) - 2, int(reach / step) + 3) * step for step in spacing]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def ball(radius: float, spacing: Spacing) -> np.ndarray:
    off_centre = points(spacing, radius) - np.array([0.3, 0.1, -0.2]) * spacing
    return (np.linalg.norm(off_centre, axis=-1) <= radius).astype(np.uint8)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.75, 0.75, 1.5), (1.0, 1.0, 3.0)])
@pytest.mark.parametrize("radius", [10.0, 20.0])
def test_a_ball_has_its_volume_and_surface(radius: float, spacing: Spacing) -> None:
    indices = ball(radius, spacing)
    found = sizes(indices, scan_of(indices, np.diag([*spacing, 1.0])), ONE)
    assert found["body_ml"] == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.02)
    assert found["body_mm2"] == pytest.approx(4 * np.pi * radius**2, rel=0.015)
    assert found["body_voxels"] == np.count_nonzero(indices)


def test_a_ball_of_five_voxels_is_close() -> None:
    indices = ball(5, (1, 1, 1))
    found = sizes(indices, scan_of(indices, np.eye(4)), ONE)
    assert found["body_mm2"] == pytest.approx(100 * np.pi, rel=0.03)


def test_boxes_turned_at_random_have_their_surface_on_average() -> None:
    grid, half = points((1, 1, 1), 30), np.array([10.0, 15.0, 20.0])
    inside = [(np.abs(grid @ turn.T) <= half).all(-1) for turn in Rotation.random(8, random_state=0).as_matrix()]
    found = [sizes(body.astype(np.uint8), scan_of(body, np.eye(4)), ONE)["body_mm2"] for body in inside]
    assert np.mean(found) == pytest.approx(8 * (150 + 200 + 300), rel=0.03)


def test_a_box_along_the_grid_is_too_small_by_what_is_documented() -> None:
    indices = np.ones((100, 110, 120), np.uint8)  # the frame closes it
    found = sizes(indices, scan_of(indices, np.eye(4)), ONE)
    assert found["body_ml"] == pytest.approx(1320)
    assert found["body_mm2"] == pytest.approx(0.927 * 2 * (11000 + 12000 + 13200), rel=0.01)


def test_turning_the_patient_or_the_file_changes_nothing() -> None:
    indices = ball(6, (1, 1, 3))[:, :8]  # cut: no symmetry across the axes
    straight = np.diag([1.0, 1.0, 3.0, 1.0])
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", [30, 20, 10], degrees=True).as_matrix()
    expected = sizes(indices, scan_of(indices, straight), ONE)
    assert sizes(indices, scan_of(indices, turned @ straight), ONE) == pytest.approx(expected)
    flipped, swapped = indices[::-1].transpose(2, 0, 1), straight[:, [2, 0, 1, 3]]
    assert sizes(flipped, scan_of(flipped, swapped), ONE) == pytest.approx(expected)


def test_shares_are_those_of_the_isotropic_grid() -> None:
    found = shares(STEPS.astype(float))
    known = {1: 0.0915556, 2: 0.0739612, 3: 0.0703912}  # Legland, Kiêu and Devaux 2007, table 2, of both ends
    expected = [known[np.count_nonzero(step)] for step in STEPS]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.sum() == pytest.approx(1)


def test_regions_are_measured_as_what_they_unite() -> None:
    indices = ball(10, (1, 1, 1))
    indices[indices.shape[0] // 2 :] *= 2
    halves = LabelMap({"background": 0, "a": 1, "b": 2}, {"both": ["a", "b"], "right": ["b"]})
    found = sizes(indices, scan_of(indices, np.eye(4)), halves)
    whole = (indices > 0).astype(np.uint8)
    expected = sizes(whole, scan_of(whole, np.eye(4)), ONE)
    assert found["both_mm2"] == expected["body_mm2"]
    assert found["both_voxels"] == expected["body_voxels"]
    assert found["right_mm2"] == pytest.approx(3 * np.pi * 100, rel=0.06)  # a flat face along the grid
    assert list(found) != columns(halves)
    assert sorted(found) == sorted(columns(halves))


def test_what_is_not_there_is_0() -> None:
    three = LabelMap({"background": 0, "a": 1, "b": 2})
    empty, other = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.uint8)
    other[2, 2, 2] = 1
    assert set(sizes(empty, scan_of(empty, np.eye(4)), three).values()) == {0}
    found = sizes(other, scan_of(other, np.eye(4)), three)
    assert (found["a_voxels"], found["b_voxels"], found["b_ml"], found["b_mm2"]) == (1, 0, 0, 0)


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1)])
def test_pictures_have_voxels_alone(shape: tuple[int, ...]) -> None:
    indices = np.ones(shape, np.uint8)
    unit = "px" if len(shape) == 2 else "mm"
    found = sizes(indices, Scan(np.zeros((1, *shape), np.float32), np.eye(4), unit), ONE)
    assert found["body_voxels"] == 42
    assert ("body_mm2" in found) == (len(shape) == 3)


def test_a_surface_at_the_frame_is_that_of_the_same_body_inside() -> None:
    whole = np.zeros((9, 9, 9), np.uint8)
    whole[2:6, 1:7, 3:5] = 1
    members = np.eye(256, dtype=np.int64)[1:2]
    for edge, larger in pairwise([whole[2:6, 1:7, 3:5], whole[1:8, :, 2:7], np.pad(whole, 3)]):
        assert surface_areas(edge, np.eye(4), members) == pytest.approx(surface_areas(larger, np.eye(4), members))
