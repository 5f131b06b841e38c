"""Every recipe in conf/experiment composes and trains; nnU-Net's has nnU-Net's values."""

import json

import pytest

from medseg.config.schema import CONF
from medseg.jobs.train import train

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
RECIPES = [name for name in EXPERIMENTS if name != "few_shot"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains(small, name, tmp_path):
    overrides = (f"experiment={name}", "trainer.max_epochs=1", "trainer.steps_per_epoch=2", "plan.patch_size=[32,32]")
    result = train.run(small(2, *overrides) | {"run_dir": str(tmp_path / "run")})
    assert result["status"] == "done"
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["plan"]["mirror_axes"] == [0, 1] or name not in RECIPES


@pytest.mark.parametrize("name", RECIPES)
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
