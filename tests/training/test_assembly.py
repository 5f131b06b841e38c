"""What Lightning's Trainer is told of the devices."""

from types import SimpleNamespace

import pytest
import torch
from plain_settings import composed

from medseg.augmentation import RandomNumbers
from medseg.augmentation.random import seeded
from medseg.config.check import resolve
from medseg.config.schema import CONF, typed
from medseg.config.settings import TrainerSettings, TrainingPlan, TrainSettings
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
    trainer = TrainerSettings(**trainer)
    settings = SimpleNamespace(trainer=trainer, limits=trainer, logger={}, trust=[])
    assembly.make_trainer(settings, tmp_path, [], Ranks(place, [torch.device(name) for name in own]))
    assert (options["devices"], options["num_nodes"], options["strategy"]) == told
    processes = options["plugins"][1]
    assert (processes.global_rank(), processes.world_size()) == (place.rank, place.size)
    assert (processes.node_rank(), processes.local_rank()) == (place.rank, 0)


@pytest.mark.parametrize("augment", ["default", "none"])
@pytest.mark.parametrize("errors", [0.4, 0])
def test_channels_of_a_first_stage_get_errors_where_asked_and_no_intensity_augmentation(augment, errors):
    config = resolve(composed("train", "dataset=folder", "dataset.root=x", f"augment={augment}"))
    config["preprocessing"]["normalize"] = ["zscore", "zscore"]
    config["first_stage"] |= {"use": "channels", "errors": errors}
    plan = {
        **config["plan"],
        "in_channels": 5,
        "coarse_channels": 3,
        "patch_size": [12, 12],
        "batch_size": 16,
        "mirror_axes": [],
    }
    plan, settings = typed(TrainingPlan, plan), typed(TrainSettings, config)
    augmentations = assembly.in_common(settings, plan, torch.device("cpu"))["augmentations"]
    image = torch.rand(16, 5, 12, 12, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(16, 1, 12, 12, dtype=torch.uint8)
    result = image.clone()
    for each in augmentations[1:] if augment == "default" else augmentations:  # the first is spatial
        result, label = each(result, label, RandomNumbers([seeded(0, n) for n in range(16)]))
    is_changed = (result != image).flatten(2).any(2)
    assert is_changed[:, :2].any() == (augment == "default")
    assert is_changed[:, 2:].any() == (errors > 0)
    assert torch.isin(result[:, 2:], torch.cat([image[:, 2:].flatten(), torch.zeros(1)])).all()  # no new values
