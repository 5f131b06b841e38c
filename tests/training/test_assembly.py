"""What Lightning's Trainer is told of the devices."""

from types import SimpleNamespace

import pytest
import torch

from medseg.config.schema import CONF
from medseg.config.settings import TrainerSettings
from medseg.config.untrusted import read_yaml
from medseg.system.distributed.place import Place
from medseg.system.distributed.ranks import Ranks
from medseg.training import assembly


@pytest.mark.parametrize(
    ("place", "own", "told"),
    [
        (Place(), ["cuda:2"], ([2], 1, "auto")),
        (Place(), ["mps"], (1, 1, "auto")),
        (Place(rank=5, size=8, local_rank=1, local_size=4), [f"cuda:{n}" for n in range(4)], ([1], 8, "ddp")),
        (Place(rank=1, size=2, local_rank=1, local_size=2), ["cpu", "cpu"], (1, 2, "ddp")),
    ],
)
def test_each_process_is_a_machine_with_one_device_to_lightning(monkeypatch, tmp_path, place, own, told):
    options = {}
    monkeypatch.setattr(assembly, "Trainer", lambda **given: options.update(given))
    trainer = read_yaml(CONF / "trainer/default.yaml") | {"precision": "fp32"}
    settings = SimpleNamespace(trainer=TrainerSettings(**trainer), logger={}, trust=[])
    assembly.make_trainer(settings, tmp_path, [], Ranks(place, [torch.device(name) for name in own]))
    assert (options["devices"], options["num_nodes"], options["strategy"]) == told
    processes = options["plugins"][1]
    assert (processes.global_rank(), processes.world_size()) == (place.rank, place.size)
    assert (processes.node_rank(), processes.local_rank()) == (place.rank, 0)
