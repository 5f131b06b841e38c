"""Every network in ``conf/model`` is composed, built and trained a step, in 2D and 3D."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg.config.instantiate import build
from medseg.config.schema import CONF
from medseg.models.slices import as_list
from medseg.training.compiled import Compiled
from medseg.training.segmentation import deep_loss

DOCS = Path(__file__).parents[2] / "docs"
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def dims(request):
    return request.param


def seeded_network(model: dict[str, Any], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(model, "model", ())


def patches(config: dict[str, Any]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 2, *config["plan"]["patch_size"], generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_network_trains(planned, name, dims):
    config = planned(name, dims)
    shape = tuple(config["plan"]["patch_size"])
    network, image = seeded_network(config["model"]).train(), patches(config)
    before = {key: value.clone() for key, value in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    label = torch.randint(3, (1, 1, *shape), generator=torch.Generator().manual_seed(2))
    loss_of = build(config["loss"], "loss", ())
    for _ in range(2):  # residual blocks that start as their shortcuts learn from the second step on
        optimizer.zero_grad()
        outputs = as_list(network(image), image)
        assert outputs[0].shape == (1, 3, *shape)
        loss = deep_loss(loss_of, outputs, label)
        assert loss.isfinite()
        loss.backward()
        optimizer.step()
    trained = {key: value for key, value in network.named_parameters() if value.requires_grad}
    assert [key for key, value in trained.items() if value.grad is None] == [], "distributed training would wait"
    assert all(value.isfinite().all() for value in trained.values())
    changed = [key for key, value in trained.items() if not torch.equal(value, before[key])]
    assert len(changed) > 0.8 * len(trained)  # a bias before a norm may stay


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_compiled_to_one_graph_but_those_that_the_docs_name(planned, name, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # traced, not compiled
    torch.compiler.reset()
    config = planned(name, 3)
    compiled = Compiled(seeded_network(config["model"]).train())
    compiled(patches(config))
    page = (DOCS / "understand/devices.md").read_text("utf-8")
    line = next(line for line in page.splitlines() if "`trainer.compile` leaves out" in line)
    assert (compiled.failure is not None) == (f"`{name}`" in line), compiled.failure


@pytest.mark.parametrize("name", NAMES)
def test_weights_carry_the_network(planned, name, dims):
    config = planned(name, dims)
    image, network = patches(config), seeded_network(config["model"]).eval()
    other = seeded_network(config["model"], seed=1).eval()
    with torch.no_grad():
        (expected,), (different,) = as_list(network(image), image), as_list(other(image), image)
        assert expected.shape == (1, 3, *config["plan"]["patch_size"])
        assert not torch.equal(expected, different)
        other.load_state_dict(network.state_dict())
        (loaded,) = as_list(other(image), image)
    torch.testing.assert_close(loaded, expected)


OUTPUTS = {  # how many times each output halves the axes but the first; small networks have two halvings
    "basic_unet_plus_plus": [0, 0, 0, 0],
    "dynunet": [0, 0],
    "mednext": [0, 1, 2],
    "resenc_l": [0, 1],
    "resenc_m": [0, 1],
    "unet": [0, 1],
}


def test_all_networks_with_deep_supervision_are_tested(planned):
    assert set(OUTPUTS) == {name for name in NAMES if "deep_supervision" in planned(name, 2)["model"]}


@pytest.mark.parametrize("name", OUTPUTS)
def test_deep_supervision_lists_the_finest_output_first(planned, name, dims):
    config = planned(name, dims, "model.deep_supervision=true")
    network, image = seeded_network(config["model"]), patches(config)
    patch = config["plan"]["patch_size"]
    outputs = as_list(network.train()(image), image)
    assert [output.shape[:2] for output in outputs] == [(1, 3)] * len(OUTPUTS[name])
    assert [output.shape[3:] for output in outputs] == [
        torch.Size(size // 2**halvings for size in patch[1:]) for halvings in OUTPUTS[name]
    ]
    sum(output.square().mean() for output in outputs).backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []
    (final,) = as_list(network.eval()(image), image)  # none of these networks has a batch norm or dropout
    torch.testing.assert_close(outputs[0], final)
    assert not any(torch.equal(output, final) for output in outputs[1:])
