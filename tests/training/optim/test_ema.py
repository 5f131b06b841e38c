"""Weight averaging against PyTorch's own averaged models."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from medseg.training.optim.ema import average_into, decay, estimate_statistics, has_batch_statistics


@pytest.mark.parametrize(
    ("step", "horizon", "kept"),
    [
        (1, 100, 0.0),  # the first weights are random: forget them
        (11, 100, 0.5),  # reaches back two steps
        (91, 100, 0.9),
        (10_000, 100, 0.99),
        (10_000, 0.3, 0.0),  # a horizon below a step is the last step alone
    ],
)
def test_decay_by_hand(step, horizon, kept):
    assert decay(step, horizon) == pytest.approx(kept)


def test_the_average_is_that_of_torch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 1))
    reference = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    reference.update_parameters(network)  # the first is a copy
    average = copy.deepcopy(network)
    for _ in range(5):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average_into(average, network, 0.8)
        reference.update_parameters(network)
    for ours, theirs in zip(average.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_constant_network_is_its_own_average():
    network = nn.Linear(3, 2)
    average = copy.deepcopy(network)
    average_into(average, network, 0.5)
    assert torch.equal(average.weight, network.weight)


def test_statistics_are_those_of_torchs_update_bn():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    theirs = copy.deepcopy(ours)
    batches = [torch.randn(3, 1, 8, 8) * n for n in range(1, 5)]
    ours.eval()
    estimate_statistics(ours, ours, batches)
    update_bn(batches, theirs)
    torch.testing.assert_close(ours[1].running_mean, theirs[1].running_mean)
    torch.testing.assert_close(ours[1].running_var, theirs[1].running_var)
    assert not ours.training
    assert ours[1].momentum == 0.1


@pytest.mark.parametrize(("norm", "has"), [(nn.BatchNorm2d(2), True), (nn.InstanceNorm2d(2), False)])
def test_only_batch_norm_keeps_statistics(norm, has):
    assert has_batch_statistics(nn.Sequential(nn.Conv2d(1, 2, 1), norm)) is has
