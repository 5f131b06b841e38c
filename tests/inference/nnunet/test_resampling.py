"""nnU-Net's resampling, against scikit-image and SciPy as nnU-Net calls them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from skimage.transform import resize

from medseg.errors import MedsegError
from medseg.inference.nnunet.plans import Plan
from medseg.inference.nnunet.resampling import Resampling, resampling_of
from medseg.preprocessing.geometry import Geometry

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
    rows = geometry.in_rows(torch.from_numpy(scores))
    return torch.cat([slab for _, slab in geometry.slabs(rows, torch.zeros(len(scores)), most=100)], -1).numpy()


def plan_of(name, **arguments):
    settings = {}
    for what in ("data", "probabilities"):
        settings |= {f"resampling_fn_{what}": name, f"resampling_fn_{what}_kwargs": arguments}
    return Plan(Path("plans.json"), "2d", settings, (0, 1, 2), "SimpleITKIO", {}, False)


def test_torch_s_linear_resampling():
    image, shape = noise(1, 5, 9, 8), (8, 6, 12)
    found = resampling_of(plan_of("resample_torch_fornnunet", is_seg=False), "data")(image, shape, ISOTROPIC, ISOTROPIC)
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None], shape, mode="trilinear")[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    apart = resampling_of(plan_of("resample_torch_fornnunet"), "data")(image, shape, (4.0, 1.0, 1.0), ISOTROPIC)
    in_plane = torch.nn.functional.interpolate(torch.from_numpy(image[0])[None], shape[1:], mode="bilinear")
    expected = torch.nn.functional.interpolate(in_plane[None], shape, mode="nearest-exact")[0]
    np.testing.assert_allclose(apart, expected, atol=1e-5)


def test_no_resampling():
    image = noise(1, 5, 9, 8)
    assert resampling_of(plan_of("no_resampling_hack"), "data")(image, (5, 9, 9), ISOTROPIC, ISOTROPIC) is image


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
        resampling_of(plan_of(name, **arguments), what)
