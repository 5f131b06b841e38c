"""Blocks that are hidden: how many, how large, where, and that they are hidden in all channels."""

import pytest
import torch

from medseg.augmentation import BlockMasking, RandomNumbers
from medseg.augmentation.random import seeded
from medseg.errors import MedsegError


def draws(batch, seed=0):
    return RandomNumbers([seeded(seed, place) for place in range(batch)])


@pytest.mark.parametrize(
    ("shape", "block", "count"),
    [((24, 32), 8, 12), ((24, 32), [12, 4], 16), ((16, 24, 16), 8, 12), ((16, 24, 8), [4, 8, 8], 12)],
)
@pytest.mark.parametrize("share", [0.1, 0.6, 0.75])
def test_a_share_of_the_blocks_is_hidden_as_a_whole_in_all_channels(shape, block, count, share):
    image = torch.rand(3, 2, *shape) + 1
    seen, hidden = BlockMasking(share=share, block=block)(image, draws(3))
    assert hidden.shape == (3, 1, *shape)
    assert torch.equal(seen, torch.where(hidden, 0.0, image))
    sizes = [block] * len(shape) if isinstance(block, int) else block
    blocks = hidden.double()
    for axis, size in enumerate(sizes, start=2):
        blocks = blocks.unfold(axis, size, size)
    blocks = blocks.flatten(2 + len(shape)).mean(-1)  # a block's own share: all of it or nothing
    assert set(blocks.unique().tolist()) == {0.0, 1.0}
    assert blocks.flatten(1).sum(1).tolist() == [round(share * count)] * 3


def test_blocks_at_the_far_end_are_cut_off():
    _, hidden = BlockMasking(share=0.5, block=4)(torch.ones(1, 1, 10, 4), draws(1))
    along = hidden[0, 0, :, 0].tolist()
    assert [len(set(along[start : start + 4])) for start in (0, 4, 8)] == [1, 1, 1]
    assert sum(along[start] for start in (0, 4, 8)) == 2  # of three blocks the half, rounded up


@pytest.mark.parametrize(("share", "hidden"), [(0.01, 1), (0.99, 3)])
def test_neither_nothing_nor_all_is_hidden(share, hidden):
    _, where = BlockMasking(share=share, block=4)(torch.ones(1, 1, 8, 8), draws(1))
    assert where.sum() == hidden * 16


def test_every_block_is_hidden_as_often_as_any_other():
    _, hidden = BlockMasking(share=0.6, block=2)(torch.ones(2000, 1, 4, 6), draws(2000))
    shares = hidden[:, 0, ::2, ::2].double().mean(0)
    torch.testing.assert_close(shares, torch.full((2, 3), 4 / 6).double(), atol=0.05, rtol=0)


def test_a_sample_does_not_hang_on_its_batch():
    image = torch.rand(4, 1, 16, 16)
    four, two = (BlockMasking(block=4)(image[:n], draws(n))[1] for n in (4, 2))
    assert torch.equal(four[:2], two)
    assert not torch.equal(four[0], four[1])


def test_the_image_that_is_given_stays_as_it_is():
    image = torch.ones(1, 1, 8, 8)
    BlockMasking(block=4)(image, draws(1))
    assert torch.equal(image, torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize("wrong", [{"share": 0}, {"share": 1}, {"block": 0}, {"block": []}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(MedsegError, match=rf"pretext: {next(iter(wrong))} of BlockMasking"):
        BlockMasking(**wrong)


def test_a_block_of_other_dimensions_is_refused():
    with pytest.raises(MedsegError, match="2 numbers, one an axis"):
        BlockMasking(block=[4, 4, 4])(torch.ones(1, 1, 8, 8), draws(1))


def test_a_block_of_the_whole_patch_is_refused():
    with pytest.raises(
        MedsegError, match=r"block of BlockMasking is \[9, 9\]; allowed: smaller than the patch, \[8, 8\]"
    ):
        BlockMasking(block=9)(torch.ones(1, 1, 8, 8), draws(1))
