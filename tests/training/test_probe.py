"""What a plan costs: bytes counted by hand, and by PyTorch on real tensors; seconds that grow with the work."""

import torch
import yaml
from torch import nn

from medseg.config.schema import CONF, typed
from medseg.config.settings import NetworkPlan, TrainingPlan
from medseg.training.probe import HALF, OVERHEAD, PER_PARAMETER, Probe, patches, saved_bytes, wait_for

PLAN = {
    "model": {"spatial_dims": 3, "depth": 2, "base_channels": 4},
    "preprocessing": {"spacing": None},
    "plan": {
        "in_channels": 1,
        "out_channels": 2,
        "patch_size": [16, 16, 16],
        "batch_size": 2,
        "strides": [[2, 2, 2]] * 2,
        "kernel_sizes": [[3, 3, 3]] * 3,
        "mirror_axes": [],
        "slice_axis": None,
    },
    "trainer": {"channels_last": False, "compile": False},
}
CONFIG = {
    "model": {
        "_target_": "medseg.models.UNet",
        "spatial_dims": None,
        "depth": None,
        "base_channels": None,
        "in_channels": "${plan.in_channels}",
        "out_channels": "${plan.out_channels}",
        "strides": "${plan.strides}",
    },
    "plan": {"in_channels": None, "out_channels": None, "strides": None, "context": 0},
    "trainer": yaml.safe_load((CONF / "trainer" / "default.yaml").read_text()) | {"precision": "fp32"},
    "trust": [],
}


def probe(precision="fp32"):
    return Probe(CONFIG | {"trainer": CONFIG["trainer"] | {"precision": precision}}, torch.device("cpu"))


def plan_with(**values):
    model = {key: value for key, value in values.items() if key in PLAN["model"]}
    plan = {key: value for key, value in values.items() if key in PLAN["plan"]}
    return PLAN | {"model": PLAN["model"] | model, "plan": PLAN["plan"] | plan}


def test_saved_bytes_by_hand():
    network = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1, bias=False), nn.Sigmoid(), nn.Conv3d(3, 2, 1, bias=False))
    image = torch.empty(2, 1, 8, 8, 8, device="meta")
    plan = NetworkPlan(patch_size=[8, 8, 8], mirror_axes=[], slice_axis=None, context=0)
    inputs, maps, weights = 2 * 512, 2 * 3 * 512, 27 * 3 + 3 * 2  # the sigmoid keeps its output, the next one's input
    assert saved_bytes(network.to("meta"), plan, image) == 4 * (inputs + maps + weights)


def test_memory_is_counted_as_real_tensors_are():
    """Independent of the meta device: autograd's own record of a pass over real tensors."""
    from medseg.models import UNet

    kept = {}
    network = UNet(spatial_dims=3, in_channels=1, out_channels=2, depth=2, base_channels=4).train()

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.zeros(2, 1, 16, 16, 16))
    saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert probe().memory(PLAN) == int(OVERHEAD * saved + PER_PARAMETER * parameters)
    assert probe("bf16").memory(PLAN) == int(OVERHEAD * HALF * saved + PER_PARAMETER * parameters)


def test_more_channels_and_more_patches_take_more_memory():
    base = probe().memory(PLAN)
    assert 1.8 * base < probe().memory(plan_with(batch_size=4)) < 2.2 * base
    assert 1.8 * base < probe().memory(plan_with(base_channels=8)) < 2.5 * base


def test_a_step_is_timed_on_patches_of_the_plan():
    assert probe().seconds(PLAN) > 0
    volume = typed(TrainingPlan, PLAN["plan"] | {"context": 0})
    assert patches(volume, torch.device("cpu"), most=1).shape == (1, 1, 16, 16, 16)
    flat = PLAN["plan"] | {"patch_size": [16, 8], "slice_axis": 1, "context": 2, "in_channels": 5}
    assert patches(typed(TrainingPlan, flat), torch.device("cpu")).shape == (2, 1, 16, 5, 8)


def test_devices_of_any_kind_are_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    for name in ("cpu", "cuda:1", "mps", "xpu"):
        wait_for(torch.device(name))
    assert waited == [torch.device(name) for name in ("cuda:1", "mps", "xpu")]
