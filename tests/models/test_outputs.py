"""Every form of a network's output as one list."""

import torch

from medseg.models.outputs import as_list

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
