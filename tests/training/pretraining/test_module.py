"""The loss of a reconstruction, worked out by hand, and the patches that are always validated on."""

from collections import Counter

import pytest
import torch

from medseg.training.pretraining.data import PER_CASE, ReconstructionData
from medseg.training.pretraining.module import DISTANCES, coarsened, reconstruction_loss


def first_half(shape):
    hidden = torch.zeros(1, 1, *shape, dtype=torch.bool)
    hidden[:, :, : shape[0] // 2] = True
    return hidden


@pytest.mark.parametrize(("distance", "expected"), [("l1", 2.0), ("l2", 5.0)])
@pytest.mark.parametrize("shape", [(4, 4), (4, 2, 2)])
def test_the_loss_is_the_mean_over_what_is_hidden(distance, expected, shape):
    image = torch.zeros(1, 2, *shape)
    output = torch.full_like(image, 100.0)  # where nothing is hidden
    output[:, 0, :2], output[:, 1, :2] = 1.0, -3.0
    loss = reconstruction_loss([output], image, first_half(shape), DISTANCES[distance])
    assert loss.item() == pytest.approx(expected)


def test_what_is_seen_gives_no_gradient():
    output = torch.randn(1, 1, 8, 8, requires_grad=True)
    hidden = first_half((8, 8))
    reconstruction_loss([output], torch.randn(1, 1, 8, 8), hidden, torch.square).backward()
    assert (output.grad[~hidden] == 0).all()
    assert (output.grad[hidden] != 0).all()


def test_coarser_outputs_are_compared_with_means_and_count_half():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    means = torch.tensor([[2.5, 4.5], [10.5, 12.5]])[None, None]
    hidden = first_half((4, 4))
    loss = reconstruction_loss([image + 3, means + 6], image, hidden, torch.abs)
    assert loss.item() == pytest.approx((3 + 6 / 2) / 1.5)


@pytest.mark.parametrize(("shape", "coarse"), [((6, 8), [3, 2]), ((6, 8, 9), [3, 2, 3]), ((5, 7, 6), [2, 3, 4])])
def test_coarsened_images_are_means_over_areas(shape, coarse):
    image = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(image, size=coarse, mode="area")
    torch.testing.assert_close(coarsened(image, coarse), expected)


def test_nothing_hidden_gives_no_loss():
    image = torch.randn(1, 1, 4, 4)
    assert reconstruction_loss([image + 1], image, torch.zeros(1, 1, 4, 4, dtype=torch.bool), torch.square) == 0


@pytest.fixture
def files(tmp_path):
    paths = []
    for number in range(3):
        shape = (12, 14)
        case = {
            "image": torch.full((1, *shape), float(number)),
            "label": torch.ones(shape, dtype=torch.uint8),
            "locations": [torch.ones(shape).nonzero().int()],
            "annotated": torch.ones(2, dtype=torch.bool),
            "known": torch.zeros(0, 2),
            "false_positives": torch.zeros(0, 2),
        }
        paths.append(tmp_path / f"{number}.pt")
        torch.save(case, paths[-1])
    return paths


def make_data(files, **changes):
    options = {"patch_size": [8, 8], "foreground": 0.5, "context": [1, 0], "batch_size": 5, "steps_per_epoch": 2}
    return ReconstructionData(files, files, **options | {"seed": 1} | changes)


def test_each_case_is_validated_on_as_many_patches_and_always_the_same(files):
    first, again = (list(make_data(files).val_dataloader()) for _ in range(2))
    assert [batch["number"] for batch in first] == list(range(5))
    images = torch.cat([batch["image"] for batch in first])
    assert images.shape == (3 * PER_CASE, 1, 10, 8)
    middles = images[:, 0, 5, 4].int().tolist()
    assert Counter(middles) == dict.fromkeys(range(3), PER_CASE)
    assert all(torch.equal(one["image"], other["image"]) for one, other in zip(first, again, strict=True))


def test_ranks_divide_the_validation(files, monkeypatch):
    numbers = []
    for rank in range(2):
        monkeypatch.setattr(ReconstructionData, "rank_of_ranks", (rank, 2))
        numbers += [batch["number"] for batch in make_data(files).val_dataloader()]
    assert sorted(numbers) == list(range(5))
