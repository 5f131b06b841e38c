"""2D networks on volumes, against a convolution that does the same in 3D."""

import pytest
import torch
from torch import nn

from medseg.config.settings import NetworkPlan
from medseg.inference.sliding_window import sliding_window
from medseg.models.slices import as_list, by_slices, context_in_volume, logits_of, patch_in_volume, without_context


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("context", [0, 1, 2])
def test_slices_with_their_neighbours_are_a_3d_convolution(axis, context):
    depth = 2 * context + 1
    flat = nn.Conv2d(2 * depth, 3, 3, padding=1)
    kernel = flat.weight.detach().view(3, 2, depth, 3, 3).movedim(2, 2 + axis)  # the kernel's depth goes to its axis
    patches = torch.randn(2, 2, *[depth + 3 if a == axis else 8 for a in range(3)])
    padding = [0 if a == axis else 1 for a in range(3)]
    expected = nn.functional.conv3d(patches, kernel, flat.bias, padding=padding)
    [found] = by_slices(flat, patches, axis, context)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_outputs_of_several_resolutions_keep_their_order():
    def network(x):
        return [x, x[..., ::2, ::2]]

    fine, coarse = by_slices(network, torch.randn(2, 1, 8, 6, 3), 2, 0)
    assert (fine.shape, coarse.shape) == ((2, 1, 8, 6, 3), (2, 1, 4, 3, 3))


def test_a_plan_says_how_patches_lie_in_volumes():
    plan = NetworkPlan(patch_size=[32, 16], mirror_axes=[], slice_axis=1, context=2)
    assert patch_in_volume(plan) == [32, 1, 16]
    assert context_in_volume(plan) == [0, 2, 0]
    label = torch.arange(32 * 5 * 16).reshape(1, 1, 32, 5, 16)
    assert torch.equal(without_context(label, [0, 2, 0]), label[..., 2:3, :])
    volume = NetworkPlan(patch_size=[8, 8, 8], mirror_axes=[], slice_axis=None, context=0)
    assert patch_in_volume(volume) == [8, 8, 8]
    assert context_in_volume(volume) == [0, 0, 0]


def test_sliding_over_slices_is_the_network_on_every_slice():
    """The middle slice of three, seen through windows of one slice, against the network at once."""
    torch.manual_seed(0)
    network = nn.Conv2d(3, 2, 3, padding=1).eval()
    plan = NetworkPlan(patch_size=[12, 10], mirror_axes=[], slice_axis=0, context=1)
    volume = torch.randn(1, 7, 12, 10)
    with torch.inference_mode():
        rows = sliding_window(
            [logits_of(network, plan)],
            volume,
            patch_size=patch_in_volume(plan),
            n_outputs=2,
            main_axis=2,
            context=context_in_volume(plan),
            batch_size=3,
        )
        found = torch.cat([row.clone() for row in rows], 3)
        padded = nn.functional.pad(volume[0], (0, 0, 0, 0, 1, 1))  # a slice of zeros at both ends
        slices = torch.stack([padded[i : i + 3] for i in range(7)])  # (7, 3, 12, 10)
        expected = network(slices).softmax(1).movedim(0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


PATCHES = torch.zeros(2, 1, 8, 8)


def test_a_tensor_is_one_output():
    logits = torch.zeros(2, 3, 8, 8)
    (output,) = as_list(logits, PATCHES)
    assert output is logits


def test_lists_and_tuples_keep_their_order():
    fine, coarse = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4)
    for outputs in ([fine, coarse], (fine, coarse)):
        assert [id(output) for output in as_list(outputs, PATCHES)] == [id(fine), id(coarse)]


def test_stacked_outputs_are_taken_apart():
    stacked = torch.randn(2, 4, 3, 8, 8)
    outputs = as_list(stacked, PATCHES)
    assert [tuple(output.shape) for output in outputs] == [(2, 3, 8, 8)] * 4
    assert all(torch.equal(output, stacked[:, place]) for place, output in enumerate(outputs))


def test_a_volume_s_logits_are_not_stacked_outputs():
    assert len(as_list(torch.zeros(2, 3, 8, 8, 8), torch.zeros(2, 1, 8, 8, 8))) == 1
