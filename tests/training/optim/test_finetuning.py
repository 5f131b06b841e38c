"""What learns and how fast: frozen parameters, rates by stage, and decay towards the start."""

import pytest
import torch
from torch import nn

from medseg.config.settings import FinetuneSettings
from medseg.errors import MedsegError
from medseg.models import UNet
from medseg.training.optim.ema import average_into, estimate_statistics, has_batch_statistics
from medseg.training.optim.finetuning import FineTuning, check, from_scratch, rate_as_set

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.1}
SGD = {"_target_": "torch.optim.SGD", "lr": 0.5, "momentum": 0.0, "weight_decay": 0.1}


def unet(norm="instance", seed=0):
    torch.manual_seed(seed)
    return UNet(spatial_dims=2, in_channels=1, out_channels=2, depth=2, base_channels=4, norm=norm)


def steps(network, tuning, optimizer, count=3):
    """Train for a few steps, as the module does."""
    tuning.keep_norms_frozen()
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        optimizer.zero_grad()
        images = torch.randn(2, 1, 16, 16, generator=generator).to(next(network.parameters()))
        network(images)[0].square().mean().backward()
        tuning.pull(optimizer)
        optimizer.step()


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def moved(network, before):
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(
    ("wanted", "frozen"),
    [
        ({"freeze_encoder": True}, ("encoder.",)),
        ({"freeze_levels": 2}, ("encoder.0.", "encoder.1.")),
        ({"freeze_levels": 1, "freeze_norm": True}, ("encoder.0.",)),
    ],
)
def test_what_is_frozen_does_not_change_by_a_bit_and_is_not_in_the_optimizer(norm, wanted, frozen):
    network = unet(norm)
    tuning = FineTuning(network, FinetuneSettings(**wanted))
    optimizer = tuning.make_optimizer(ADAMW, fused=True)
    before = state(network)
    steps(network, tuning, optimizer)
    norms = {name for name, module in network.named_modules() if "Norm" in type(module).__name__}
    expected = {
        name
        for name in before
        if not (name.startswith(frozen) or (wanted.get("freeze_norm") and name.rpartition(".")[0] in norms))
    }
    assert moved(network, before) == expected
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    learning = {id(value) for name, value in network.named_parameters() if name in expected}
    assert held == learning == {id(parameter) for parameter in optimizer.state}


def test_statistics_of_frozen_norms_stay_in_the_average_too():
    network, average = unet("batch"), unet("batch")
    average.requires_grad_(False)
    tuning = FineTuning(network, FinetuneSettings(freeze_encoder=True))
    before = state(average)
    steps(network, tuning, tuning.make_optimizer(ADAMW, fused=False))
    average_into(average, network, 0.3)
    images = [torch.randn(2, 1, 16, 16)]
    estimate_statistics(average, average, images, tuning.frozen_norms)
    after = moved(average, before)
    assert after
    assert not any(name.startswith("encoder.") for name in after)
    assert not has_batch_statistics(average, {name for name, _ in average.named_modules()})


def test_what_was_drawn_at_random_is_not_frozen():
    network = unet()
    whole = [name for name, _ in network.named_parameters() if not name.startswith("encoder.1.")]
    tuning = FineTuning(network, FinetuneSettings(freeze_encoder=True), whole)
    assert {name.split(".")[1] for name in tuning.frozen} == {"0", "2"}
    assert network.encoder[1][1][0].weight.requires_grad
    said = tuning.describe(tuning.make_optimizer(ADAMW, fused=False))
    assert any(line.startswith("not frozen, for they were not taken over: encoder.1.1.0.bias") for line in said)


def test_rates_fall_from_the_head_to_the_first_level():
    tuning = FineTuning(unet(), FinetuneSettings(layer_decay=0.5, head_factor=3.0))
    optimizer = tuning.make_optimizer(ADAMW, fused=False)
    rates = {group["name"]: group["lr"] / ADAMW["lr"] for group in optimizer.param_groups}
    expected = {"encoder.0": 1 / 32, "encoder.1": 1 / 16, "encoder.2": 1 / 8}
    expected |= {"decoder.1": 1 / 4, "decoder.0": 1 / 2, "head": 3.0}
    assert rates == pytest.approx(expected)
    assert list(rates) == list(expected)


def test_the_head_alone_may_have_a_rate_of_its_own():
    optimizer = FineTuning(unet(), FinetuneSettings(head_factor=10.0)).make_optimizer(SGD, fused=False)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"body": 0.5, "head": 5.0}


def test_by_default_the_optimizer_is_the_usual_one():
    network = unet()
    optimizer = FineTuning(network, FinetuneSettings()).make_optimizer(ADAMW, fused=False)
    (group,) = optimizer.param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in network.parameters()]


def test_a_pulled_step_is_that_of_the_formula():
    network = unet()
    whole = [name for name, _ in network.named_parameters() if not name.startswith("heads.")]
    tuning = FineTuning(network, FinetuneSettings(l2_sp=0.2), whole)
    start = {name: value.detach().clone() for name, value in network.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3)
    optimizer = tuning.make_optimizer(SGD, fused=False)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    network(torch.randn(1, 1, 16, 16))[0].square().mean().backward()
    tuning.pull(optimizer)
    optimizer.step()
    for name, value in network.named_parameters():
        gradient = value.grad
        if name in whole:  # w - lr (g + α (w - w0)), g at w
            expected = before[name] - 0.5 * (gradient + 0.2 * (before[name] - start[name]))
        else:  # the usual decay, to zero
            expected = before[name] - 0.5 * (gradient + 0.1 * before[name])
        torch.testing.assert_close(value.detach(), expected)


def test_pulled_to_zero_it_is_adamw():
    ours, reference = unet().double(), unet().double()  # Adam makes much of rounding where gradients vanish
    tuning = FineTuning(ours, FinetuneSettings(l2_sp=0.1))
    tuning.start = {name: torch.zeros_like(value) for name, value in tuning.start.items()}
    steps(ours, tuning, tuning.make_optimizer(ADAMW, fused=False), 5)
    usual = FineTuning(reference, FinetuneSettings())
    steps(reference, usual, usual.make_optimizer(ADAMW, fused=False), 5)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name])


def test_unfreezing_adds_groups_that_learn_and_a_saved_state_goes_on():
    network = unet("batch")
    wanted = {"freeze_levels": 2, "unfreeze_epoch": 2, "layer_decay": 0.5, "l2_sp": 0.1}
    tuning = FineTuning(network, FinetuneSettings(**wanted))
    optimizer = tuning.make_optimizer(ADAMW, fused=False)
    assert (tuning.is_due(1), tuning.is_due(2)) == (False, True)
    rates = tuning.unfreeze(optimizer)
    assert not tuning.is_due(3)
    assert rates == pytest.approx([0.01 / 32, 0.01 / 16])
    before = state(network)
    steps(network, tuning, optimizer)
    assert moved(network, before) == set(before)
    assert not tuning.frozen_norms
    later = FineTuning(unet("batch"), FinetuneSettings(**wanted))
    later.load_state_dict(tuning.state_dict())
    again = later.make_optimizer(ADAMW, fused=False)
    again.load_state_dict(optimizer.state_dict())
    assert [group["name"] for group in again.param_groups] == [group["name"] for group in optimizer.param_groups]
    assert all(torch.equal(later.start[name], value) for name, value in tuning.start.items())


def test_it_says_what_is_frozen_and_how_fast_the_rest_learns():
    network = unet()
    tuning = FineTuning(network, FinetuneSettings(freeze_levels=1, unfreeze_epoch=3, head_factor=2.0, l2_sp=0.5))
    said = "\n".join(tuning.describe(tuning.make_optimizer(ADAMW, fused=False)))
    size = sum(value.numel() for value in network.encoder[0].parameters())
    share = 100 * size / sum(value.numel() for value in network.parameters())
    assert f"frozen: encoder.0 for 3 epochs, {share:.1f} % of the parameters" in said
    assert "head: learning rate 0.02, weight decay 0.5 to the start, 10 parameters" in said


def test_too_many_levels_and_unknown_networks_are_refused():
    with pytest.raises(MedsegError, match=r"freeze_levels=4: the encoder of this network has 3 levels"):
        FineTuning(unet(), FinetuneSettings(freeze_levels=4))
    with pytest.raises(MedsegError, match=r"Conv2d: its levels are not known"):
        FineTuning(nn.Conv2d(1, 1, 1), FinetuneSettings(freeze_encoder=True))
    FineTuning(nn.Conv2d(1, 1, 1), FinetuneSettings(freeze_norm=True, l2_sp=0.1))  # which need no levels


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"freeze_encoder": True}, "Give finetune.checkpoint"),
        ({"layer_decay": 0.9}, "Give finetune.checkpoint"),
        ({"checkpoint": "run", "unfreeze_epoch": 2}, "nothing is frozen"),
        ({"checkpoint": "run", "freeze_levels": 1, "unfreeze_epoch": 2}, "several devices"),
    ],
)
def test_what_has_no_meaning_is_refused(wanted, says):
    with pytest.raises(MedsegError, match=says):
        check(FinetuneSettings(**wanted), {}, devices=2)


def test_pretrained_encoders_can_be_frozen_without_a_checkpoint():
    check(FinetuneSettings(freeze_encoder=True), {"pretrained": "imagenet"}, devices=1)


def test_the_pull_to_the_start_is_for_published_weights_too():
    settings = FinetuneSettings(l2_sp=0.1)
    check(settings, {"pretrained": "imagenet"}, devices=1)
    with pytest.raises(MedsegError, match=r"l2_sp=0\.1 is for .* finetune\.checkpoint, or model\.pretrained"):
        check(settings, {}, devices=1)


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_the_head_of_an_untrained_network_learns_faster(factor):
    network = unet()
    optimizer = from_scratch(network, factor).make_optimizer(ADAMW, fused=False)
    before = state(network)
    steps(network, from_scratch(network, factor), optimizer, count=1)
    # The first step of Adam is the rate, whatever the gradient
    step = {name: (value - before[name]).abs().max().item() for name, value in network.named_parameters()}
    assert step["heads.0.bias"] == pytest.approx(factor * ADAMW["lr"], rel=1e-2)
    assert step["encoder.0.0.1.bias"] == pytest.approx(ADAMW["lr"], rel=1e-2)


def test_a_network_whose_head_is_not_known_learns_alike(caplog):
    caplog.set_level("INFO", "medseg")
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    optimizer = from_scratch(network, 10.0).make_optimizer(ADAMW, fused=False)
    assert [group["lr"] for group in optimizer.param_groups] == [ADAMW["lr"]]
    assert "not the head at 10 times that of the rest: which parameters are the head of Sequential" in caplog.text


def test_a_factor_of_untrained_heads_is_not_for_a_training_that_begins_with_weights():
    for factor in (None, 1.0):
        check(FinetuneSettings(checkpoint="RUN"), {}, devices=1, head_factor=factor)
    with pytest.raises(MedsegError, match=r"trainer\.head_factor=7 is for .* Give finetune\.head_factor"):
        check(FinetuneSettings(checkpoint="RUN"), {}, devices=1, head_factor=7.0)
    check(FinetuneSettings(), {}, devices=1, head_factor=7.0)


@pytest.mark.parametrize("wanted", [{}, {"head_factor": 3.0}, {"layer_decay": 0.5}, {"l2_sp": 0.1}], ids=str)
def test_the_rate_as_it_is_set_is_without_factors(wanted):
    optimizer = FineTuning(unet(), FinetuneSettings(**wanted)).make_optimizer(ADAMW, fused=False)
    assert rate_as_set(optimizer) == pytest.approx(ADAMW["lr"])
