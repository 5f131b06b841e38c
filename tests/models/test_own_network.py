"""The example of docs/how-to/own-network.md: a network of one's own, by ``--config-dir``."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from medseg.cli import command_line
from medseg.config.check import resolve
from medseg.config.instantiate import build
from medseg.models.slices import as_list

DOCUMENT = Path(__file__).parents[2] / "docs/how-to/own-network.md"
PLAN = {"in_channels": 2, "out_channels": 3, "patch_size": [16, 8]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write the files of the documented example, each headed by a comment with its path."""
    blocks = r"```\w+\n((?:# @package \S+\n)?# (my_conf/\S+)\n.*?)```"
    for text, name in re.findall(blocks, DOCUMENT.read_text("utf-8"), re.DOTALL):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my_conf"


def composed(capsys, *arguments):
    assert command_line.main(["train", "--config-dir", "my_conf", *arguments, "--cfg", "job"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_example_is_composed_and_trains_a_step(folder, capsys):
    config = composed(capsys, "model=dilated", "model.width=32")
    assert config["plan"]["divisor"] is None
    model = resolve(config, {"model": {"spatial_dims": 2}, "plan": PLAN})["model"]
    network = build(model, "model", [model["_target_"]])
    assert type(network).__module__ == "my_networks"
    assert network.head.in_channels == 32
    patches = torch.randn(2, 2, 16, 8)
    (logits,) = as_list(network(patches), patches)
    assert logits.shape == (2, 3, 16, 8)
    before = network.head.weight.clone()
    torch.nn.functional.cross_entropy(logits, torch.zeros(2, 16, 8, dtype=torch.long)).backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert not torch.equal(network.head.weight, before)


def test_example_with_a_divisor_sets_the_plan(folder, capsys):
    config = composed(capsys, "model=halving")
    assert config["plan"]["divisor"] == 16
    assert config["model"]["_target_"] == "my_networks.Dilated"
    assert config["loss"]["_target_"].startswith("medseg."), "the package directive leaves the rest alone"


def test_wrong_argument_of_the_example_is_explained(folder, capsys):
    assert (
        command_line.main(["train", "--config-dir", "my_conf", "model=dilated", "model.widht=3", "--cfg", "job"]) == 1
    )
    assert "Did you mean 'model.width'?" in capsys.readouterr().err
