"""Every recipe in conf/experiment composes, changes something, says what for, and trains; nnU-Net's has its values."""

import json

import pytest

from medseg.config.schema import CONF
from medseg.jobs.train import train

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
OF_NNUNET = ("nnunet", "resenc_l", "resenc_m")
VOLUMES = ("slices",)
"""Recipes for volumes; the others are tried on pictures, which are faster."""


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains(small, name, tmp_path):
    overrides = (f"experiment={name}", "trainer.max_epochs=1", "trainer.steps_per_epoch=2", "plan.patch_size=[32,32]")
    result = train.run(small(3 if name in VOLUMES else 2, *overrides) | {"run_dir": str(tmp_path / "run")})
    assert result["status"] == "done"
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["plan"]["mirror_axes"] == [0, 1] or name not in OF_NNUNET
    assert plan["plan"].get("slice_axis") is not None or name not in VOLUMES


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_changes_something_and_says_what_for(composed, name):
    assert composed("train", f"experiment={name}") != composed("train")
    package, purpose, *_ = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert package == "# @package _global_"
    assert purpose.startswith("# ")
    assert name in (CONF / "help" / "train.txt").read_text()


@pytest.mark.parametrize("name", ["few_shot", "five_folds", "search"])
def test_values_to_sweep_over_are_keys_of_the_config(name):
    from medseg.cli.overrides import check
    from medseg.cli.sources import Sources
    from medseg.config.untrusted import read_yaml

    params = read_yaml(CONF / "experiment" / f"{name}.yaml")["hydra"]["sweeper"]["params"]
    swept = [f"{key}={values}" for key, values in params.items()]
    checked = check(Sources(CONF, "train"), [f"experiment={name}", *swept], multirun=True)
    assert not checked.problems
    assert all(len(values) > 1 for values in checked.swept.values())


@pytest.mark.parametrize("name", OF_NNUNET)
def test_they_have_nnunets_recipe(composed, name):
    """Values of nnU-Net v2's default trainer: Isensee et al. (2021), supplementary note 2, and its code."""
    config = composed("train", f"experiment={name}")
    trainer, optimizer, model = config["trainer"], config["optimizer"], config["model"]
    assert (trainer["max_epochs"], trainer["steps_per_epoch"], trainer["gradient_clip"]) == (1000, 250, 12)
    assert optimizer["_target_"] == "torch.optim.SGD"
    assert (optimizer["lr"], optimizer["momentum"], optimizer["nesterov"]) == (0.01, 0.99, True)
    assert optimizer["weight_decay"] == 3e-5
    assert (config["scheduler"]["power"], config["scheduler"]["warmup"]) == (0.9, 0)
    assert (model["base_channels"], model["deep_supervision"], model["downsampling"]) == (32, True, "strided")
    assert model["residual"] is (name != "nnunet")
