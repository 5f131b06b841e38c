"""nnU-Net's preprocessing, against the same steps taken with NumPy, SciPy, scikit-image and SimpleITK."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy.ndimage import binary_fill_holes
from skimage.transform import resize

from medseg.errors import MedsegError
from medseg.inference.nnunet.plans import Plan
from medseg.inference.nnunet.preprocessing import preparation_of
from medseg.io.files.read import read_scan

OBLIQUE = np.array([[0, 0, 2.0, 5], [-1.0, 0, 0, 7], [0, 1.5, 0, -3], [0, 0, 0, 1]])


def plan_of(nnunet, *, transpose=(0, 1, 2), reader="SimpleITKIO", patch=(8, 8, 8), statistics=None, **settings):
    plans = nnunet.plans(None, patch=patch, **settings)
    return Plan(
        Path("plans.json"), "x", plans["configurations"]["3d_fullres"], transpose, reader, statistics or {}, False
    )


def brain(*shape):
    """A positive image with a border of zeros, wider on one side, and a hole of zeros."""
    image = np.random.default_rng(1).normal(100, 20, shape).astype(np.float32)
    image[:2] = image[:, -3:] = image[..., :1] = 0
    image[7:9, 7:9, 5] = 0
    return image


def volume(tmp_path, affine=OBLIQUE, shape=(12, 14, 11), name="case_0000.nii.gz"):
    nib.save(nib.Nifti1Image(brain(*shape), affine), tmp_path / name)
    return tmp_path / name


def zscore(values):
    return (values - values.mean()) / values.std()


def sitk_array(path):
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]  # (z, y, x)


def nonzero(array):
    found = np.argwhere(array)
    return tuple(slice(low, high + 1) for low, high in zip(found.min(0), found.max(0), strict=True))


def test_order_of_axes_crop_and_spacing(nnunet, tmp_path):
    path = volume(tmp_path)
    array, spacing = sitk_array(path)
    transpose, target = (2, 0, 1), (1.5, 1.2, 1.6)
    array, spacing = array.transpose(transpose), [spacing[axis] for axis in transpose]
    box = nonzero(array)
    cut = array[box]
    shape = [round(s / t * n) for s, t, n in zip(spacing, target, cut.shape, strict=True)]
    expected = resize(zscore(cut).astype(float), shape, 3, mode="edge", anti_aliasing=False)
    image, geometry = preparation_of(plan_of(nnunet, transpose=transpose, spacing=target))(read_scan([path]))
    assert image.shape == (1, *shape) == (1, *geometry.shape)
    np.testing.assert_allclose(image[0], expected, atol=2e-5)
    assert [slice(*span) for span in geometry.crop] == list(box)
    assert geometry.back == ("sharp",) * 3


def test_turned_to_ras(nnunet, tmp_path):
    path = volume(tmp_path)
    turned = nib.as_closest_canonical(nib.load(path))
    array = np.asarray(turned.dataobj).transpose()  # (z, y, x)
    plan = plan_of(nnunet, reader="NibabelIOWithReorient", spacing=turned.header.get_zooms()[::-1])
    image, _ = preparation_of(plan)(read_scan([path]))
    np.testing.assert_allclose(image[0], zscore(array[nonzero(array)]), atol=2e-5)


def test_thick_slices_are_resampled_apart(nnunet, tmp_path):
    path = volume(tmp_path, np.diag([1.0, 1.0, 5.0, 1]))
    plan = plan_of(nnunet, spacing=(2.5, 0.8, 0.8))
    image, geometry = preparation_of(plan)(read_scan([path]))
    array, _ = sitk_array(path)
    slices = zscore(array[nonzero(array)]).astype(float)
    in_plane = [round(n / 0.8) for n in slices.shape[1:]]
    resized = [resize(part, in_plane, 3, mode="edge", anti_aliasing=False) for part in slices]
    np.testing.assert_allclose(image[0], np.repeat(resized, 2, 0), atol=2e-5)
    assert geometry.back == ("nearest", "sharp", "sharp")


def test_slices_of_a_2d_network_stay_where_they_are(nnunet, tmp_path):
    path = volume(tmp_path, np.diag([1.0, 1.0, 2.0, 1]))
    plan = plan_of(nnunet, spacing=(0.5, 0.5), patch=(8, 8))
    image, geometry = preparation_of(plan)(read_scan([path]))
    assert geometry.shape[0] == geometry.cut_shape[0]
    assert geometry.shape[1:] == tuple(2 * length for length in geometry.cut_shape[1:])
    assert image.shape[1:] == geometry.shape


def test_a_colour_picture(nnunet, tmp_path):
    pixels = np.random.default_rng(2).integers(1, 255, (20, 16, 3), np.uint8)
    pixels[:4] = 0
    Image.fromarray(pixels).save(tmp_path / "case_0000.png")
    plan = plan_of(nnunet, reader="NaturalImage2DIO", spacing=(2, 2), patch=(8, 8), schemes=["ZScoreNormalization"] * 3)
    image, geometry = preparation_of(plan)(read_scan([tmp_path / "case_0000.png"]))
    expected = [
        resize(zscore(pixels[4:, :, c].astype(np.float32)).astype(float), (8, 8), 3, mode="edge", anti_aliasing=False)
        for c in range(3)
    ]
    np.testing.assert_allclose(image, np.stack(expected), atol=2e-5)
    assert (geometry.native_shape, geometry.crop, geometry.back) == ((20, 16), ((4, 20), (0, 16)), ("sharp", "sharp"))


@pytest.mark.parametrize(
    ("scheme", "masked", "expected"),
    [
        ("ZScoreNormalization", False, zscore),
        ("CTNormalization", False, lambda x: (np.clip(x, 60, 130) - 95) / 21),
        ("NoNormalization", False, lambda x: x),
        ("RescaleTo01Normalization", False, lambda x: x / x.max()),
        ("RGBTo01Normalization", False, lambda x: x / 255),
    ],
)
def test_normalisation(nnunet, tmp_path, scheme, masked, expected):
    path = volume(tmp_path, np.eye(4))
    statistics = {"0": {"percentile_00_5": 60.0, "percentile_99_5": 130.0, "mean": 95.0, "std": 21.0}}
    plan = plan_of(nnunet, spacing=(1, 1, 1), schemes=[scheme], use_mask_for_norm=[masked], statistics=statistics)
    image, _ = preparation_of(plan)(read_scan([path]))
    array, _ = sitk_array(path)
    np.testing.assert_allclose(image[0], expected(array[nonzero(array)]), atol=2e-5)


def test_normalisation_within_what_is_not_zero(nnunet, tmp_path):
    image = brain(12, 14, 11)
    image[:6, :6] = 0  # a corner that the box does not cut off
    path = tmp_path / "corner.nii.gz"
    nib.save(nib.Nifti1Image(image, np.eye(4)), path)
    found, _ = preparation_of(plan_of(nnunet, spacing=(1, 1, 1), use_mask_for_norm=[True]))(read_scan([path]))
    array, _ = sitk_array(path)
    cut = array[nonzero(array)]
    inside = binary_fill_holes(cut != 0)
    assert (inside & (cut == 0)).any()
    assert (~inside).any()
    expected = np.where(inside, (cut - cut[inside].mean()) / cut[inside].std(), 0)
    np.testing.assert_allclose(found[0], expected, atol=2e-5)


def test_colours_that_are_none(nnunet, tmp_path):
    image = brain(6, 8, 7) * 10
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "ct.nii.gz")
    plan = plan_of(nnunet, spacing=(1, 1, 1), schemes=["RGBTo01Normalization"])
    with pytest.raises(MedsegError, match="trained on 8-bit colours"):
        preparation_of(plan)(read_scan([tmp_path / "ct.nii.gz"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reader": "Tiff3DIO"}, "read by Tiff3DIO"),
        ({"schemes": ["Mine"]}, "normalised by Mine"),
        ({"schemes": ["CTNormalization"]}, "needs percentile_00_5"),
    ],
)
def test_what_is_not_known_is_refused(nnunet, changes, words):
    with pytest.raises(MedsegError, match=words):
        preparation_of(plan_of(nnunet, spacing=(1, 1, 1), **changes))
