"""nnU-Net's preprocessing, against the same steps taken with NumPy, SciPy, scikit-image and SimpleITK."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from scan_files import read_scan
from scipy.ndimage import binary_fill_holes, gaussian_filter, map_coordinates
from skimage.transform import resize

from medseg.errors import MedsegError
from medseg.inference.nnunet.plans import Plan
from medseg.inference.nnunet.preprocessing import Resampling, preparation_of, resampling_of, weights
from medseg.preprocessing.geometry import Geometry

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


ISOTROPIC = (1.0, 1.0, 1.0)


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def resized(values, shape, order):
    return resize(values.astype(float), shape, order, mode="edge", anti_aliasing=False)


@pytest.mark.parametrize("shape", [(9, 14, 5), (5, 6, 12), (7, 9, 8)])
def test_splines(shape):
    image = noise(2, 7, 9, 8)
    found = Resampling(apart=None)(image, shape, ISOTROPIC, (1.1, 0.9, 1.0))
    expected = np.stack([resized(channel, shape, 3) for channel in image])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order_across", [0, 1])
def test_apart_across_a_coarse_axis(axis, order_across):
    image = np.moveaxis(noise(1, 5, 9, 8), 1, 1 + axis)
    shape = [11, 7]
    shape.insert(axis, 8)
    old = [1.0, 1.0]
    old.insert(axis, 4.0)
    found = Resampling(order_across=order_across, apart=None)(image, shape, old, ISOTROPIC)
    slices = np.stack([resized(part, (11, 7), 3) for part in np.moveaxis(image[0], axis, 0)])  # (5, 11, 7)
    places = np.mgrid[:8, :11, :7].astype(float)
    places[0] = 5 / 8 * (places[0] + 0.5) - 0.5
    expected = np.moveaxis(map_coordinates(slices, places, order=order_across, mode="nearest"), 0, axis)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "apart", "axis"),
    [
        ((5, 1, 1), (1, 1, 1), None, 0),  # the scan is coarse along an axis
        ((1, 1, 2), (1, 3.5, 1), None, 1),  # or the network's grid is
        ((3, 1, 1), (1, 1, 1), None, None),  # but three times is not too much
        ((1, 5, 5), (1, 1, 1), None, None),  # two axes are as coarse
        ((1, 5, 5.000001), (1, 1, 1), None, None),
        ((5, 1, 1), (1, 1, 1), False, None),
        ((1, 2, 1), (1, 1, 1), True, 1),
    ],
)
def test_which_axis_is_apart(old, new, apart, axis):
    assert Resampling(apart=apart).coarse_axis(old, new) == axis


@pytest.mark.parametrize(("native", "network"), [((9, 12, 10), (6, 7, 23)), ((5, 12, 4), (11, 3, 4))])
def test_the_way_back_is_linear_without_low_pass(native, network):
    scores = noise(2, *network)
    kernels = Resampling(order=1, apart=None).kernels(ISOTROPIC, ISOTROPIC)
    crop = tuple((0, length) for length in native)
    geometry = Geometry(native, (0, 1, 2), (False,) * 3, crop, network, back=kernels)
    found = native_scores(geometry, scores)
    expected = np.stack([resized(channel, native, 1) for channel in scores])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_way_back_across_a_coarse_axis():
    network, native = (5, 6, 7), (12, 9, 8)
    kernels = Resampling(order=1, apart=None).kernels((4.0, 1.0, 1.0), ISOTROPIC)
    crop = tuple((0, length) for length in native)
    geometry = Geometry(native, (0, 1, 2), (False,) * 3, crop, network, back=kernels)
    scores = noise(1, *network)
    slices = np.stack([resized(part, (9, 8), 1) for part in scores[0]])
    places = np.mgrid[:12, :9, :8].astype(float)
    places[0] = 5 / 12 * (places[0] + 0.5) - 0.5
    expected = map_coordinates(slices, places, order=0, mode="nearest")
    np.testing.assert_allclose(native_scores(geometry, scores)[0], expected, atol=1e-5)


def native_scores(geometry, scores):
    rows = geometry.in_one_block(torch.from_numpy(scores))
    return torch.cat([slab for _, slab in geometry.slabs(rows, torch.zeros(len(scores)), most=100)], -1).numpy()


def resampling_plan(name, **arguments):
    settings = {}
    for what in ("data", "probabilities"):
        settings |= {f"resampling_fn_{what}": name, f"resampling_fn_{what}_kwargs": arguments}
    return Plan(Path("plans.json"), "2d", settings, (0, 1, 2), "SimpleITKIO", {}, False)


def test_torch_s_linear_resampling():
    image, shape = noise(1, 5, 9, 8), (8, 6, 12)
    found = resampling_of(resampling_plan("resample_torch_fornnunet", is_seg=False), "data")(
        image, shape, ISOTROPIC, ISOTROPIC
    )
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None], shape, mode="trilinear")[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    apart = resampling_of(resampling_plan("resample_torch_fornnunet"), "data")(image, shape, (4.0, 1.0, 1.0), ISOTROPIC)
    in_plane = torch.nn.functional.interpolate(torch.from_numpy(image[0])[None], shape[1:], mode="bilinear")
    expected = torch.nn.functional.interpolate(in_plane[None], shape, mode="nearest-exact")[0]
    np.testing.assert_allclose(apart, expected, atol=1e-5)


def test_no_resampling():
    image = noise(1, 5, 9, 8)
    assert resampling_of(resampling_plan("no_resampling_hack"), "data")(image, (5, 9, 9), ISOTROPIC, ISOTROPIC) is image


@pytest.mark.parametrize(
    ("name", "arguments", "what"),
    [
        ("mine", {}, "data"),
        ("resample_data_or_seg_to_shape", {"order": 3}, "probabilities"),
        ("resample_data_or_seg_to_shape", {"order": 3, "order_z": 3}, "data"),
        ("resample_torch_fornnunet", {"mode": "nearest"}, "data"),
    ],
)
def test_other_ways_are_refused(name, arguments, what):
    with pytest.raises(MedsegError, match=f"resampling_fn_{what} is {name}"):
        resampling_of(resampling_plan(name, **arguments), what)


@pytest.mark.parametrize("patch", [(16, 24), (9, 8, 16), (1, 32, 40)])
def test_weights(patch):
    point = np.zeros(patch)
    point[tuple(size // 2 for size in patch)] = 1
    blurred = gaussian_filter(point, [size / 8 for size in patch], mode="constant")
    expected = np.maximum(blurred / blurred.max(), 2.0**-24 / 10)
    np.testing.assert_allclose(weights(patch), expected, rtol=1e-4)
