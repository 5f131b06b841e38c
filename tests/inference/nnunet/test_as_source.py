"""A trained model of nnU-Net's as what a training begins with: the same network, with medseg's axes."""

import json
import logging

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from medseg.config.instantiate import build
from medseg.config.schema import CONF
from medseg.jobs.train import train
from medseg.training.transfer.sources import read_source
from medseg.training.transfer.transfer import transfer_weights


def as_ours(source):
    """Build the network that a source tells of, with all of its weights."""
    model, plan = source.settings["model"], source.settings["plan"]
    spec = {
        **model,
        "in_channels": plan["in_channels"],
        "out_channels": len(source.outputs),
        **{key: plan[key] for key in ("strides", "kernel_sizes")},
    }
    network = build(spec, "model", ())
    transfer = transfer_weights(network, spec, source, source.outputs, regions=source.regions)
    assert transfer.share == 1
    assert not transfer.skipped
    transfer.put_into(network)
    return network.eval()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("transpose", "to_ours"), [([0, 1, 2], (2, 1, 0)), ([1, 0, 2], (2, 0, 1))])
@pytest.mark.parametrize("bias", [True, False])
def test_a_network_of_nnunets_is_the_same_with_our_axes(nnunet, tmp_path, residual, transpose, to_ours, bias):
    architecture = nnunet.architecture(residual=residual, conv_bias=bias)
    reference = nnunet.network(architecture["arch_kwargs"], 2, 3)
    plans = nnunet.plans(
        architecture, patch=[8, 16, 12], spacing=[3.0, 1.5, 1.0], schemes=["CTNormalization", "ZScoreNormalization"]
    )
    plans["transpose_forward"] = transpose
    folder = nnunet.write(tmp_path / "model", plans, [reference], channels=("CT", "MRI"))
    for path in (folder, folder / "fold_0", folder / "fold_0" / "checkpoint_final.pth"):
        source = read_source(path)
        assert source.outputs == ("background", "anterior", "posterior")
    # nnU-Net's axes are those of (z, y, x) that it transposes to; ours are x, y, z.
    image = torch.randn(1, 2, 8, 16, 12)
    turned = tuple(axis + 2 for axis in to_ours)
    ours = as_ours(source)(image.permute(0, 1, *turned))[0]
    torch.testing.assert_close(ours, reference(image).permute(0, 1, *turned), rtol=1e-3, atol=1e-4)
    preprocessing = source.settings["preprocessing"]
    assert preprocessing["normalize"] == ["ct", "zscore"]
    assert preprocessing["window"][0] == [0.0, 200.0, 100.0, 50.0]
    assert preprocessing["spacing"] == [[3.0, 1.5, 1.0][axis] for axis in to_ours]


def test_nnunets_weights_alone_are_called_and_turned_as_ours(nnunet, tmp_path):
    reference = nnunet.network(nnunet.architecture()["arch_kwargs"], 1, 3)
    weights = {f"module.{name}": value for name, value in reference.state_dict().items()}
    torch.save({"network_weights": weights}, tmp_path / "pretrained.pth")
    source = read_source(tmp_path / "pretrained.pth")
    expected = weights["module.encoder.stages.0.0.convs.0.conv.weight"]  # (out, in, 1, 3, 3)
    assert torch.equal(source.weights["encoder.0.0.0.weight"], expected.permute(0, 1, 4, 3, 2))
    assert not source.settings
    assert source.split is None


def test_a_training_begins_with_nnunets_network_spacing_and_window(nnunet, tmp_path, caplog):
    architecture = nnunet.architecture()
    plans = nnunet.plans(architecture, patch=[8, 16, 12], spacing=[2.0, 1.5, 1.0], schemes=["CTNormalization"])
    labels = {"background": 0, "core": 1, "liver": 2}
    reference = nnunet.network(architecture["arch_kwargs"], 1, 3)
    folder = nnunet.write(tmp_path / "model", plans, [reference], labels=labels, channels=("CT",))
    small = ("trainer.max_epochs=1", "trainer.steps_per_epoch=1", "dataset.cases=6", "dataset.size=24")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", [*small, "trainer.max_time=null", "trainer.accelerator=cpu"]))
    config["finetune"]["checkpoint"] = str(folder)
    config["dataset"] |= {"root": str(tmp_path / "phantom"), "dims": 3}
    config |= {"cache_dir": str(tmp_path / "cache"), "run_dir": str(tmp_path / "run")}
    with caplog.at_level(logging.INFO):
        assert train.run(config)["status"] == "done"
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["preprocessing"]["spacing"] == [1.0, 1.5, 2.0]
    assert plan["preprocessing"]["window"] == [[0.0, 200.0, 100.0, 50.0]]
    report = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert report["share"] > 0.99
    assert report["adapted"]["heads.0.weight"] == "of background, core alone, in our order"
    assert "its training scans are unknown" in caplog.text
