"""2D networks on volumes, against a convolution that does the same in 3D."""

import pytest
import torch
from torch import nn

from medseg.config.settings import NetworkPlan
from medseg.inference.sliding_window import sliding_window
from medseg.models.slices import (
    LEAST,
    as_list,
    by_slices,
    context_in_volume,
    logits_of,
    patch_in_volume,
    without_context,
)


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


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_with_outputs_of_zero_gives_the_first_stages_probabilities_as_far_as_they_are_believed(
    regions, dtype
):
    probs = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0)) / 3
    probs[0, 0, :4], probs[0, 1:, :4] = 1.0, 0.0  # as sure as can be
    plan = NetworkPlan(patch_size=[8, 6], mirror_axes=[], slice_axis=None, context=0, coarse_channels=3)
    sizes = [(8, 6), (4, 3)]

    def silent(patches):
        return [torch.zeros(len(patches), 3 + (not regions), *size, dtype=dtype) for size in sizes]

    fine, coarse = logits_of(silent, plan)(torch.cat([torch.full((2, 2, 8, 6), 7.0), probs], 1))
    assert fine.dtype == coarse.dtype == dtype
    assert coarse.shape[2:] == (4, 3)
    limited = probs.clamp(LEAST, 1 - LEAST)
    if regions:
        found, expected = fine.float().sigmoid(), limited
    else:
        found, expected = fine.float().softmax(1), torch.cat([1 - probs.sum(1, keepdim=True), probs], 1).clamp(LEAST)
        expected = expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(found, expected, atol=1e-5 if dtype == torch.float32 else 5e-3, rtol=0)


def test_a_network_can_overrule_a_first_stage_and_a_plan_leave_it_out():
    probs = torch.ones(1, 1, 4, 4)
    plan = NetworkPlan(patch_size=[4, 4], mirror_axes=[], slice_axis=None, context=0, coarse_channels=1)

    def denies(patches):
        return torch.stack([torch.full(patches.shape[:1] + patches.shape[2:], value) for value in (3.0, -3.0)], 1)

    [logits] = logits_of(denies, plan)(torch.cat([probs, probs], 1))
    assert (logits.argmax(1) == 0).all()
    plan = NetworkPlan(patch_size=[4, 4], mirror_axes=[], slice_axis=None, context=0)
    [logits] = logits_of(denies, plan)(torch.cat([probs, probs], 1))
    assert torch.equal(logits, denies(probs))
