"""Every network that medseg ships has its parameters on levels, and each level passes in the image's order."""

from functools import partial

import pytest
import torch
from torch import nn

from medseg.errors import MedsegError
from medseg.models import UNet, monai
from medseg.models.layer_levels import LayerRule, stages_of

COMMON = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
CUBE = {"input_size": [64, 32, 32]}
NETWORKS = {
    "unet": lambda: UNet(**COMMON, depth=3, base_channels=4, residual=True, deep_supervision=True),
    "dynunet": lambda: monai.dynunet(
        **COMMON, depth=3, base_channels=4, strides=[2] * 3, kernel_sizes=[3] * 4, deep_supervision=True
    ),
    "segresnet": lambda: monai.segresnet(**COMMON, depth=3, base_channels=8, **CUBE),
    "attention_unet": lambda: monai.attention_unet(**COMMON, depth=3, base_channels=4, strides=[2] * 3),
    "basic_unet_plus_plus": lambda: monai.basic_unet_plus_plus(**COMMON, base_channels=4, deep_supervision=True),
    "unetr": lambda: monai.unetr(**COMMON, base_channels=4, **CUBE, hidden_size=48, mlp_dim=48, num_heads=4),
    "swin_unetr": lambda: monai.swin_unetr(**COMMON, base_channels=12, **CUBE),
    "mednext": lambda: monai.mednext(**COMMON, depth=3, base_channels=4, **CUBE, deep_supervision=True),
    "resnet": lambda: monai.flexible_unet(
        **COMMON | {"spatial_dims": 2}, base_channels=4, input_size=[32] * 2, backbone="resnet10"
    ),
    "efficientnet": lambda: monai.flexible_unet(
        **COMMON | {"spatial_dims": 2}, base_channels=4, input_size=[32] * 2, backbone="efficientnet-b0"
    ),
    "vnet": lambda: monai.vnet(**COMMON, **CUBE),
}
LEVELS = {"unetr": 12, "efficientnet": 8, "basic_unet_plus_plus": 5, "swin_unetr": 5, "resnet": 5, "vnet": 5}
"""Levels of the encoders; of all others depth + 1."""


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_are_passed_in_their_order(name):
    """The last module of a stage to be run is run after that of the stage before."""
    network = NETWORKS[name]().eval()
    stages = stages_of(network)
    assert stages.keys() == dict(network.named_parameters()).keys()
    order = list(dict.fromkeys(stages.values()))
    levels = [stage for stage in order if stage.startswith("encoder.")]
    assert levels == [f"encoder.{level}" for level in range(LEVELS.get(name, 4))]
    assert order[-1] == "head"
    decoder = [stage for stage in order if stage.startswith("decoder.")]
    assert decoder == [f"decoder.{level}" for level in reversed(range(len(decoder)))]
    ended: dict[str, int] = {}
    for place, module in enumerate(ran(network)):
        ended[stages[module]] = place
    assert [stage for stage in order if stage in ended] == sorted(ended, key=ended.get)


def ran(network: nn.Module) -> list[str]:
    """Return a parameter of each module that has some, in the order in which the modules are run."""
    calls: list[str] = []
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for module in network.modules():
        for parameter in list(module.parameters(recurse=False))[:1]:
            module.register_forward_hook(partial(lambda key, *_: calls.append(key), names[id(parameter)]))
    dims = 2 if any(isinstance(module, nn.Conv2d) for module in network.modules()) else 3
    with torch.no_grad():
        network(torch.rand(1, 1, *[64, 32, 32][-dims:]))
    return calls


def test_networks_of_ones_own_have_no_known_levels():
    with pytest.raises(MedsegError, match=r"Sequential: its levels are not known"):
        stages_of(nn.Sequential(nn.Conv2d(1, 2, 3)))


def test_a_network_of_ones_own_tells_its_levels():
    network = nn.ModuleDict({name: nn.Conv2d(1, 1, 1, bias=False) for name in ("out", "down0", "down1", "up0")})
    network.layer_rules = [
        LayerRule(r"down(\d)", "encoder"),
        LayerRule(r"up(\d)", "decoder"),
        LayerRule("out", "head"),
    ]
    assert [stage for _, stage in sorted(stages_of(network).items())] == ["encoder.0", "encoder.1", "head", "decoder.0"]
