"""``medseg train`` whose steps are timed beside bare ones; ``benchmark_training.py`` starts it and gives it turns.

    python medseg_steps.py OVERRIDE...

The real job runs, from reading the data to Lightning's Trainer; only the end of each step is watched. The plan is made
for the ``trainer.max_time`` given, the training then goes on for as long as there are turns, without validations.
"""

import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmark_data import composed
from lightning.pytorch import Callback, LightningModule, Trainer
from step_meter import StepMeter
from torch import Tensor, nn

from medseg.config.check import read_settings
from medseg.config.settings import TrainSettings
from medseg.io.datasets.dataset import label_map, open_dataset
from medseg.jobs.train import train
from medseg.jobs.train.setup import set_up
from medseg.system.device import pick_device
from medseg.system.distributed.ranks import Ranks

ENDLESS: dict[str, Any] = {"max_time": None, "max_epochs": 10**6, "validation_interval": 10**6, "patience": None}


class Watch(Callback):
    """Keeps what network and loss were given in the first step, and calls the meter after each further one."""

    def __init__(self, told: dict[str, Any], make_meter: Callable[..., Any] = StepMeter) -> None:
        self.told, self.make_meter = told, make_meter
        self.image: Tensor | None = None
        self.losses: list[tuple[Any, ...]] = []
        self.meter: Any = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen to network and loss."""
        self.hooks = [
            module.network.register_forward_pre_hook(self.keep_image),
            module.loss.register_forward_pre_hook(lambda _, given: self.losses.append(given)),
        ]

    def keep_image(self, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        """Keep a batch as the network gets it: augmented, cropped, on its device."""
        self.image = given[0].detach().clone()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Make the bare step after the first step of training, and do one after each other step."""
        if self.meter:
            self.meter.after_step()
            return
        for hook in self.hooks:
            hook.remove()
        assert self.image is not None
        told = {**self.told, "precision": str(trainer.precision), "patch": list(self.image.shape[2:])}
        told["parameters"] = sum(parameter.numel() for parameter in module.network.parameters())
        bare = bare_step(trainer, module, self.image, self.losses)
        self.meter = self.make_meter(bare, batch=len(self.image), told=told)


def bare_step(
    trainer: Trainer, module: LightningModule, image: Tensor, losses: list[tuple[Any, ...]]
) -> Callable[[], None]:
    """Return forward, backward and optimizer step of a copy of the network, on what the first step was given."""
    network = copy.deepcopy(module.network).train()
    if module.compiled:  # which a copy of the network is not
        network.compile()
    optimizer = alike(trainer.optimizers[0], network)
    targets = [target for _, target in losses]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with trainer.precision_plugin.train_step_context():
            outputs = network(image)
            outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            loss = sum(module.loss(output, target) for output, target in zip(outputs, targets, strict=True))
        loss.backward()
        optimizer.step()

    return step


def alike(optimizer: torch.optim.Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer of the same kind and settings for another network."""
    kind = type(getattr(optimizer, "_optimizer", optimizer))
    known = inspect.signature(kind).parameters
    return kind(network.parameters(), **{name: value for name, value in optimizer.defaults.items() if name in known})


def main() -> None:
    """Begin a run as ``medseg train`` does and fit it under watch."""
    config = composed(sys.argv[1:])
    settings = read_settings(TrainSettings, config)
    dataset = open_dataset(settings.dataset, settings.trust)
    run = set_up(
        config, settings, dataset, label_map(dataset), Ranks(devices=[pick_device(settings.trainer.accelerator)])
    )
    endless = replace(run.settings, trainer=replace(run.settings.trainer, **ENDLESS))
    watch = Watch(planned(endless))
    make = train.make_trainer

    def make_watched(wanted: TrainSettings, folder: Path, callbacks: list[Callback], ranks: Ranks) -> Trainer:
        return make(wanted, folder, [*callbacks, watch], ranks)

    with patch.object(train, "make_trainer", make_watched):
        train.fit(replace(run, settings=endless), lambda: None)


def planned(settings: TrainSettings) -> dict[str, Any]:
    """Return what MONAI needs to be given the same task."""
    return {
        "spacing": settings.preprocessing.spacing,
        "width": settings.model.get("base_channels"),
        "depth": settings.model.get("depth"),
    }


if __name__ == "__main__":
    main()
