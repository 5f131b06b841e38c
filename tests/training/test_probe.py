"""What a plan costs: bytes as another counter has them on real tensors; steps that are made and timed."""

from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from medseg.cli.sources import Sources, compose
from medseg.config.schema import CONF
from medseg.config.settings import PretrainSettings, TrainSettings
from medseg.io.labels import IGNORE, UNLABELLED, LabelMap
from medseg.training import compiled
from medseg.training.probe import OVERHEAD, LiveBytes, Probe, wait_for

CPU = torch.device("cpu")
compile_network = torch.compile


@pytest.fixture(scope="module")
def probe():
    """Return ``probe(*overrides, classes, command)``: of the phantom's config with these overrides."""

    def make(*overrides, classes=2, command="train"):
        sources = Sources(CONF, command)
        config = compose(sources, sources.loader(), ["dataset=phantom", "run_dir=run", *overrides])
        names = LabelMap({f"class {index}": index for index in range(classes)})
        kind, learned = (TrainSettings, names) if command == "train" else (PretrainSettings, UNLABELLED)
        return Probe(config, CPU, learned, kind)

    return make


def plan(probe, trainer=None, **values):
    """Return a small plan that fits the config of a probe, with other values for the network and the plan."""
    model = {"spatial_dims": 3, "depth": 2, "base_channels": 4}
    layout = {
        "in_channels": 1,
        "out_channels": 2,
        "patch_size": [16, 16, 16],
        "batch_size": 2,
        "strides": [[2, 2, 2]] * 2,
        "kernel_sizes": [[3, 3, 3]] * 3,
        "mirror_axes": [],
        "slice_axis": None,
    }
    return {
        "model": model | {key: value for key, value in values.items() if key in model},
        "preprocessing": probe.config["preprocessing"] | {"normalize": ["zscore"]},
        "pretext": {"block": [4, 4, 4]},
        "plan": layout | {key: value for key, value in values.items() if key in layout},
        "trainer": {"workers": 0, "channels_last": False, "compile": False} | (trainer or {}),
    }


def test_live_bytes_by_hand():
    with FakeTensorMode(), LiveBytes(CPU) as live:
        image = torch.zeros(2, 1, 8, 8, 8)
        convolution = nn.Conv3d(1, 3, 1, bias=False)
        weights, maps = 4 * (3 + 2 * 512), 4 * 2 * 3 * 512
        assert live.live == weights
        features = convolution(image)
        view = features.view(-1)
        assert live.live == weights + maps
        output = features.sigmoid()  # keeps its output; nothing keeps its input
        del features, view
        assert live.live == weights + maps
        loss = output.sum()
        del output
        assert live.live == weights + maps + 4
        loss.backward()
        del loss
    assert live.live == weights + 4 * 3  # the gradient
    assert weights + 2 * maps <= live.peak < weights + 2 * maps + 100  # input and output of the sigmoid


@pytest.mark.parametrize("classes", [3, 25])
def test_memory_is_counted_as_on_real_tensors(probe, classes):
    """Independent: PyTorch's own tracker, on a step with values, some voxels of unknown class."""
    this = probe("trainer.precision=fp32", "trainer.averaging=0.5", classes=classes)
    counted = this.memory(plan(this, out_channels=classes))
    module, seen = this.module(plan(this, out_channels=classes), compiled=False)
    module.augmentations = []
    tracker, optimizer = MemTracker(), module.configure_optimizers()
    this.train_step(module, optimizer, this.batch(seen, 2), 0)  # makes the optimizer's state
    tracker.track_external(module, optimizer)
    with tracker:
        batch = this.batch(seen, 2)
        batch["label"][..., 0] = IGNORE
        this.train_step(module, optimizer, batch, 1)
    peak = tracker.get_tracker_snapshot("peak")[CPU]["Total"]
    assert 0.97 < counted / OVERHEAD / peak < 1.03


def test_more_channels_more_patches_more_classes_and_more_bits_take_more_memory(probe):
    this, half = probe("trainer.precision=fp32"), probe("trainer.precision=bf16")
    base = this.memory(plan(this))
    assert 1.7 * base < this.memory(plan(this, batch_size=4)) < 2.3 * base
    assert 1.6 * base < this.memory(plan(this, base_channels=8)) < 2.5 * base
    assert half.memory(plan(half)) < 0.8 * base
    many = probe("trainer.precision=fp32", classes=25)
    loss = 3 * 25 * 2 * 16**3 * 4  # at least probabilities, their logarithms and a gradient
    assert many.memory(plan(many, out_channels=25)) > loss


def test_memory_of_regions_and_of_a_pretraining_is_counted(probe):
    regions = probe()
    regions.classes = LabelMap({"background": 0, "a": 1, "b": 2}, regions={"both": ("a", "b"), "a": ("a",)})
    assert regions.memory(plan(regions))
    pretraining = probe(command="pretrain")
    assert pretraining.memory(plan(pretraining, out_channels=1))


def test_a_network_that_asks_for_values_cannot_be_counted(probe, monkeypatch):
    from medseg.models import UNet

    monkeypatch.setattr(UNet, "forward", lambda self, x: x[x > 0])
    this = probe()
    assert this.memory(plan(this)) is None


def test_a_step_is_timed_on_patches_of_the_plan(probe):
    this = probe("trainer.averaging=null")
    assert this.seconds(plan(this)) > 0
    assert this.spent > 0
    cost = this.step(plan(this))
    assert 0 < cost.seconds < 60
    assert cost.failure is None
    flat = plan(this, patch_size=[16, 8], slice_axis=1, in_channels=5, strides=[[2, 2]] * 2, kernel_sizes=[[3, 3]] * 3)
    this.config["plan"]["context"] = 2
    _, seen = this.module(flat | {"model": {"spatial_dims": 2, "depth": 2, "base_channels": 4}}, compiled=False)
    assert this.batch(seen, 3)["image"].shape == (3, 1, 16, 5, 8)


def test_a_step_that_memory_does_not_suffice_for_takes_forever(probe, monkeypatch):
    from medseg.models import UNet

    def forward(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(UNet, "forward", forward)
    this = probe()
    assert this.seconds(plan(this)) == float("inf")
    assert this.step(plan(this)).seconds == float("inf")


def no_compiler(graph, examples):
    raise RuntimeError("Failed to find C compiler.")


def fails_backward(graph, examples):
    def run(*inputs):
        outputs = graph.forward(*inputs)
        outputs[0].register_hook(lambda gradient: 1 / 0)
        return outputs

    return run


@pytest.mark.parametrize(
    ("backend", "cause"), [(no_compiler, "Failed to find C compiler."), (fails_backward, "division by zero")]
)
def test_what_cannot_be_compiled_is_told_and_timed_as_it_is(probe, monkeypatch, backend, cause):
    monkeypatch.setattr(compiled.torch, "compile", partial(compile_network, backend=backend))
    this = probe()
    cost = this.step(plan(this, trainer={"compile": True}))
    assert cost.failure == cause
    assert 0 < cost.seconds < 60


def test_devices_of_any_kind_are_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    for name in ("cpu", "cuda:1", "mps", "xpu"):
        wait_for(torch.device(name))
    assert waited == [torch.device(name) for name in ("cuda:1", "mps", "xpu")]
