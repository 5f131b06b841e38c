"""A step without a finite gradient changes nothing, and is counted."""

import copy

import pytest
import torch
from torch import nn

from medseg.training.optim.divergence import StepRecord, leave_out

NAN, INF = float("nan"), float("inf")
OPTIMIZERS = {
    "AdamW": {"weight_decay": 0.1},
    "Adam": {},
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
}


def step(network, optimizer, value):
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, value)
    leave_out(optimizer, torch.tensor(value))
    optimizer.step()


def tensors_of(network, optimizer):
    state = [value for each in optimizer.state.values() for value in each.values() if isinstance(value, torch.Tensor)]
    return [each.detach().clone() for each in [*network.parameters(), *state]]


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fused_optimizer_goes_on_as_if_the_step_had_not_been(name, before, value):
    torch.manual_seed(0)
    network = nn.Linear(5, 3)
    twin = copy.deepcopy(network)
    one, other = (
        getattr(torch.optim, name)(each.parameters(), lr=0.1, fused=True, **OPTIMIZERS[name])
        for each in (network, twin)
    )
    for each, optimizer in ((network, one), (twin, other)):
        for _ in range(before):
            step(each, optimizer, 0.5)
    step(network, one, value)
    for each, optimizer in ((network, one), (twin, other)):
        step(each, optimizer, 0.25)
        step(each, optimizer, -0.5)
    assert all(map(torch.equal, tensors_of(network, one), tensors_of(twin, other)))


def test_of_plain_sgd_the_weights_stay_as_they_are():
    network = nn.Linear(5, 3)
    before = [each.detach().clone() for each in network.parameters()]
    step(network, torch.optim.SGD(network.parameters(), lr=0.1), NAN)
    assert all(map(torch.equal, before, network.parameters()))


@pytest.mark.parametrize("name", ["RMSprop", "RAdam", "Adagrad", "NAdam"])
def test_any_other_optimizer_keeps_finite_weights(name):
    network = nn.Linear(5, 3)
    optimizer = getattr(torch.optim, name)(network.parameters(), lr=0.1)
    for value in (0.5, NAN, INF, 0.5):
        step(network, optimizer, value)
    assert all(each.isfinite().all() for each in tensors_of(network, optimizer))


def counted(steps):
    """Return the counts after steps, each its losses and the norm of its gradient."""
    record = StepRecord()
    for losses, norm in steps:
        for loss in losses:
            record.add_loss(torch.tensor(loss))
        record.add_step(torch.tensor(norm))
    return record


def test_steps_in_a_row_are_counted_until_a_finite_one():
    assert counted([([1.0], NAN), ([NAN], 1.0)]).counts.tolist() == [2, 2, 1, 1]
    assert counted([([1.0], INF), ([NAN], 1.0), ([1.0], 1.0)]).counts.tolist() == [0, 2, 1, 0]


def test_one_of_several_accumulated_losses_is_enough():
    assert counted([([1.0, NAN, 1.0], 1.0)]).counts.tolist() == [1, 1, 1, 1]
    assert counted([([1.0, 1.0], 1.0)]).counts.tolist() == [0, 0, 0, 0]


def test_an_epoch_is_counted_anew_and_a_row_goes_on():
    record = counted([([NAN], NAN), ([NAN], NAN)])
    record.begin_epoch()
    assert record.counts.tolist() == [2, 0, 0, 1]
    assert record.steps == 0
    assert not record.is_last_loss_finite
