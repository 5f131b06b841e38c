"""Errors made in a first stage's channels: how far structures grow and shrink, and which component goes."""

import pytest
import torch
from scipy import ndimage

from medseg.augmentation import CoarseErrors, RandomNumbers
from medseg.augmentation.coarse_errors import grown, one_component, shrunk
from medseg.augmentation.random import seeded


def numbers(batch, seed=0):
    return RandomNumbers([seeded(seed, place) for place in range(batch)])


def box(shape, *spans):
    mask = torch.zeros(shape)
    mask[tuple(slice(*span) for span in spans)] = 1
    return mask


@pytest.mark.parametrize("shape", [(24, 20), (24, 20, 22)])
def test_growing_and_shrinking_is_scipys_greyscale_morphology(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for function, reference in ((grown, ndimage.grey_dilation), (shrunk, ndimage.grey_erosion)):
        expected = reference(x.numpy(), size=(5,) * len(shape), mode="nearest")
        assert torch.equal(function(x, 2), torch.from_numpy(expected))


def test_thin_patches_change_within_their_slices():
    grew = grown(box((4, 32, 32), (2, 3), (10, 12), (10, 12)), 3)
    assert torch.equal(grew, box((4, 32, 32), (2, 3), (7, 15), (7, 15)))


@pytest.mark.parametrize("shape", [(30, 27), (30, 27, 18)])
def test_one_component_is_found_as_a_whole_and_alone(shape):
    rest = [(2, 8)] * (len(shape) - 2)
    first, second = box(shape, (1, 12), (2, 6), *rest), box(shape, (20, 29), (14, 26), *rest)
    x = (first + second)[None].repeat(20, *[1] * len(shape))
    blocks = torch.Size(-(-size // 4) for size in shape).numel()
    found = one_component(x, torch.rand(20, blocks, generator=torch.Generator().manual_seed(0)))
    kinds = [next(name for name, mask in (("1", first), ("2", second)) if torch.equal(row, mask)) for row in found]
    assert {*kinds} == {"1", "2"}
    assert one_component(torch.zeros_like(x), torch.rand(20, blocks)).sum() == 0


def test_a_component_goes_unless_it_is_large():
    small, large = box((32, 32), (2, 6), (2, 6)), box((32, 32), (12, 32), (12, 32))
    image = torch.stack([small, large])[None].repeat(8, 1, 1, 1)
    label = torch.zeros(8, 1, 32, 32, dtype=torch.uint8)
    result, same = CoarseErrors(morphology=0, removal=1)(image, label, numbers(8))
    assert same is label
    assert result[:, 0].sum() == 0
    assert torch.equal(result[:, 1], image[:, 1])
    unchanged, _ = CoarseErrors(morphology=0, removal=0)(image, label, numbers(8))
    assert torch.equal(unchanged, image)


def test_all_four_kinds_of_morphology_occur_within_their_radii():
    image = box((1, 40, 40), (0, 1), (14, 26), (14, 26))[None].repeat(60, 1, 1, 1)
    image[:, :, 20, 20] = 0  # a hole that closing fills
    label = torch.zeros(60, 1, 40, 40, dtype=torch.uint8)
    result, _ = CoarseErrors(morphology=1, removal=0, radius=(2, 3))(image, label, numbers(60))
    sizes = set(result.flatten(1).sum(1).int().tolist())
    dilated, closed = {16**2, 18**2}, {12**2}
    assert dilated | closed < sizes
    assert min(sizes) < 11**2  # eroded, or opened


def test_a_sample_comes_out_the_same_whatever_is_beside_it():
    image = torch.rand(5, 2, 20, 24, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(5, 1, 20, 24, dtype=torch.uint8)
    errors = CoarseErrors(morphology=0.5, removal=0.5)
    together, _ = errors(image, label, numbers(5))
    assert not torch.equal(together, image)
    for index in range(5):
        alone, _ = errors(image[index : index + 1], label[:1], RandomNumbers([seeded(0, index)]))
        assert torch.equal(alone[0], together[index])
