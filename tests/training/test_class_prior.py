"""Heads that begin at the class frequencies."""

import numpy as np
import pytest
import torch

from medseg.config.instantiate import build
from medseg.config.schema import CONF
from medseg.io.labels import IGNORE
from medseg.models.slices import as_list
from medseg.training.class_prior import LEAST, begin_at, class_frequencies
from medseg.training.transfer.transfer import axes_along

FREQUENCIES = torch.tensor([0.9, 0.1, 0.0], dtype=torch.float64)


def heads_of(network, spec):
    return axes_along(spec, "out_channels", network.state_dict())


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_the_biases_of_every_network_are_those_of_its_outputs(planned, name):
    config = planned(name, 3)
    torch.manual_seed(0)
    network = build(config["model"], "model", ()).eval()
    image, heads = torch.randn(1, 2, *config["plan"]["patch_size"]), heads_of(network, config["model"])
    with torch.no_grad():
        begin_at(torch.full((3,), 1 / 3), [network], heads, regions=False)
        before = as_list(network(image), image)
        begin_at(FREQUENCIES, [network], heads, regions=False)
        after = as_list(network(image), image)
    expected = (3 * torch.tensor([0.9, 0.1, LEAST])).log()
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new - old, expected.view(1, 3, 1, 1, 1).expand_as(old), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
def test_frequencies_are_those_of_the_known_voxels(regions):
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 2 if regions else 3, (2, 3 if regions else 1, 5, 6)) for _ in range(3)]
    for batch in batches:
        batch[rng.random(batch.shape) < 0.3] = IGNORE
    found = class_frequencies(map(torch.from_numpy, batches), 3)
    whole = np.concatenate(batches)
    if regions:
        expected = [(part == 1).sum() / (part != IGNORE).sum() for part in whole.swapaxes(0, 1)]
    else:
        expected = [(whole == index).sum() / (whole != IGNORE).sum() for index in range(3)]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
def test_features_of_0_give_the_frequencies(planned, regions):
    config = planned("unet", 2)
    network = build(config["model"], "model", ())
    with torch.no_grad():
        for head in network.heads:
            head.weight.zero_()
    begin_at(FREQUENCIES, [network], heads_of(network, config["model"]), regions=regions)
    logits = network(torch.randn(1, 2, *config["plan"]["patch_size"]))[0]
    p = (torch.sigmoid(logits) if regions else torch.softmax(logits, 1)).mean((0, 2, 3))
    expected = np.array([0.9, 0.1, LEAST])
    assert p.tolist() == pytest.approx(expected if regions else expected / expected.sum(), rel=1e-3)


def test_a_trained_head_keeps_its_biases(planned):
    config = planned("unet", 2)
    network = build(config["model"], "model", ())
    heads = heads_of(network, config["model"])
    begin_at(FREQUENCIES, [network], heads, regions=False, trained={"heads.0.bias"})
    assert network.heads[0].bias.tolist() == [0, 0, 0]
