"""A run that was made when modules had other names is resumed, evaluated, fine-tuned and used as it was then."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from medseg.cli.command_line import main
from medseg.config.instantiate import MOVED, named_targets, targets
from medseg.io.layouts import phantom

SAVED = Path(__file__).parent / "runs/before_packages"
DATA = {"dims": 2, "cases": 10, "size": 64}
SHORT = ["cache_dir=cache", "trainer.max_time=null", "trainer.accelerator=cpu", "logger=none"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A copy of the run, beside the data set that it was trained on."""
    monkeypatch.chdir(tmp_path)
    phantom(root="phantom", channels=1, seed=0, **DATA)
    return Path(shutil.copytree(SAVED / "run", "run"))


def last_epoch(run: Path) -> dict[str, str]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))[-1]


def test_the_run_has_names_that_have_moved():
    names = set(targets(yaml.safe_load((SAVED / "run/config.yaml").read_text())))
    assert names & MOVED.keys()
    assert names - MOVED.keys() <= named_targets()


def test_moved_names_lead_to_what_conf_has():
    assert set(MOVED.values()) <= named_targets()
    assert not MOVED.keys() & named_targets()


def test_it_is_resumed_as_it_was(run):
    assert main(["train", f"resume={run}", "trainer.max_epochs=3"]) == 0
    assert float(last_epoch(run)["val_dice"]) == pytest.approx(0.0699877, abs=2e-4)  # rounding differs by processor
    assert float(last_epoch(run)["train_loss"]) == pytest.approx(1.3942606, abs=2e-4)


def test_it_is_evaluated_as_it_was(run):
    assert main(["eval", f"checkpoint={run}", "subset=val", "device=cpu", "run_dir=evaluated"]) == 0
    assert json.loads(Path("evaluated/metrics.json").read_text())["mean"]["dice"] == pytest.approx(0.0628715, abs=2e-4)


def test_it_predicts_as_it_did(run):
    scan = sorted(Path("phantom").glob("2d*/images/*"))[0]
    settings = [f"checkpoint={run}", f"input={scan}", "output=masks", "device=cpu", "precision=fp32"]
    assert main(["predict", *settings]) == 0
    with Image.open(f"masks/{scan.name}") as made, Image.open(SAVED / "mask.png") as expected:
        assert np.mean(np.asarray(made) != np.asarray(expected)) < 1e-3


def test_it_is_fine_tuned_as_it_was(run):
    data = ["dataset.root=phantom", *(f"dataset.{name}={value}" for name, value in DATA.items())]
    settings = ["scheduler=poly", "trainer.averaging=0.03"]  # the defaults of that time
    settings += [f"finetune.checkpoint={run}", "trainer.max_epochs=1", "trainer.steps_per_epoch=2", "run_dir=tuned"]
    assert main(["train", *settings, "trainer.precision=fp32", *data, *SHORT]) == 0
    assert float(last_epoch(Path("tuned"))["val_dice"]) == pytest.approx(0.0656078, abs=5e-4)  # of a float32 cache


@pytest.mark.parametrize("name", ["Polynomial", "Cosine"])
def test_a_config_of_the_user_s_own_may_have_an_earlier_name(run, name):
    scheduler = Path("mine/scheduler/own.yaml")
    scheduler.parent.mkdir(parents=True)
    scheduler.write_text(f"_target_: medseg.training.schedules.{name}\nwarmup: 0.5\n")
    data = ["dataset.root=phantom", *(f"dataset.{key}={value}" for key, value in DATA.items())]
    network = ["model.depth=2", "model.base_channels=4", "trainer.max_epochs=1", "trainer.steps_per_epoch=2"]
    command = ["train", "--config-dir", "mine", "scheduler=own", *data, *network, *SHORT, "run_dir=own"]
    assert main(command) == 0
    assert f"medseg.training.optim.schedules.{name}" in Path("own/config.yaml").read_text()
