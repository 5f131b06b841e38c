"""Uncertainty against SciPy's entropy, and as other readers find it in the files."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from scan_files import read_scan
from scipy.ndimage import distance_transform_cdt
from scipy.stats import entropy as reference

from medseg.inference.uncertainty import (
    UncertaintyMap,
    case_uncertainty,
    entropy,
    ranked,
    write_ranking,
    write_uncertainty,
)
from medseg.io.case import Scan


@pytest.mark.parametrize("classes", [2, 3, 117])
def test_entropy_of_classes_is_scipys(classes: int) -> None:
    scores = torch.softmax(torch.randn(classes, 4, 5, generator=torch.Generator().manual_seed(0)) * 3, 0)
    found = entropy(scores, regions=False).numpy()
    np.testing.assert_allclose(found, reference(scores.numpy(), base=classes, axis=0), atol=1e-5)


def test_entropy_of_regions_is_the_mean_of_each_by_itself() -> None:
    scores = torch.sigmoid(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3)
    each = [reference(np.stack([p, 1 - p]), base=2, axis=0) for p in scores.numpy()]
    np.testing.assert_allclose(entropy(scores, regions=True).numpy(), np.mean(each, axis=0), atol=1e-5)


@pytest.mark.parametrize("regions", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_certainty_is_0_and_a_guess_1(regions: bool, kind: torch.dtype) -> None:
    sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=kind)
    assert entropy(sure, regions=regions).tolist() == [0, 0]
    assert entropy(torch.full((2, 1), 0.5, dtype=kind), regions=regions).tolist() == [1]
    beyond = torch.tensor([[1.0000001], [-1e-7]])  # what rounding does
    assert entropy(beyond, regions=regions).item() == pytest.approx(0, abs=1e-5)


def test_a_map_is_made_of_slabs() -> None:
    scores = torch.softmax(torch.randn(3, 4, 5, 7, generator=torch.Generator().manual_seed(0)), 0)
    found = UncertaintyMap((4, 5, 7), regions=False)
    for low in (0, 3, 6):
        found(slice(low, min(7, low + 3)), scores[..., low : low + 3])
    expected = reference(scores.numpy(), base=3, axis=0)
    np.testing.assert_allclose(found.values / 255, expected, atol=0.5 / 255 + 1e-5)
    assert found.values.dtype == np.uint8


def test_a_case_is_as_uncertain_as_its_foreground_and_a_rim() -> None:
    random = np.random.default_rng(0)
    values, indices = random.integers(0, 256, (9, 10, 11), np.uint8), np.zeros((9, 10, 11), np.uint8)
    indices[0:3, 4, 5] = 2  # at the frame
    indices[6, 7, 8] = 1
    near = distance_transform_cdt(indices == 0, "taxicab") <= 1
    assert near.sum() == (3 + 4 * 3 + 1) + 7
    assert case_uncertainty(values, indices) == pytest.approx(values[near].mean() / 255, abs=1e-4)


def test_a_case_without_foreground_is_as_uncertain_as_its_least_certain_voxel() -> None:
    values = np.zeros((4, 5), np.uint8)
    values[2, 3] = 51
    assert case_uncertainty(values, np.zeros((4, 5), np.uint8)) == 0.2


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (4, 5, 1)])
def test_a_map_is_nifti_with_a_slope_on_the_scans_grid(shape: tuple[int, ...], tmp_path: Path) -> None:
    affine = np.array([[0, -2, 0, 10], [1, 0, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(np.ones(shape, np.int16), affine), tmp_path / "scan.nii.gz")
    scan = read_scan([tmp_path / "scan.nii.gz"])
    values = np.random.default_rng(0).integers(0, 256, scan.shape, np.uint8)
    file = write_uncertainty(tmp_path / "a/scan", values, scan)
    assert file == tmp_path / "a/scan.nii.gz"
    found = nib.load(file)
    np.testing.assert_allclose(found.get_fdata(), values / 255, atol=1e-6)
    np.testing.assert_allclose(found.affine, affine)
    assert (found.header.get_data_dtype(), found.shape) == (np.uint8, values.shape)
    image = sitk.ReadImage(str(file))
    np.testing.assert_allclose(sitk.GetArrayFromImage(image).T, values / 255, atol=1e-6)
    assert image.GetSpacing()[:2] == pytest.approx((1, 2))


def test_a_map_of_a_picture_is_a_grey_png(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 5), np.uint8)
    scan = Scan(np.zeros((3, 4, 5), np.float32), np.eye(4), "px")
    assert write_uncertainty(tmp_path / "cell.1", values, scan) == tmp_path / "cell.1.png"
    with Image.open(tmp_path / "cell.1.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), values)


def test_cases_are_ranked_by_uncertainty(tmp_path: Path) -> None:
    rows = [
        {"case": "sure", "uncertainty": 0.01},
        {"case": "failed", "error": "no scan"},
        {"case": "b", "uncertainty": "0.5"},  # as a CSV table has it
        {"case": "a", "uncertainty": 0.5},
        {"case": "empty", "uncertainty": ""},
    ]
    assert [(row["rank"], row["case"]) for row in ranked(rows)] == [(1, "a"), (2, "b"), (3, "sure")]
    write_ranking(tmp_path / "uncertainty.csv", rows)
    with (tmp_path / "uncertainty.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["a", "b", "sure"]
