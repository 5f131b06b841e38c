"""Geometry of any axis order, flip, shear, anisotropy, crop and size: there, back, and where voxel centres lie."""

import json
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from network_grid import network_affine
from numpy.testing import assert_allclose
from PIL import Image

from medseg.io.grids.grid import bounding_box
from medseg.preprocessing.geometry import Geometry, orient, whole
from medseg.preprocessing.resample import interpolation, resample_axis

PILLOW = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}


@st.composite
def affines(draw, dims):
    """Axes in any order and direction, each sheared by less than half of what would make it another one."""
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3))
    spacing = draw(st.tuples(*[st.floats(0.01, 50)] * 3))
    shear = np.reshape(draw(st.lists(st.floats(-0.2, 0.2), min_size=9, max_size=9)), (3, 3))
    directions = np.eye(3) + shear - np.diag(np.diag(shear))
    if dims == 2:
        order = [axis for axis in order if axis != 2] + [2]  # in the plane, as 2D images are
    affine = np.eye(4)
    affine[:3, :3] = (directions * signs)[:, order] * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@st.composite
def scans(draw, network="any"):
    """An affine, and a geometry with any crop and a network grid of the "same" voxels, "coarser" ones or "any"."""
    shape = draw(st.lists(st.integers(1, 7), min_size=2, max_size=3))
    affine = draw(affines(len(shape)))
    oriented = whole(affine, shape)
    crop = tuple(
        tuple(sorted((start, draw(st.integers(0, length).filter(lambda stop, start=start: stop != start)))))
        for length in oriented.shape
        for start in [draw(st.integers(0, length))]
    )
    lengths = tuple(stop - start for start, stop in crop)
    largest = {"same": lengths, "coarser": lengths, "any": (12, 12, 12)}[network]
    size = lengths if network == "same" else tuple(draw(st.integers(1, largest[axis])) for axis in range(len(shape)))
    kernels = tuple(draw(st.sampled_from(("linear", "sharp", "nearest", "cubic"))) for _ in lengths)
    back = draw(st.sampled_from(((), kernels)))
    return affine, Geometry(tuple(shape), oriented.order, oriented.flips, crop, size, back=back)


def voxel_centres(affine, shape):
    """World coordinates (3, *shape) of all voxel centres."""
    indices = np.indices(shape).reshape(len(shape), -1)
    full = np.concatenate([indices, np.zeros((3 - len(indices), indices.shape[1])), np.ones((1, indices.shape[1]))])
    return torch.from_numpy((affine @ full)[:3].reshape(3, *shape))


def crop_mask(geometry):
    """Which voxels of the native grid (*native_shape) the crop keeps."""
    marks = np.zeros(geometry.native_shape, bool)
    oriented = marks.transpose(geometry.order)
    oriented = np.flip(oriented, [axis for axis, flip in enumerate(geometry.flips) if flip])
    oriented[tuple(slice(*span) for span in geometry.crop)] = True  # both are views of the marks
    return marks


@given(st.integers(2, 3), st.data())
def test_network_axes_run_to_the_right_front_and_head(dims, data):
    affine = data.draw(affines(dims))
    shape = data.draw(st.lists(st.integers(1, 5), min_size=dims, max_size=dims))
    order, flips = orient(affine, shape)
    assert sorted(order) == list(range(dims))
    assert len(flips) == dims
    spacing = np.linalg.norm(affine[:3, :dims], axis=0)[list(order)]
    directions = network_affine(whole(affine, shape), affine)[:dims, :dims] / spacing
    assert (np.diag(directions) > 0).all()
    assert (np.abs(directions).argmax(axis=0) == np.arange(dims)).all()


@given(scans("same"))
def test_voxels_keep_their_world_coordinates_on_the_network_grid(scan):
    affine, geometry = scan
    centres = geometry.cut(voxel_centres(affine, geometry.native_shape))
    expected = voxel_centres(network_affine(geometry, affine), geometry.shape)
    assert_allclose(centres.numpy(), expected.numpy(), atol=1e-6 * (1 + np.abs(affine).max()))


@given(scans("same"), st.integers(1, 10_000))
def test_there_and_back_is_the_identity_within_the_crop_and_the_fill_outside(scan, most):
    _, geometry = scan
    values = torch.arange(2 * np.prod(geometry.native_shape), dtype=torch.float32).view(2, *geometry.native_shape)
    fill = torch.tensor([-3.0, -5.0])
    cut = geometry.cut(values)
    slabs = list(geometry.slabs(geometry.in_one_block(cut), fill, most))
    back = torch.cat([slab for _, slab in slabs], dim=-1)
    expected = torch.where(torch.from_numpy(crop_mask(geometry)), values, fill.view(2, *[1] * (values.dim() - 1)))
    assert torch.equal(back, expected)
    ends = [0, *(span.stop for span, _ in slabs)]
    assert [(span.start, span.stop) for span, _ in slabs] == list(pairwise(ends))
    assert ends[-1] == geometry.native_shape[-1]


@given(scans(), st.integers(1, 3000), st.data())
def test_slabs_and_blocks_of_any_thickness_give_the_whole(scan, most, data):
    _, geometry = scan
    scores = torch.from_numpy(np.random.default_rng(0).random((2, *geometry.shape), np.float32))
    fill = torch.tensor([0.25, 0.5])
    axis, _ = geometry.slab_axis
    rows = next(geometry.in_one_block(scores))
    edges = sorted({0, rows.shape[1 + axis], *data.draw(st.lists(st.integers(0, rows.shape[1 + axis]), max_size=3))})
    blocks = [rows.narrow(1 + axis, low, high - low) for low, high in pairwise(edges)]
    (_, at_once), *further = geometry.slabs(iter([rows]), fill)
    piecewise = torch.cat([slab for _, slab in geometry.slabs(iter(blocks), fill, most)], dim=-1)
    assert not further
    assert_allclose(piecewise.numpy(), at_once.numpy(), atol=1e-6)


@given(scans("coarser"))  # of a finer grid, which is low-passed on the way back, a ramp is kept on average alone
def test_a_linear_ramp_comes_back_exactly_between_voxel_centres(scan):
    affine, geometry = scan
    geometry = replace(geometry, back=())
    to_network = network_affine(geometry, affine)
    ramp = voxel_centres(to_network, geometry.shape).float()
    ((_, back),) = geometry.slabs(geometry.in_one_block(ramp), torch.full((3,), torch.nan))
    dims = len(geometry.shape)
    world = voxel_centres(affine, geometry.native_shape)
    moved = np.linalg.lstsq(to_network[:3, :dims], (world.numpy().reshape(3, -1) - to_network[:3, 3:]), rcond=None)[0]
    limits = np.array(geometry.shape)[:, None] - 1
    within = ((moved >= -1e-9) & (moved <= limits + 1e-9)).all(axis=0).reshape(geometry.native_shape)
    within &= crop_mask(geometry)
    found = back.numpy()[:, within]
    assert_allclose(found, world.numpy()[:, within], atol=1e-5 * (1 + np.abs(world.numpy()).max()))


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from(["linear", "cubic"]), st.integers(0, 2**32 - 1))
def test_resampling_is_that_of_pillow(old, new, kernel, seed):
    line = np.random.default_rng(seed).random((1, old), np.float32)
    expected = np.asarray(Image.fromarray(line).resize((new, 1), PILLOW[kernel]))
    found = resample_axis(torch.from_numpy(line), 1, interpolation(old, new, kernel))
    assert_allclose(found.numpy(), expected, atol=1e-5)


@given(st.integers(1, 200), st.integers(1, 200))
def test_nearest_takes_the_voxel_that_holds_the_centre(old, new):
    indices, weights = interpolation(old, new, "nearest")
    centres = [(Fraction(place) + Fraction(1, 2)) * old / new for place in range(new)]
    assert indices[:, 0].tolist() == [floor(centre) for centre in centres]
    assert (weights == 1).all()


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["linear", "cubic", "sharp", "nearest"]), st.data())
def test_chosen_rows_are_those_of_all(old, new, kernel, data):
    start = data.draw(st.integers(0, new - 1))
    rows = slice(start, data.draw(st.integers(start + 1, new)))
    for some, every in zip(interpolation(old, new, kernel, rows), interpolation(old, new, kernel), strict=True):
        assert torch.equal(some, every[rows])


@given(scans())
def test_a_geometry_is_read_back_from_json(scan):
    _, geometry = scan
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_the_bounding_box_is_the_smallest_with_its_margin(shape, margin, seed):
    mask = np.random.default_rng(seed).random(shape) < 0.15
    assume(mask.any())
    found = np.argwhere(mask)
    expected = [
        slice(max(0, low - margin), min(length, high + 1 + margin))
        for low, high, length in zip(found.min(0), found.max(0), shape, strict=True)
    ]
    assert list(bounding_box(mask, margin)) == expected
