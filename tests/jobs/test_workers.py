"""Trainings whose data is loaded by further processes come out as those without, whether or not they are resumed."""

import csv

import pytest
import torch
import yaml

from medseg.jobs.train import pretrain, train

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
STEPS = "trainer.steps_per_epoch=2"


def rows_of(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check_same(run_dir, other):
    first, second = (rows_of(each)[-1] for each in (run_dir, other))
    assert first["train_loss"] == second["train_loss"]
    first, second = (torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (run_dir, other))
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())


def test_a_training_with_workers_that_is_resumed(small, tmp_path):
    settings = (STEPS, "split.test=0", "scheduler=constant", "trainer.averaging=null")  # which know no end
    train.run(small(2, "trainer.max_epochs=3", *settings) | {"run_dir": str(tmp_path / "whole")})
    part = tmp_path / "part"
    train.run(small(2, "trainer.max_epochs=2", "trainer.workers=2", *settings) | {"run_dir": str(part)})
    saved = yaml.safe_load((part / "config.yaml").read_text())
    saved["trainer"]["max_epochs"] = 3
    train.run(saved | {"resume": str(part), "run_dir": str(part)})
    check_same(part, tmp_path / "whole")


def test_a_pretraining_with_a_worker(composed, workplace, tmp_path):
    for workers in (0, 1):
        config = composed(
            "pretrain",
            *("dataset.dims=2", "dataset.cases=10", "dataset.size=48", "trainer.max_time=null", "trainer.max_epochs=2"),
            *(STEPS, "trainer.accelerator=cpu", "model.base_channels=4", "model.depth=2", "plan.batch_size=2"),
            f"trainer.workers={workers}",
        )
        config |= {"run_dir": str(tmp_path / str(workers)), "cache_dir": str(workplace / "cache")}
        config["dataset"]["root"] = str(workplace / "phantom")
        pretrain.run(config)
    check_same(tmp_path / "0", tmp_path / "1")
