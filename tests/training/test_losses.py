"""Losses against values computed by hand, and against MONAI and PyTorch."""

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from medseg.errors import MedsegError
from medseg.training import losses
from medseg.training.losses import CrossEntropyLoss, DiceCELoss, DiceLoss

Loss = Callable[[Tensor, Tensor], Tensor]


def logits_of(*foreground: list[float]) -> Tensor:
    """Logits (B, 2, 1, width) whose softmax gives class 1 these probabilities, a list a sample."""
    p = torch.tensor(foreground)[:, None, None]
    return torch.cat([1 - p, p], dim=1).log()


def truth(*samples: list[int]) -> Tensor:
    return torch.tensor(samples)[:, None, None]  # (B, 1, 1, width)


def random_case(*spatial: int, classes: int = 4, batch: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch, classes, *spatial, generator=generator)
    return logits, torch.randint(classes, (batch, 1, *spatial), generator=generator)


# By hand. p = .9 .2 .6 .1, g = 1 0 1 0: sum(p g) = 1.5, sum(p) = 1.8, sum(p^2) = 1.22, sum(g) = sum(g^2) = 2.


def test_dice_by_the_formula_of_the_source_document() -> None:
    value = DiceLoss()(logits_of([0.9, 0.2, 0.6, 0.1]), truth([1, 0, 1, 0]))
    assert value.item() == pytest.approx(-2 * 1.5 / (1.22 + 2), abs=1e-5)


def test_dice_without_squares() -> None:
    value = DiceLoss(squared=False)(logits_of([0.9, 0.2, 0.6, 0.1]), truth([1, 0, 1, 0]))
    assert value.item() == pytest.approx(-2 * 1.5 / (1.8 + 2), abs=1e-5)


def test_dice_with_the_background() -> None:
    # Class 0: p = .1 .8 .4 .9, g = 0 1 0 1: sum(p g) = 1.7, sum(p^2) = 1.62.
    value = DiceLoss(include_background=True)(logits_of([0.9, 0.2, 0.6, 0.1]), truth([1, 0, 1, 0]))
    assert value.item() == pytest.approx(-(2 * 1.5 / 3.22 + 2 * 1.7 / 3.62) / 2, abs=1e-5)


def test_dice_of_a_batch_is_not_the_mean_of_its_samples() -> None:
    logits, target = logits_of([0.9, 0.2], [0.6, 0.1]), truth([1, 0], [1, 1])
    by_sample, together = DiceLoss(squared=False, batch=False), DiceLoss(squared=False, batch=True)
    assert by_sample(logits, target).item() == pytest.approx(-(1.8 / 2.1 + 1.4 / 2.7) / 2, abs=1e-5)
    assert together(logits, target).item() == pytest.approx(-3.2 / 4.8, abs=1e-5)


def test_dice_ranges_from_minus_one_to_zero() -> None:
    sure = torch.tensor([[[[40.0, -40.0]], [[-40.0, 40.0]]]])
    assert DiceLoss()(sure, truth([0, 1])).item() == pytest.approx(-1, abs=1e-5)
    assert DiceLoss()(sure, truth([1, 0])).item() == pytest.approx(0, abs=1e-5)


def test_a_class_that_is_absent_costs_nothing_unless_predicted() -> None:
    absent = truth([0, 0, 0, 0])
    assert DiceLoss()(logits_of([1e-9] * 4), absent).item() == pytest.approx(-1, abs=1e-4)
    logits = logits_of([0.5] * 4).requires_grad_()
    loss = DiceLoss()(logits, absent)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=2e-5)
    assert logits.grad.abs().max() < 1e-4


def test_cross_entropy_by_hand() -> None:
    value = CrossEntropyLoss()(logits_of([0.9, 0.2, 0.6, 0.1]), truth([1, 0, 1, 0]))
    expected = -torch.tensor([0.9, 0.8, 0.6, 0.9]).log().mean()
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)


def test_dice_ce_weighs_its_parts() -> None:
    logits, target = random_case(6, 5)
    parts = DiceLoss(squared=False)(logits, target), CrossEntropyLoss()(logits, target)
    value = DiceCELoss(dice_weight=0.5, ce_weight=2.0)(logits, target)
    torch.testing.assert_close(value, 0.5 * parts[0] + 2 * parts[1])


# Against others


@pytest.mark.parametrize("spatial", [(6, 5), (4, 5, 3)], ids=["2D", "3D"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_cross_entropy_is_that_of_pytorch(spatial: tuple[int, ...], label_smoothing: float) -> None:
    logits, target = random_case(*spatial)
    expected = F.cross_entropy(logits, target[:, 0], label_smoothing=label_smoothing)
    torch.testing.assert_close(CrossEntropyLoss(label_smoothing=label_smoothing)(logits, target), expected)


@pytest.fixture(scope="module")
def monai_losses() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own imports are not under test
        import monai.losses
    return monai.losses


@pytest.mark.parametrize("spatial", [(6, 5), (4, 5, 3)], ids=["2D", "3D"])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
def test_dice_is_that_of_monai_less_one(
    monai_losses: Any, spatial: tuple[int, ...], squared: bool, batch: bool, include_background: bool
) -> None:
    logits, target = random_case(*spatial)
    options = {"batch": batch, "include_background": include_background}
    reference = monai_losses.DiceLoss(
        to_onehot_y=True, softmax=True, squared_pred=squared, smooth_nr=1e-5, smooth_dr=1e-5, **options
    )
    torch.testing.assert_close(DiceLoss(squared=squared, **options)(logits, target), reference(logits, target) - 1)


def test_losses_of_monai_are_called_alike(monai_losses: Any) -> None:
    logits, target = random_case(6, 5)
    focal = monai_losses.DiceFocalLoss(to_onehot_y=True, softmax=True)
    for loss in (DiceLoss(), CrossEntropyLoss(), DiceCELoss(), focal):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, target)
        value.backward()
        assert value.shape == ()
        assert leaf.grad.abs().max() > 0


# Precision and gradients

ALL: list[Loss] = [
    DiceLoss(),
    DiceLoss(squared=False, batch=False),
    CrossEntropyLoss(label_smoothing=0.1),
    DiceCELoss(),
]


@pytest.mark.parametrize("loss", ALL)
def test_gradients_are_right(loss: Loss) -> None:
    logits, target = random_case(2, 3, classes=3, batch=2)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.double().requires_grad_())


@pytest.mark.parametrize("loss", ALL)
def test_half_precision_is_summed_in_full(loss: Loss) -> None:
    logits, target = random_case(64, 64)
    rough = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(rough, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(rough.float(), target))
    assert loss(logits.double(), target).dtype == torch.float64


# Config and refusals


@pytest.mark.parametrize("name", ["dice", "ce", "dice_ce"])
def test_the_config_builds(name: str) -> None:
    config = OmegaConf.load(Path(__file__).parents[2] / f"conf/loss/{name}.yaml")
    module, _, kind = config.pop("_target_").rpartition(".")
    assert module == losses.__name__
    assert set(config) <= set(inspect.signature(getattr(losses, kind)).parameters)
    assert getattr(losses, kind)(**config)(*random_case(4, 4)).isfinite()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DiceLoss(smooth=0), "smooth is 0; allowed: above 0"),
        (lambda: CrossEntropyLoss(label_smoothing=1), "label_smoothing is 1"),
        (lambda: DiceCELoss(dice_weight=-1), "dice_weight is -1"),
        (lambda: DiceCELoss(ce_weight=-1), "ce_weight is -1"),
        (lambda: DiceLoss()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.int64)), "no other class"),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], Any], words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        build()
