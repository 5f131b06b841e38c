"""Fused optimizers do the same steps, and only those that can be are fused."""

import pytest
import torch
from torch import nn

from medseg.training.optim.optimizers import make_optimizer

SPECS = {
    "adamw": {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.01},
    "sgd": {"_target_": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9, "nesterov": True},
    "rmsprop": {"_target_": "torch.optim.RMSprop", "lr": 0.01},
}


def steps(spec, fused):
    torch.manual_seed(0)
    network = nn.Conv3d(1, 4, 3)
    optimizer = make_optimizer(spec, network.parameters(), fused=fused, trust=["torch.optim.RMSprop"])
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.ones(1, 1, 5, 5, 5)).square().sum().backward()
        optimizer.step()
    return optimizer, network.weight.detach()


@pytest.mark.parametrize("name", SPECS)
def test_fused_or_not_the_steps_are_the_same(name):
    torch.testing.assert_close(steps(SPECS[name], True)[1], steps(SPECS[name], False)[1])


@pytest.mark.parametrize(
    ("name", "fused", "is_fused"), [("adamw", True, True), ("sgd", True, True), ("sgd", False, None)]
)
def test_pytorchs_own_are_fused_where_asked(name, fused, is_fused):
    assert steps(SPECS[name], fused)[0].param_groups[0]["fused"] is is_fused


def test_a_value_from_the_config_is_kept():
    assert steps(SPECS["adamw"] | {"fused": False}, True)[0].param_groups[0]["fused"] is False


def test_what_cannot_be_fused_is_built_all_the_same():
    assert "fused" not in steps(SPECS["rmsprop"], True)[0].param_groups[0]


def test_an_optimizer_that_asks_for_the_loss_gets_it_in_its_first_step_too():
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    spec = {"_target_": "torch.optim.LBFGS", "lr": 0.5}
    optimizer = make_optimizer(spec, [weight], fused=True, trust=["torch.optim.LBFGS"])

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9
    for _ in range(3):
        optimizer.step(closure)
    torch.testing.assert_close(weight.detach(), torch.zeros(1), rtol=0, atol=1e-3)
