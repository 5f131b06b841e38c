"""Images brought to the intensities that published weights expect."""

import copy

import pytest
import torch
from torch import nn

from medseg.config.instantiate import build
from medseg.models.pretrained.input_scale import factors, scale_input


@pytest.mark.parametrize("method", ["zscore", "ct", "none"])
def test_standardised_images_are_what_imagenet_s_weights_expect(method):
    assert factors([method], "standard", 1, in_colour=False) == ([1], [0])


@pytest.mark.parametrize("method", ["unit", "percentile"])
def test_colours_in_0_1_are_normalised_as_torchvision_does(method):
    factor, shift = factors([method] * 3, "standard", 3, in_colour=True)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        assert 0.7 * factor[channel] + shift[channel] == pytest.approx((0.7 - mean) / std)


def test_grey_in_0_1_by_hand():
    (factor,), (shift,) = factors(["unit"], "standard", 1, in_colour=False)
    assert 0.449 * factor + shift == pytest.approx(0, abs=1e-3)
    assert (0.449 + 0.226) * factor + shift == pytest.approx(1, abs=1e-3)


def test_from_0_1_to_minus_1_1():
    (factor,), (shift,) = factors(["percentile"], "symmetric", 1, in_colour=False)
    assert (factor, shift) == pytest.approx((2, -1))


def test_standardised_images_for_weights_that_expect_0_1():
    (factor,), (shift,) = factors(["ct"], "unit", 1, in_colour=False)
    assert (shift, factor + shift) == pytest.approx((0.449, 0.675), abs=1e-3)


def test_a_channel_s_neighbouring_slices_are_scaled_as_it_is():
    factor, _ = factors(["zscore", "unit"], "standard", 6, in_colour=False)
    assert factor[:3] == [1] * 3
    assert factor[3:] == pytest.approx([1 / 0.226] * 3, abs=0.01)


def test_the_network_sees_the_scaled_image_and_so_does_its_copy():
    network = nn.Conv2d(1, 1, 3, padding=1)
    image = torch.rand(1, 1, 5, 5)
    expected = network(2 * image - 1)
    scale_input(network, [2.0], [-1.0], dims=2)
    for other in (network, copy.deepcopy(network)):
        torch.testing.assert_close(other(image), expected)


def swin(**given):
    size = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "base_channels": 12, "input_size": [32] * 3}
    return build({"_target_": "medseg.models.monai.swin_unetr", **size, **given}, "model", ())


def test_the_scale_follows_from_the_config_and_is_no_weight():
    network = swin(pretrained="dae", normalize=["zscore"])
    assert dict(network.named_buffers())["input_factor"].shape == (1, 1, 1, 1, 1)
    swin(pretrained="dae", normalize=["unit"]).load_state_dict(network.state_dict())


@pytest.mark.parametrize("given", [{}, {"pretrained": "dae"}, {"pretrained": "dae", "normalize": ["unit"]}])
def test_where_nothing_is_to_be_done_the_network_is_as_ever(given):
    assert not [name for name, _ in swin(**given).named_buffers() if name.startswith("input_")]


def test_an_export_has_the_scale():
    network, image = nn.Sequential(nn.Conv2d(1, 2, 3)).eval(), torch.rand(1, 1, 5, 5)
    plain = network(image)
    scale_input(network, [2.0], [-1.0], dims=2)
    exported = torch.export.export(network, (image,)).module()
    torch.testing.assert_close(exported(image), network(image))
    assert not torch.equal(exported(image), plain)
