"""Against the plain whole-volume way, MONAI's sliding window, and the network applied to the whole."""

from itertools import pairwise, product

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from medseg.inference.sliding_window import gaussian, mirrored, move_up, sliding_window, starts


def whole(network, image, main_axis=0, from_end=False, **options):
    """The rows put together again, (K, *spatial) in the image's own direction."""
    rows = sliding_window([network], image, main_axis=main_axis, from_end=from_end, **options)
    found = torch.cat([row.clone() for row in rows], 1 + main_axis)
    return found.flip(1 + main_axis) if from_end else found


def plainly(network, image, patch, overlap):
    """The sliding window written down as it is in the textbooks, all scores in memory."""
    total = torch.zeros(3, *image.shape[1:])
    norm = torch.zeros(image.shape[1:])
    corners = [starts(size, p, overlap) for size, p in zip(image.shape[1:], patch, strict=True)]
    weight = gaussian(tuple(patch))
    for corner in product(*corners):
        where = tuple(slice(start, start + p) for start, p in zip(corner, patch, strict=True))
        total[(slice(None), *where)] += network(image[(None, slice(None), *where)])[0].softmax(1)[0] * weight
        norm[where] += weight
    return total / norm


def pointwise(x):
    """A network that looks at each voxel alone: windows must not change its result."""
    return [torch.cat([x * 0.5, x.square(), -x], dim=1)]


def placed(x):
    """A network whose scores depend on the place in its patch."""
    ramp = torch.linspace(-1, 2, x.shape[-1]) + torch.linspace(0, 1, x.shape[2]).view(-1, *[1] * (x.ndim - 3))
    return [torch.cat([x * ramp, x.square() - ramp, ramp.expand_as(x)], dim=1)]


@pytest.mark.parametrize("shape", [(37, 50), (8, 70), (20, 31, 40), (5, 6, 7)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("from_end", [False, True])
def test_a_pointwise_network_gives_the_same_in_windows(shape, overlap, from_end):
    image = torch.randn(1, *shape)
    options = {"patch_size": [16] * len(shape), "n_outputs": 3, "overlap": overlap, "batch_size": 3}
    result = whole(pointwise, image, main_axis=len(shape) - 1, from_end=from_end, **options)
    expected = pointwise(image[None])[0].softmax(1)[0]
    assert result.shape == (3, *shape)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("shape", "patch"), [((29, 40), (8, 12)), ((21, 33, 26), (8, 16, 12)), ((8, 40, 9), (8, 8, 9))]
)
@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_rows_along_any_axis_equal_the_plain_way(shape, patch, overlap, batch_size):
    image = torch.randn(1, *shape)
    expected = plainly(placed, image, patch, overlap)
    for main_axis, from_end in product(range(len(shape)), (False, True)):
        options = {"patch_size": patch, "n_outputs": 3, "overlap": overlap, "batch_size": batch_size}
        torch.testing.assert_close(whole(placed, image, main_axis, from_end, **options), expected, atol=1e-5, rtol=1e-5)


def test_no_more_rows_are_held_than_windows_touch(monkeypatch):
    """Of an image of 400 rows under windows of 16 the sums span 16 rows."""
    import medseg.inference.sliding_window as module

    spans = []
    keep = module.SliceSums.__init__

    def watched(self, *arguments):
        keep(self, *arguments)
        spans.append(self.total.shape)

    monkeypatch.setattr(module.SliceSums, "__init__", watched)
    whole(pointwise, torch.randn(1, 400, 40), patch_size=[16, 16], n_outputs=3, batch_size=2)
    assert spans == [(3, 16, 40)]


@pytest.mark.parametrize("by", [1, 3, 5, 8])
def test_rows_move_up_in_place(by):
    x = torch.arange(8.0).expand(2, 8).clone()
    expected = torch.cat([x[:, by:], torch.zeros(2, by)], 1)
    move_up(x, 1, by)
    torch.testing.assert_close(x, expected)


def test_probabilities_of_a_network_with_a_field_of_view_equal_monai():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(1, 2, 5, padding=2)
    image = torch.randn(1, 48, 48)
    with torch.inference_mode():
        ours = whole(lambda x: [convolution(x)], image, patch_size=[32, 32], n_outputs=2, overlap=0.5, batch_size=2)
        inferer = SlidingWindowInferer((32, 32), overlap=0.5, mode="gaussian", sigma_scale=0.125)
        theirs = inferer(image[None], lambda x: convolution(x).softmax(1))[0]
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_several_networks_are_averaged_as_their_results_are():
    image = torch.randn(1, 30, 25)
    options = {"patch_size": [12, 12], "n_outputs": 3, "batch_size": 4}
    both = torch.cat([r.clone() for r in sliding_window([pointwise, placed], image, main_axis=0, **options)], 1)
    expected = (whole(pointwise, image, **options) + whole(placed, image, **options)) / 2
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=0)


def test_mirroring_makes_a_lopsided_network_even():
    patches = torch.ones(1, 1, 4, 6)
    ramp = torch.arange(6.0).expand(1, 1, 4, 6)
    plain = mirrored([lambda x: [torch.cat([x * ramp, x * 0], 1)]], patches, [])
    both = mirrored([lambda x: [torch.cat([x * ramp, x * 0], 1)]], patches, [0, 1])
    assert not torch.allclose(plain, plain.flip(3))
    torch.testing.assert_close(both, both.flip(3))


def test_mirroring_turns_predictions_back():
    patches = torch.randn(2, 1, 8, 6, 4)
    torch.testing.assert_close(mirrored([pointwise], patches, [0, 1, 2]), pointwise(patches)[0].softmax(1))


@pytest.mark.parametrize(("size", "patch", "overlap"), [(100, 32, 0.5), (32, 32, 0.5), (33, 32, 0.0), (1000, 7, 0.9)])
def test_windows_cover_an_axis(size, patch, overlap):
    begun = starts(size, patch, overlap)
    assert begun[0] == 0
    assert begun[-1] == size - patch
    assert all(0 < b - a <= patch for a, b in pairwise(begun))


def test_the_weight_is_largest_in_the_middle_and_never_zero():
    weight = gaussian((9, 17))
    assert weight.argmax() == 4 * 17 + 8
    assert weight.min() > 0
