"""Seconds a case that validation takes, and ``medseg predict`` on the same cases, in turn in one training.

    python scripts/benchmark_validation.py --rounds 4 dataset=decathlon dataset.root=DIR ...

A short training, a validation after every epoch of two steps; after each the weights predict the scans of the
validation cases into a folder, which also reads, preprocesses and writes them. It prints the medians, and how often
the time of a window in validation goes into that of a trained patch.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from benchmark_data import composed
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from medseg.config.check import read_settings
from medseg.config.schema import CONF
from medseg.config.settings import PredictSettings, TrainSettings
from medseg.inference.loading import read_models
from medseg.inference.sliding_window import starts
from medseg.io.datasets.dataset import by_id, label_map, open_dataset
from medseg.jobs.predict.predict import predict_all
from medseg.jobs.predict.scans import find_scans
from medseg.jobs.predict.steps import FolderPrediction
from medseg.jobs.train import train
from medseg.jobs.train.setup import Run, set_up
from medseg.preprocessing.cache import load
from medseg.system.device import pick_device
from medseg.system.distributed.ranks import Ranks


class Watch(Callback):
    """Times each validation, and after it a prediction of the same cases."""

    def __init__(self, predict: Callable[[], None]) -> None:
        self.predict = predict
        self.validated, self.predicted, self.scores = list[float](), list[float](), list[float]()
        self.steps, self.windows, self.patches = list[float](), 0, 0

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin the clock of the steps."""
        self.began = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """End it, and begin that of the validation."""
        self.steps.append((time.perf_counter() - self.began) / trainer.num_training_batches)
        self.began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Note what the validation took."""
        self.validated.append(time.perf_counter() - self.began)
        self.scores.append(module.selection.scores[-1])

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Count windows and patches."""
        data, scorer = trainer.datamodule, module.scorer
        self.patches = data.batch_size
        for file in data.val_files:
            grid = zip(load(file)["image"].shape[1:], scorer.patch_size, strict=True)
            counts = torch.tensor([len(starts(max(size, patch), patch, scorer.overlap)) for size, patch in grid])
            self.windows += int(counts.prod()) * 2 ** len(scorer.mirror_axes)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Predict the same cases."""
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "now.ckpt", weights_only=True)
        module.eval()
        began = time.perf_counter()
        self.predict()
        self.predicted.append(time.perf_counter() - began)
        module.train()


def main() -> None:
    """Train, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    options, overrides = parser.parse_known_args()
    short = (f"trainer.max_epochs={options.rounds + 1}", "trainer.steps_per_epoch=2", "trainer.validation_interval=1")
    with TemporaryDirectory() as work:
        run = begun(composed([*overrides, *short, f"run_dir={work}/run", "logger=none"]))
        watch = Watch(predictor_of(run, Path(work)))
        make = train.make_trainer

        def make_watched(wanted: TrainSettings, folder: Path, callbacks: list[Callback], ranks: Ranks) -> Trainer:
            return make(wanted, folder, [*callbacks, watch], ranks)

        with patch.object(train, "make_trainer", make_watched):
            train.fit(run, lambda: None)
    cases = len(run.split.val)
    validated, predicted = (median(times[1:]) / cases for times in (watch.validated, watch.predicted))
    a_patch = median(watch.steps[1:]) / watch.patches
    print(f"{cases} cases, {watch.windows} windows; scores {watch.scores}")
    print(f"seconds a case: validation {validated:.4f}, predict {predicted:.4f}, ratio {validated / predicted:.3f}")
    print(
        f"a trained patch: {a_patch:.4f} s, {a_patch / (validated * cases / watch.windows):.2f} windows of validation"
    )


def begun(config: dict[str, Any]) -> Run[TrainSettings]:
    """Set up a run, its directory made."""
    settings = read_settings(TrainSettings, config)
    assert settings.run_dir
    settings.run_dir.mkdir(parents=True)
    dataset = open_dataset(settings.dataset, settings.trust)
    return set_up(
        config, settings, dataset, label_map(dataset), Ranks(devices=[pick_device(settings.trainer.accelerator)])
    )


def predictor_of(run: Run[TrainSettings], work: Path) -> Callable[[], None]:
    """Return what predicts the scans of the validation cases with the latest weights."""
    scans = work / "scans"
    scans.mkdir()
    for case in by_id(run.dataset.cases, run.split.val):
        for image in case.images:
            (scans / image.name).symlink_to(image.absolute())
    given = (
        f"checkpoint={run.directory / 'now.ckpt'}",
        f"input={scans}",
        f"output={work / 'masks'}",
        "skip_done=false",
    )
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("predict", list(given)))
    settings = read_settings(PredictSettings, config)

    def predict() -> None:
        models = read_models(settings.checkpoint)
        tasks, _ = find_scans(scans, work / "masks", models[0].endings)
        predict_all(FolderPrediction.of(models, replace(settings, device="auto")), tasks, lambda: None)

    return predict


if __name__ == "__main__":
    main()
