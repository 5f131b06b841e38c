"""What lies outside the body, on phantoms with labels planted in the air, and on real scans where there are none."""

import numpy as np
import pytest

from medseg.io.case import Case, LabelFile, Scan
from medseg.io.datasets.annotations import read_labels
from medseg.io.files.read import read_case
from medseg.io.labels import LabelMap
from medseg.io.layouts.synthetic import make_phantom
from medseg.preprocessing.fingerprint.outside_body import labels_outside, where_outside

PHANTOMS = [(2, 64), (2, 128), (3, 32), (3, 48)]


@pytest.mark.parametrize(("dims", "size"), PHANTOMS)
@pytest.mark.parametrize("channels", [1, 4])
def test_lesions_inside_the_head_are_not_outside(dims, size, channels):
    for index in range(4):
        scan, truth = make_phantom(index, dims=dims, channels=channels, size=size, seed=1)
        assert where_outside(scan, truth, 4) is None


@pytest.mark.parametrize(("dims", "size"), PHANTOMS)
def test_a_label_planted_in_a_corner_is_outside(dims, size):
    for index in range(4):
        scan, truth = make_phantom(index, dims=dims, channels=1, size=size, seed=1)
        planted = np.zeros(truth.shape, bool)
        planted[(slice(0, 2),) * dims] = True
        truth[planted] = 2
        np.testing.assert_array_equal(where_outside(scan, truth, 4), planted)
        assert labels_outside(scan, truth, 4).tolist() == [0, 0, 2**dims, 0]


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 0.7, 5)])
def test_a_body_in_air_of_hounsfield_units(spacing):
    image = np.random.default_rng(0).normal(-1000, 15, (60, 60, 12)).astype(np.float32)
    image[10:50, 15:45] += 1040
    image[20:30, 20:40] -= 850  # lungs
    truth = np.zeros(image.shape, np.uint8)
    truth[20:30, 20:40], truth[35:45, 14:30], truth[2:5, 2:5, 4:6] = (
        1,
        2,
        3,
    )  # lungs; a voxel beyond the skin; in the air
    scan = Scan(image[None], np.diag([*spacing, 1.0]))
    assert labels_outside(scan, truth, 4).tolist() == [0, 0, 0, 18]


def test_scans_without_air_have_no_outside():
    image = np.random.default_rng(0).uniform(100, 200, (1, 30, 30, 30)).astype(np.float32)
    assert not labels_outside(Scan(image, np.eye(4)), np.ones((30, 30, 30), np.uint8), 2).any()


def test_cells_on_a_dark_ground_are_no_body():
    image = np.zeros((1, 120, 120), np.float32)
    for row in range(15, 110, 15):
        image[:, row : row + 6, 15:110:15] = image[:, row : row + 6, 16:110:15] = 200
    truth = np.zeros((120, 120), np.uint8)
    truth[60:66, 4:8] = 1
    assert not labels_outside(Scan(image, np.eye(4), "px"), truth, 2).any()


def test_a_channel_of_zeros_that_has_no_file_tells_nothing():
    scan, truth = make_phantom(0, dims=3, channels=1, size=32, seed=1)
    truth[:2, :2, :2] = 1
    both = Scan(np.concatenate([scan.image, np.zeros_like(scan.image)]), scan.affine)
    assert labels_outside(both, truth, 4).tolist() == labels_outside(scan, truth, 4).tolist() == [0, 8, 0, 0]


def test_lesions_of_a_large_scan_are_inside(real_data):
    folder = real_data / "ms_lesions/patient07"
    images = tuple(sorted(path for path in folder.glob("*.nii.gz") if path.name != "lesions.nii.gz"))
    case = Case("7", "7", images[:2], (LabelFile(folder / "lesions.nii.gz"),))
    scan = read_case(case)
    classes = LabelMap({"background": 0, "lesion": 1})
    truth = read_labels(case, classes, scan)
    assert truth.any()
    assert not labels_outside(scan, truth, 2).any()
    truth[:6, :6, :6] = 1
    assert labels_outside(scan, truth, 2).tolist() == [0, 216]
