"""Every option in ``conf/loss``: its minimum, its gradient, unknown voxels, classes and regions, 2D and 3D."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from medseg.config.instantiate import build
from medseg.io.labels import IGNORE

FILES = sorted((Path(__file__).parents[2] / "conf/loss").glob("*.yaml"))
OPTIONS = [file.stem for file in FILES]

# At the perfect prediction: -1 for every ratio of overlap, 0 for what sums errors up, times the weights.
MINIMUM = {
    "boundary": -1,
    "ce": 0,
    "cldice": -1,
    "dice": -1,
    "dice_ce": -1,
    "dice_focal": -1,
    "dice_topk": -1,
    "focal": 0,
    "generalized_dice": -1,
    "topk": 0,
    "tversky": -1,
}

every_option = pytest.mark.parametrize("option", OPTIONS)
both_forms = pytest.mark.parametrize("form", ["classes", "regions"])
both_dimensions = pytest.mark.parametrize("spatial", [(9, 8), (6, 7, 5)], ids=["2D", "3D"])


@cache
def loss_of(option: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own imports are not under test
        return build(yaml.safe_load(Path(FILES[0].parent, f"{option}.yaml").read_text("utf-8")), "loss", ())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def truth(form: str, *spatial: int) -> Tensor:
    """Two samples of a background and two nested boxes: classes (2, 1, *), or regions (2, 2, *)."""
    boxes = torch.zeros(2, 2, *spatial, dtype=torch.int64)
    boxes[(slice(None), 0, *(slice(1, -1) for _ in spatial))] = 1
    boxes[(slice(None), 1, *(slice(2, -2) for _ in spatial))] = 1
    boxes[1] = boxes[1].roll(1, dims=1)
    return boxes if form == "regions" else boxes.sum(1, keepdim=True)


def perfect(target: Tensor, form: str, size: float = 40.0) -> Tensor:
    """Logits that are sure of the truth."""
    if form == "regions":
        return size * (2.0 * target - 1).double()
    return size * torch.cat([target == k for k in range(3)], dim=1).double()


def rough(target: Tensor, form: str) -> Tensor:
    """Logits somewhat on the side of the truth, float64."""
    logits = perfect(target, form, 1.0)
    return logits + torch.randn(logits.shape, generator=generator(), dtype=torch.float64)


def unknown(target: Tensor, share: float = 0.3) -> Tensor:
    """The truth with voxels that are unknown, in regions others in each channel."""
    return target.masked_fill(torch.rand(target.shape, generator=generator(1)) < share, IGNORE)


def value_and_gradient(option: str, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss_of(option)(leaf, target)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def test_every_option_has_its_minimum_here() -> None:
    assert sorted(MINIMUM) == OPTIONS


@every_option
@both_forms
@both_dimensions
def test_nothing_is_lower_than_the_perfect_prediction(option: str, form: str, spatial: tuple[int, ...]) -> None:
    target = truth(form, *spatial)
    best = perfect(target, form)
    lowest = loss_of(option)(best, target)
    assert lowest.item() == pytest.approx(MINIMUM[option], abs=1e-6)
    others = [
        torch.zeros_like(best),
        -best,
        best.roll(1, dims=2),
        best.flip(1),
        torch.full_like(best, -40.0),
        best * torch.rand(best.shape, generator=generator(2)).round(),
        *(best + 40 * torch.randn(best.shape, generator=generator(seed)) for seed in range(3, 8)),
    ]
    for other in others:
        assert loss_of(option)(other, target) > lowest + 1e-3


@every_option
@both_forms
@pytest.mark.parametrize("spatial", [(3, 3), (3, 2, 2)], ids=["2D", "3D"])
def test_gradients_are_right(option: str, form: str, spatial: tuple[int, ...]) -> None:
    channels, classes = (2, 2) if form == "regions" else (1, 3)
    target = unknown(torch.randint(classes, (2, channels, *spatial), generator=generator()), 0.2)
    logits = torch.randn(2, max(channels, classes), *spatial, generator=generator(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss_of(option)(x, target), logits.requires_grad_())


@every_option
@both_forms
@both_dimensions
def test_gradients_lead_to_the_truth(option: str, form: str, spatial: tuple[int, ...]) -> None:
    target = truth(form, *spatial)
    logits = rough(target, form)
    value, gradient = value_and_gradient(option, logits, target)
    assert loss_of(option)(logits - 0.01 * gradient / gradient.abs().max(), target) < value
    leaf = logits.requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.6)
    for _ in range(30):
        optimizer.zero_grad()
        loss_of(option)(leaf, target).backward()
        optimizer.step()
    found = (leaf > 0).long() if form == "regions" else leaf.argmax(1, keepdim=True)
    assert (found != target).double().mean() < 0.01


@every_option
@both_forms
@both_dimensions
def test_what_stands_in_unknown_voxels_does_not_matter(option: str, form: str, spatial: tuple[int, ...]) -> None:
    target = unknown(truth(form, *spatial))
    hidden = (target == IGNORE).expand_as(perfect(target, form))
    logits = rough(truth(form, *spatial), form)
    value, gradient = value_and_gradient(option, logits, target)
    others = logits.where(~hidden, 30 * torch.randn(logits.shape, generator=generator(9), dtype=torch.float64))
    other_value, other_gradient = value_and_gradient(option, others, target)
    assert (gradient[hidden] == 0).all()
    assert (gradient[~hidden] != 0).any()
    torch.testing.assert_close(value, other_value)
    torch.testing.assert_close(gradient, other_gradient)


@every_option
@both_forms
def test_unknown_voxels_change_the_loss_as_if_they_were_cut_off(option: str, form: str) -> None:
    if option == "boundary":
        pytest.skip("distances end at what is cut off, and its mean counts all voxels")
    target = truth(form, 9, 8)
    logits = rough(target, form)
    whole = loss_of(option)(torch.cat([logits, -logits], dim=2), torch.cat([target, target * 0 + IGNORE], dim=2))
    if option == "cldice":  # a line erodes at what is unknown, not at the image's border
        padded = torch.cat([logits, torch.full_like(logits, -1e3)], dim=2)
        padded[:, 0, 9:] += 2e3 if form == "classes" else 0
        cut = loss_of(option)(padded, torch.cat([target, target * 0], dim=2))
    else:
        cut = loss_of(option)(logits, target)
    torch.testing.assert_close(whole, cut, rtol=1e-6, atol=1e-6)


@every_option
@both_forms
@both_dimensions
def test_nothing_known_is_no_loss(option: str, form: str, spatial: tuple[int, ...]) -> None:
    target = torch.full_like(truth(form, *spatial), IGNORE)
    value, gradient = value_and_gradient(option, rough(truth(form, *spatial), form), target)
    assert value == 0
    assert (gradient == 0).all()


@every_option
def test_a_region_that_is_unknown_gives_nothing(option: str) -> None:
    target = truth("regions", 9, 8)
    logits = rough(target, "regions")
    target[:, 1] = IGNORE
    value, gradient = value_and_gradient(option, logits, target)
    assert (gradient[:, 1] == 0).all()
    assert (gradient[:, 0] != 0).any()
    if option != "boundary":  # MONAI's mean over channels counts this one as right
        torch.testing.assert_close(value, loss_of(option)(logits[:, :1], target[:, :1]))


@every_option
def test_a_region_may_be_unknown_in_one_sample_alone(option: str) -> None:
    target = truth("regions", 9, 8)
    logits = rough(target, "regions")
    target[0, 1] = IGNORE
    _, gradient = value_and_gradient(option, logits, target)
    assert (gradient[0, 1] == 0).all()
    for sample, region in [(0, 0), (1, 0), (1, 1)]:
        assert (gradient[sample, region] != 0).any()


@every_option
def test_one_region_alone(option: str) -> None:
    target = truth("regions", 9, 8)[:, :1]
    _, gradient = value_and_gradient(option, rough(target, "regions"), target)
    assert ((gradient * (2 * target - 1)).sum((1, 2, 3)) < 0).all()  # on the whole downhill is towards the truth


@every_option
@both_forms
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_full(option: str, form: str, precision: torch.dtype) -> None:
    target = unknown(truth(form, 40, 40), 0.1)
    logits = rough(truth(form, 40, 40), form).to(precision)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(option, logits, target)
    assert value.dtype == torch.float32
    assert gradient.isfinite().all()
    torch.testing.assert_close(value, loss_of(option)(logits.float(), target))
    assert loss_of(option)(logits.double(), target).dtype == torch.float64


@every_option
@both_forms
def test_sure_and_wrong_logits_of_half_precision_stay_finite(option: str, form: str) -> None:
    target = truth(form, 9, 8)
    logits: Any = perfect(target, form, -3e4).half()
    value, gradient = value_and_gradient(option, logits, target)
    assert value.isfinite()
    assert gradient.isfinite().all()
