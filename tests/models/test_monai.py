"""MONAI's networks under medseg's names, against MONAI's own with its own arguments."""

import io
import sys
from contextlib import redirect_stdout

import pytest
import torch
import yaml
from monai.networks import nets
from monai.networks.nets.mednext import create_mednext
from torch import nn

from medseg.cli import command_line
from medseg.config.instantiate import build
from medseg.errors import MedsegError
from medseg.models import monai

SHARED = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
CUBE = [32, 32, 32]


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("variant", "blocks", "expansion"),
    [
        ("S", 2, 2),
        ("B", 2, [2, 3, 4, 4]),
        ("M", [3, 4, 4, 4], [2, 3, 4, 4]),
        ("L", [3, 4, 8, 8], [3, 4, 8, 8]),
    ],
)
def test_mednext_has_the_four_sizes_of_the_paper(variant, blocks, expansion):
    sizes = {"depth": 4, "base_channels": 32, "input_size": CUBE, "blocks": blocks, "expansion": expansion}
    with torch.device("meta"):
        assert shapes(monai.mednext(**SHARED, **sizes)) == shapes(create_mednext(variant, **SHARED))


def test_dynunet_has_the_widths_of_nnunet():
    strides, kernels = [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]], [[1, 3, 3], *[[3, 3, 3]] * 5]
    with torch.device("meta"):
        ours = monai.dynunet(**SHARED, depth=5, base_channels=32, strides=strides, kernel_sizes=kernels)
        theirs = nets.DynUNet(**SHARED, kernel_size=kernels, strides=[1, *strides], upsample_kernel_size=strides)
    assert shapes(ours) == shapes(theirs)


def test_defaults_are_monai_s():
    pairs = [
        (monai.segresnet(**SHARED, depth=3, base_channels=8, input_size=CUBE), nets.SegResNet(**SHARED)),
        (
            monai.flexible_unet(**SHARED, base_channels=16, input_size=CUBE, backbone="resnet10"),
            nets.FlexibleUNet(**SHARED, backbone="resnet10"),
        ),
        (
            monai.basic_unet_plus_plus(**SHARED, base_channels=32, deep_supervision=True),
            nets.BasicUNetPlusPlus(**SHARED, deep_supervision=True),
        ),
        (monai.vnet(**SHARED, input_size=CUBE), nets.VNet(**SHARED)),
        (monai.swin_unetr(**SHARED, base_channels=24, input_size=CUBE), nets.SwinUNETR(**SHARED)),
    ]
    for ours, theirs in pairs:
        assert shapes(ours) == shapes(theirs)


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_unet_plus_plus_reverses_monai_s_outputs(deep_supervision):
    flat = SHARED | {"spatial_dims": 2}
    ours = monai.basic_unet_plus_plus(**flat, base_channels=2, deep_supervision=deep_supervision)
    theirs = nets.BasicUNetPlusPlus(**flat, features=(2, 2, 4, 8, 16, 2), deep_supervision=deep_supervision)
    theirs.load_state_dict(ours.state_dict(), strict=deep_supervision)
    image = torch.randn(1, 1, 32, 32)
    expected = theirs(image)[::-1]
    torch.testing.assert_close(ours.train()(image), expected)
    torch.testing.assert_close(ours.eval()(image), expected[:1])


def test_vnet_in_2d_never_drops_whole_images():
    network = monai.vnet(**(SHARED | {"spatial_dims": 2}), input_size=[32, 32]).train()
    drop = next(module for module in network.modules() if isinstance(module, nn.Dropout2d | nn.Dropout3d))
    torch.manual_seed(0)
    kept = drop(torch.ones(2, 64, 4, 4)).amax((2, 3)) > 0  # (image, channel)
    assert (kept.float().mean(1) - 0.5).abs().max() < 0.3
    assert not torch.equal(kept[0], kept[1])


# Further arguments


def test_further_arguments_go_to_monai():
    network = monai.segresnet(**SHARED, depth=1, base_channels=8, input_size=CUBE, norm="instance", dropout_prob=0.3)
    assert {type(module).__name__ for module in network.modules() if "Norm" in type(module).__name__} == {
        "InstanceNorm3d"
    }
    assert network.dropout.p == 0.3


def printed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with redirect_stdout(io.StringIO()) as out:
        assert command_line.main(["train", *arguments, "--cfg", "job"]) == 0
    return yaml.safe_load(out.getvalue())


def test_further_arguments_on_the_command_line(monkeypatch):
    further = ["+model.dropout_prob=0.1", "+model.act=[relu,{inplace:false}]", "+model.norm={name:instance}"]
    config = printed(monkeypatch, "model=segresnet", "model.depth=4", *further)
    assert config["plan"]["divisor"] == 16
    assert config["model"]["depth"] == 4
    assert config["model"]["dropout_prob"] == 0.1
    assert config["model"]["act"] == ["relu", {"inplace": False}]
    assert config["model"]["norm"] == {"name": "instance"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.dropout_prob=0.1", ["needs a plus: +model.dropout_prob="]),
        ("model.dept=3", ["Did you mean 'model.depth'?"]),
        ("model.depth=8", ["model.depth=8", "[1, 7]"]),
        ("+model.depth=2", ["is there already"]),
    ],
)
def test_mistakes_on_the_command_line(setting, words, capsys):
    assert command_line.main(["train", "model=segresnet", setting, "--cfg", "job"]) == 1
    error = capsys.readouterr().err
    assert [word for word in words if word not in error] == []


# Refusals


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("vnet", {"in_channels": 3, "input_size": CUBE}, ["model=vnet", "1, 2, 4, 8 or 16", "have 3", "model=unet"]),
        ("vnet", {"input_size": [32, 32, 24]}, ["VNet", "multiples of 16", "32 x 32 x 24", "plan.divisor=16"]),
        ("unetr", {"input_size": [32, 32, 24], "base_channels": 4}, ["UNETR", "multiples of 16", "plan.divisor=16"]),
        ("swin_unetr", {"input_size": CUBE, "base_channels": 16}, ["model.base_channels=16", "multiple of 12"]),
        ("swin_unetr", {"input_size": [48] * 3, "base_channels": 12}, ["SwinUNETR", "multiples of 32"]),
        ("segresnet", {"depth": 6, "input_size": CUBE, "base_channels": 8}, ["SegResNet", "multiples of 64"]),
        ("segresnet", {"depth": 2, "input_size": CUBE, "base_channels": 8, "blocks": [1, 2]}, ["model.blocks", "3"]),
        ("mednext", {"depth": 5, "input_size": [48] * 3, "base_channels": 8}, ["MedNeXt", "multiples of 32"]),
        ("flexible_unet", {"input_size": [48] * 3, "base_channels": 8, "backbone": "resnet10"}, ["FlexibleUNet", "32"]),
        ("flexible_unet", {"input_size": CUBE, "base_channels": 8, "backbone": "resnet11"}, ["resnet11", "resnet18"]),
        ("dynunet", {"depth": 1, "base_channels": 8, "strides": [2], "kernel_sizes": [3, 3]}, ["model.depth=2"]),
        ("basic_unet_plus_plus", {"base_channels": 4, "dropot": 0.1}, ["dropot"]),
        ("unetr", {"input_size": CUBE, "base_channels": 4, "hidden_size": 50}, ["UNETR", "divisible by num_heads"]),
        ("segresnet", {"depth": 2, "input_size": CUBE, "base_channels": 8, "dropout": 0.1}, ["mean 'dropout_prob'?"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(name, arguments, words):
    with pytest.raises(MedsegError) as refused:
        build({"_target_": f"medseg.models.monai.{name}"} | SHARED | arguments, "model", ())
    assert [word for word in words if word not in str(refused.value)] == []
