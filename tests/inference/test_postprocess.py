"""Post-processing against hand-made masks, scikit-image and the definition on the whole volume."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops
from skimage.segmentation import clear_border

from medseg.errors import MedsegError
from medseg.inference.postprocess import postprocess
from medseg.io.case import Scan

SHAPES = [((60, 50), (1.0, 1.0), "px"), ((24, 30, 12), (0.8, 0.8, 3.0), "mm")]


def blobs(shape: tuple[int, ...], seed: int = 0, sigma: float = 1.5) -> np.ndarray:
    """Two classes with ragged borders, holes, specks and parts at the frame."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal(shape), sigma)
    other = gaussian_filter(rng.standard_normal(shape), sigma)
    return np.where(field > 0.3 * field.max(), 1 + (other > 0), 0).astype(np.uint8)


def drawn(*rows: str) -> np.ndarray:
    return np.array([[int(letter) for letter in row.replace(".", "0")] for row in rows], np.uint8)


def test_all_off_returns_the_same_array() -> None:
    indices = blobs((20, 20))
    assert postprocess(indices, (1.0, 1.0), "px") is indices


@pytest.mark.parametrize(("shape", "spacing", "unit"), SHAPES)
def test_input_is_left_alone(shape, spacing, unit) -> None:
    indices = blobs(shape)
    before = indices.copy()
    result = postprocess(indices, spacing, unit, largest=True, min_voxels=5, fill_holes=True, smooth_mm=1.0)
    np.testing.assert_array_equal(indices, before)
    assert result.dtype == np.uint8
    assert result.shape == shape
    assert (result != before).any()


@pytest.mark.parametrize(("shape", "spacing", "unit"), SHAPES)
@pytest.mark.parametrize("smooth", [0.6, 1.5])
def test_smoothing_is_the_argmax_of_blurred_one_hot_maps(shape, spacing, unit, smooth) -> None:
    for seed in range(3):
        indices = np.pad(blobs(shape, seed, sigma=2), 8 * (seed % 2))  # parts at the frame, or the frame far away
        sigma = [smooth / step for step in spacing]
        scores = [gaussian_filter((indices == k).astype(float), sigma, mode="nearest") for k in range(3)]
        clear = np.diff(np.sort(scores, axis=0), axis=0)[-1] > 1e-5  # where rounding cannot decide
        result = postprocess(indices, spacing, unit, smooth_mm=smooth)
        np.testing.assert_array_equal(result[clear], np.argmax(scores, axis=0)[clear])
        assert clear.mean() > 0.99


def test_smoothing_far_from_the_frame_and_of_nothing() -> None:
    indices = np.zeros((40, 40, 40), np.uint8)
    assert not postprocess(indices, (1.0, 1.0, 1.0), "mm", smooth_mm=1.0).any()
    indices[15:25, 15:25, 15:25] = 7
    indices[20, 20, 30] = 3  # a lone voxel cannot win
    result = postprocess(indices, (1.0, 1.0, 1.0), "mm", smooth_mm=1.0)
    assert set(np.unique(result)) == {0, 7}
    assert result[20, 20, 20] == 7
    assert result[15, 15, 15] == 0  # corners become round


def test_holes_belong_to_the_class_round_them() -> None:
    indices = drawn(
        "..........",
        ".11111.22.",
        ".1...12..2",
        ".1.3.1.22.",
        ".1...1....",
        ".11111.4..",
        ".1.....4.4",
        ".11111.444",
    )
    expected = drawn(
        "..........",
        ".11111.22.",
        ".111112222",
        ".11311.22.",
        ".11111....",
        ".11111.4..",
        ".1.....4.4",
        ".11111.444",
    )
    np.testing.assert_array_equal(postprocess(indices, (1.0, 1.0), "px", fill_holes=True), expected)


def test_a_hole_between_two_classes_stays_and_the_innermost_class_wins() -> None:
    between = drawn("1122", "1..2", "1122")
    np.testing.assert_array_equal(postprocess(between, (1.0, 1.0), "px", fill_holes=True), between)
    nested = drawn("1111111", "1.....1", "1.222.1", "1.2.2.1", "1.222.1", "1.....1", "1111111")
    expected = drawn("1111111", "1111111", "1122211", "1122211", "1122211", "1111111", "1111111")
    np.testing.assert_array_equal(postprocess(nested, (1.0, 1.0), "px", fill_holes=True), expected)


@pytest.mark.parametrize(("shape", "spacing", "unit"), SHAPES)
def test_holes_agree_with_scikit_image(shape, spacing, unit) -> None:
    filled = 0
    for seed in range(4):
        indices = (np.random.default_rng(seed).random(shape) < 0.85).astype(np.uint8)  # full of holes
        holes = clear_border(label(indices == 0, connectivity=1)) > 0
        filled += holes.sum()
        np.testing.assert_array_equal(postprocess(indices, spacing, unit, fill_holes=True), indices | holes)
    assert filled


@pytest.mark.parametrize(("shape", "spacing", "unit"), SHAPES)
@pytest.mark.parametrize(("largest", "minimum"), [(True, 0), (False, 12), (True, 30)])
def test_components_agree_with_scikit_image(shape, spacing, unit, largest, minimum) -> None:
    for seed in range(4):
        indices = blobs(shape, seed)
        expected = np.zeros_like(indices)
        for k in (1, 2):
            components = label(indices == k, connectivity=len(shape))
            regions = sorted(regionprops(components), key=lambda region: -region.area)
            for region in regions[:1] if largest else regions:
                if region.area >= minimum:
                    expected[components == region.label] = k
        result = postprocess(indices, spacing, unit, largest=largest, min_voxels=minimum)
        np.testing.assert_array_equal(result, expected)
        assert (expected != indices).any()


def test_corners_connect() -> None:
    diagonal = np.zeros((6, 6, 6), np.uint8)
    diagonal[range(4), range(4), range(4)] = 1
    diagonal[5, 0, 0] = 1
    kept = postprocess(diagonal, (1.0, 1.0, 1.0), "mm", largest=True)
    assert kept.sum() == 4
    assert kept[5, 0, 0] == 0


def test_the_least_volume_counts_millilitres() -> None:
    indices = np.zeros((10, 10, 10), np.uint8)
    indices[1, 1, 1:3] = 1  # 2 voxels of 0.6 x 0.7 x 5 = 2.1 mm³
    indices[5, 5, 1:4] = 1  # 3 voxels: 6.3 mm³
    spacing = (0.6, 0.7, 5.0)
    assert postprocess(indices, spacing, "mm", min_ml=0.0063).sum() == 3  # exactly as large is not below
    assert postprocess(indices, spacing, "mm", min_ml=0.0042).sum() == 5
    assert postprocess(indices, spacing, "mm", min_ml=0.0064).sum() == 0
    assert postprocess(indices, spacing, "mm", min_ml=0.001, min_voxels=3).sum() == 3


def test_rounding_never_costs_a_component_of_just_the_least_volume() -> None:
    for voxels in range(2, 80):
        line = np.ones((voxels, 1, 1), np.uint8)
        assert postprocess(line, (0.1, 0.7, 0.3), "mm", min_ml=round(voxels * 0.021e-3, 6)).all()


def test_smoothing_comes_first_and_specks_last() -> None:
    ring = drawn(".........", ".1111111.", ".1.....1.", ".1.....1.", ".1.....1.", ".1111111.", ".........")
    assert postprocess(ring, (1.0, 1.0), "px", fill_holes=True, min_voxels=30).sum() == 35
    assert postprocess(ring, (1.0, 1.0), "px", fill_holes=True, smooth_mm=1.5).sum() < 20  # too thin to survive


@pytest.mark.parametrize(("shape", "unit"), [((4, 4), "px"), ((4, 4), "mm")])
def test_a_picture_has_no_volume(shape, unit) -> None:
    with pytest.raises(MedsegError, match=r"postprocess\.min_ml=0\.5 .*postprocess\.min_voxels"):
        postprocess(np.ones(shape, np.uint8), (1.0, 1.0), unit, min_ml=0.5)


def test_import_is_light() -> None:
    code = "import sys, medseg.inference.postprocess; print({'scipy', 'torch', 'monai'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_sheared_voxels_are_smaller_than_the_product_of_their_spacing():
    affine = np.array([[1, 0, 0, 0], [0, 1, 2, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])  # the third axis leans by 45 degrees
    scan = Scan(np.zeros((1, 4, 4, 4), np.float32), affine)
    assert scan.voxel_volume == pytest.approx(2.0)
    assert np.prod(scan.spacing) == pytest.approx(2 * np.sqrt(2))
    speck = np.zeros((20, 20, 20), np.uint8)
    speck[:5, :10, :10] = 1  # 500 voxels: 1 ml by volume, 1.4 ml by spacing
    kept = postprocess(speck, scan.spacing, "mm", min_ml=1.2)
    assert kept.any()
    assert not postprocess(speck, scan.spacing, "mm", min_ml=1.2, voxel_volume=scan.voxel_volume).any()
