"""What Lightning's Trainer is told of the devices."""

from types import SimpleNamespace

import pytest
import torch

from medseg.config.schema import CONF
from medseg.config.settings import TrainerSettings
from medseg.config.untrusted import read_yaml
from medseg.training import assembly


@pytest.mark.parametrize(
    ("device", "count", "devices"), [("cuda:2", 1, [2]), ("cuda:2", 4, 4), ("mps", 1, 1), ("cpu", 1, 1), ("cpu", 2, 2)]
)
def test_one_device_is_the_one_that_was_picked_and_of_several_the_first(monkeypatch, tmp_path, device, count, devices):
    options = {}
    monkeypatch.setattr(assembly, "Trainer", lambda **given: options.update(given))
    monkeypatch.setattr(assembly, "pick_device", lambda name, count: torch.device(device))
    trainer = read_yaml(CONF / "trainer/default.yaml") | {"devices": count, "precision": "fp32"}
    assembly.make_trainer(SimpleNamespace(trainer=TrainerSettings(**trainer), logger={}, trust=[]), tmp_path, [])
    assert options["devices"] == devices
