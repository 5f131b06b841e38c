"""The augmentation of a training batch: what its draws hang on, and that the margin is gone afterwards."""

from types import SimpleNamespace

import pytest
import torch

from medseg.augmentation import Brightness, Spatial
from medseg.models.slices import without_context
from medseg.training.module import TrainingModule


def make_step(*, first=0, patch=(8, 12, 10), slice_axis=None, context=0):
    """All of a module that ``augment`` looks at."""
    volume = list(patch) if slice_axis is None else [*patch[:slice_axis], 1, *patch[slice_axis:]]
    module = SimpleNamespace(
        seed=3,
        patch_size=volume,
        context=[context if axis == slice_axis else 0 for axis in range(len(volume))],
        augmentations=[Spatial(rotation_probability=1, mirror_axes=[0]), Brightness(probability=1)],
    )
    module.margin_of = lambda image: TrainingModule.margin_of(module, image)
    return lambda image, label, step: TrainingModule.augment(module, image, label, step, first)


@pytest.fixture
def sample():
    image = torch.randn(1, 2, 12, 16, 14, generator=torch.Generator().manual_seed(0))
    return image, (image[:, :1] > 0).to(torch.uint8)


def repeated(sample, batch):
    return [tensor.repeat(batch, 1, 1, 1, 1) for tensor in sample]


def test_a_sample_hangs_on_seed_step_and_index_alone(sample):
    four, _ = make_step()(*repeated(sample, 4), 7)
    two, _ = make_step()(*repeated(sample, 2), 7)
    second_rank, _ = make_step(first=2)(*repeated(sample, 2), 7)
    torch.testing.assert_close(four[:2], two)
    torch.testing.assert_close(four[2:], second_rank)
    later, _ = make_step()(*repeated(sample, 2), 8)
    assert not torch.allclose(later, two)


@pytest.mark.parametrize("patch", [(8, 12, 10), (12, 16, 14)])
def test_a_batch_stays_as_it_is_since_it_is_augmented_again_where_memory_runs_out(sample, patch):
    image, label = sample
    before = image.clone(), label.clone()
    make_step(patch=patch)(image, label, 7)
    torch.testing.assert_close((image, label), before, rtol=0, atol=0)


def test_the_margin_is_gone_afterwards(sample):
    image, label = make_step()(*sample, 0)
    assert image.shape == (1, 2, 8, 12, 10)
    assert label.shape == (1, 1, 8, 12, 10)


def test_the_context_of_a_2d_network_stays(sample):
    image, label = sample[0][:, :, :3], sample[1][:, :, :3]
    image, label = make_step(patch=(12, 10), slice_axis=0, context=1)(image, label, 0)
    assert image.shape == (1, 2, 3, 12, 10)
    assert without_context(label, [1, 0, 0]).shape == (1, 1, 1, 12, 10)
