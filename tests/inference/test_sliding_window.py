"""Against MONAI's sliding window, and against the network applied to the whole."""

from itertools import pairwise

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from medseg.inference.sliding_window import gaussian, mirrored, sliding_window, starts


def pointwise(x):
    """A network that looks at each voxel alone: windows must not change its result."""
    return [torch.cat([x * 0.5, x.square(), -x], dim=1)]


@pytest.mark.parametrize("shape", [(37, 50), (8, 70), (20, 31, 40), (5, 6, 7)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_a_pointwise_network_gives_the_same_in_windows(shape, overlap):
    image = torch.randn(1, *shape)
    patch = [16] * len(shape)
    result = sliding_window(pointwise, image, patch_size=patch, overlap=overlap, batch_size=3)
    expected = pointwise(image[None])[0].softmax(1)[0]
    assert result.shape == (3, *shape)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_probabilities_of_a_network_with_a_field_of_view_equal_monai():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(1, 2, 5, padding=2)
    image = torch.randn(1, 48, 48)
    ours = sliding_window(lambda x: [convolution(x)], image, patch_size=[32, 32], overlap=0.5, batch_size=2)
    inferer = SlidingWindowInferer((32, 32), overlap=0.5, mode="gaussian", sigma_scale=0.125)
    theirs = inferer(image[None], lambda x: convolution(x).softmax(1))[0]
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_mirroring_makes_a_lopsided_network_even():
    patches = torch.ones(1, 1, 4, 6)
    ramp = torch.arange(6.0).expand(1, 1, 4, 6)
    plain = mirrored(lambda x: [torch.cat([x * ramp, x * 0], 1)], patches, [])
    both = mirrored(lambda x: [torch.cat([x * ramp, x * 0], 1)], patches, [0, 1])
    assert not torch.allclose(plain, plain.flip(3))
    torch.testing.assert_close(both, both.flip(3))


def test_mirroring_turns_predictions_back():
    patches = torch.randn(2, 1, 8, 6, 4)
    torch.testing.assert_close(mirrored(pointwise, patches, [0, 1, 2]), pointwise(patches)[0].softmax(1))


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
