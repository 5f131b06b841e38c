"""Cases packed for the slice viewer: where voxels lie, what is cut and thinned, and how large it is."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from medseg.evaluation.images import views
from medseg.evaluation.images.views import BYTES, shown_part, thinned, view_of
from medseg.io.case import Scan
from medseg.io.labels import IGNORE

NAMES = ["background", "liver", "tumour"]
ALL = np.ones(3, bool)


def volume_of(picture, view):
    """The bytes of a picture's slices: (across, down, deep, 3)."""
    across, down, deep = view.shape
    pixels = np.asarray(Image.open(io.BytesIO(picture.content)).convert("RGB"))
    slices = pixels.reshape(-1, down, view.columns, across, 3).swapaxes(1, 2).reshape(-1, down, across, 3)
    return slices[:deep].swapaxes(0, 2)


def packed(scan, predicted, true=None, annotated=ALL):
    return view_of("x", scan, predicted, NAMES, predicted if true is None else true, annotated)


def size(view):
    return len(view.masks.content) + sum(len(channel.slices.content) for channel in view.channels)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_voxels_run_to_the_left_to_posterior_and_to_inferior(flips):
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 3, (2, 7, 6, 5), np.uint8)
    image = np.zeros((1, 7, 6, 5), np.float32)
    image[0, 2] = 100
    affine = np.diag([2.0, 3.0, 4.0, 1.0])[[2, 0, 1, 3]] @ np.diag([*flips, 1.0])  # its axes are A, S and R
    view = packed(Scan(image, affine), predicted, true)
    assert view.shape == (5, 7, 6)
    assert view.spacing == (4.0, 2.0, 3.0)
    ahead = tuple(slice(None, None, -flip) for flip in flips)
    for part, mask in enumerate((predicted, true)):
        expected = mask[ahead].transpose(2, 0, 1)
        np.testing.assert_array_equal(volume_of(view.masks, view)[..., part], expected)
    bright = volume_of(view.channels[0].slices, view)[..., 0].mean(axis=(0, 2))
    assert bright.argmax() == (2 if flips[0] < 0 else 4)
    assert view.classes.keys() == {1, 2}
    assert view.note == ""


def test_a_picture_is_one_slice_as_it_is():
    colours = np.zeros((3, 20, 30), np.float32)
    colours[1, :, 15:] = 250
    mask = np.zeros((20, 30), np.uint8)
    mask[3, 25] = 2
    view = packed(Scan(colours, np.eye(4), "px"), mask)
    assert (view.shape, view.is_volume) == ((30, 20, 1), False)
    assert volume_of(view.masks, view)[25, 3, 0, 0] == 2
    red, green, _ = volume_of(view.channels[0].slices, view)[25, 10, 0]
    assert green > red + 150
    assert [channel.name for channel in view.channels] == [""]


@pytest.mark.parametrize(("n", "shown"), [(1, 1), (2, 2), (6, 4)])
def test_channels_are_shown_apart_up_to_four(n, shown):
    image = np.arange(n * 120, dtype=np.float32).reshape(n, 4, 5, 6)
    view = packed(Scan(image, np.eye(4)), np.zeros((4, 5, 6), np.uint8))
    assert len(view.channels) == shown
    assert [channel.name for channel in view.channels][-1] == ("" if n == 1 else f"channel {shown} of {n}")


def test_grey_values_are_for_twice_the_window():
    rng = np.random.default_rng(0)
    image = rng.normal(0, 10, (1, 20, 20, 20)).astype(np.float32)
    image[0, 0, 0, 0] = 1e6
    [channel] = packed(Scan(image, np.eye(4)), np.zeros((20, 20, 20), np.uint8)).channels
    black, white = channel.window
    assert channel.high == pytest.approx(white + (white - black) / 2)
    assert channel.low == image.min()


def test_what_is_not_known_is_not_shown():
    true = np.full((4, 4, 4), IGNORE, np.uint8)
    true[0], true[1] = 1, 2
    scan = Scan(np.ones((1, 4, 4, 4), np.float32), np.eye(4))
    view = packed(scan, np.zeros_like(true), true, np.array([1, 0, 1], bool))
    assert view.classes.keys() == {2}


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 5)])
def test_of_large_volumes_a_part_round_the_masks_is_shown(monkeypatch, spacing):
    monkeypatch.setattr(views, "VOXELS", 4000)
    mask = np.zeros((60, 60, 20), np.uint8)
    mask[10:40, 20:50, 4:16] = 1
    mask[12, 21, 5] = 2  # a finding of one voxel
    view = packed(Scan(np.zeros((1, 60, 60, 20), np.float32), np.diag([*spacing, 1.0])), mask)
    assert math.prod(view.shape) <= 4000
    shown = volume_of(view.masks, view)[..., 0]
    assert (shown == 2).sum() == 1
    assert not shown[0].any()  # there is room round it
    assert "of 60 × 60 × 20 voxels round the masks; each voxel shown stands for" in view.note
    assert max(view.spacing) / min(view.spacing) <= max(2, max(spacing) / min(spacing))
    assert all(0 <= at < n for at, n in zip(view.start, view.shape, strict=True))


def test_noise_stays_below_the_limit():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 80, 80, 80)).astype(np.float32)
    view = packed(Scan(image, np.eye(4)), rng.integers(0, 3, (80, 80, 80), np.uint8))
    assert size(view) <= BYTES


@pytest.mark.parametrize("shape", [(1, 9, 1), (9, 1, 7), (2, 3)])
def test_small_and_flat_scans_without_any_mask(shape):
    view = packed(Scan(np.ones((1, *shape), np.float32), np.eye(4)), np.zeros(shape, np.uint8))
    assert sorted(view.shape) == sorted((*shape, 1)[:3])
    assert view.classes == {}


def test_the_finest_axes_are_thinned_first():
    box, steps = shown_part(np.ones((100, 100, 20), bool), (0.5, 0.5, 5.0), 50_000)
    assert steps == (2, 2, 1)
    assert [span.stop - span.start for span in box] == [100, 100, 20]


def test_blocks_are_means_of_images_and_maxima_of_masks():
    volume = np.arange(10.0).reshape(5, 2, 1)
    assert thinned(volume, (2, 1, 1), np.mean).tolist() == [[[1.0], [2.0]], [[5.0], [6.0]]]
    assert thinned(volume, (2, 2, 1), np.max).tolist() == [[[3.0]], [[7.0]]]
