"""Losses against values computed by hand, and against MONAI and PyTorch."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.errors import MedsegError
from medseg.io.labels import IGNORE
from medseg.training.losses import (
    CenterlineDiceLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    OnProbabilities,
    TopKLoss,
    TverskyLoss,
    WeightedSum,
)
from medseg.training.losses.centerline import soft_skeleton

BOTH = pytest.mark.parametrize("spatial", [(6, 5), (4, 5, 3)], ids=["2D", "3D"])


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


def test_a_sum_weighs_its_parts() -> None:
    logits, target = random_case(6, 5)
    parts = {"dice": DiceLoss(squared=False), "ce": CrossEntropyLoss(), "focal": FocalLoss()}
    value = WeightedSum(weights={"dice": 0.5, "ce": 2, "focal": 0}, **parts)(logits, target)
    torch.testing.assert_close(value, 0.5 * parts["dice"](logits, target) + 2 * parts["ce"](logits, target))


def test_a_part_of_weight_zero_is_not_computed() -> None:
    loss = WeightedSum(weights={"dice": 1, "nothing": 0}, dice=DiceLoss(), nothing=nn.Identity())
    assert loss(*random_case(6, 5)).isfinite()  # Identity takes one argument only


def test_tversky_by_hand() -> None:
    # TP = 1.5, FP = .2 + .1 = .3, FN = .1 + .4 = .5
    value = TverskyLoss(alpha=0.2, beta=0.6)(logits_of([0.9, 0.2, 0.6, 0.1]), truth([1, 0, 1, 0]))
    assert value.item() == pytest.approx(-1.5 / (1.5 + 0.2 * 0.3 + 0.6 * 0.5), abs=1e-5)


def test_generalized_dice_by_hand() -> None:
    # p = .9 .2 .6 .1, g = 1 0 0 0: class 1 has 1 voxel, weight 1; the background 3, weight 1/9.
    value = GeneralizedDiceLoss()(logits_of([0.9, 0.2, 0.6, 0.1]), truth([1, 0, 0, 0]))
    both, size = 0.9 + (0.8 + 0.4 + 0.9) / 9, (1.8 + 1) + (2.2 + 3) / 9
    assert value.item() == pytest.approx(-2 * both / size, abs=1e-5)


def test_generalized_dice_weighs_an_absent_class_as_the_smallest() -> None:
    # Classes of 2, 1 and 0 voxels weigh 1/4, 1 and 1; every probability is 1/3.
    value = GeneralizedDiceLoss()(torch.zeros(1, 3, 1, 3), truth([0, 0, 1]))
    both, size = (2 / 4 + 1) / 3, (1 + 2) / 4 + (1 + 1) + (1 + 0)
    assert value.item() == pytest.approx(-2 * both / size, abs=1e-5)


def test_generalized_dice_of_a_large_volume_is_not_smoothed_away() -> None:
    target = torch.zeros(1, 1, 100, 10000, dtype=torch.int64)
    target[..., :5000] = 1
    value = GeneralizedDiceLoss()(torch.zeros(1, 2, 100, 10000), target)
    assert value.item() == pytest.approx(-0.5, abs=1e-4)


def test_focal_by_hand() -> None:
    value = FocalLoss(gamma=2)(logits_of([0.9, 0.2]), truth([1, 1]))
    expected = -(0.1**2 * math.log(0.9) + 0.8**2 * math.log(0.2)) / 2
    assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_focal_has_a_gradient_where_the_network_is_sure(gamma: float) -> None:
    logits = torch.tensor([[[[100.0, 1.0]], [[-100.0, 0.0]]]], requires_grad=True)
    FocalLoss(gamma=gamma)(logits, truth([0, 0])).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0, 0, 1] < 0


@pytest.mark.parametrize(("k", "hardest"), [(50, [0.2, 0.6]), (25, [0.2]), (1, [0.2]), (100, [0.9, 0.2, 0.6, 0.7])])
def test_topk_is_the_mean_over_the_hardest(k: float, hardest: list[float]) -> None:
    value = TopKLoss(k=k)(logits_of([0.9, 0.2, 0.6, 0.7]), truth([1, 1, 1, 1]))
    assert value.item() == pytest.approx(-torch.tensor(hardest).log().mean().item(), abs=1e-6)


def test_topk_is_a_share_of_what_is_known() -> None:
    value = TopKLoss(k=50)(logits_of([0.9, 0.2, 0.6, 0.7]), truth([1, IGNORE, 1, IGNORE]))
    assert value.item() == pytest.approx(-math.log(0.6), abs=1e-6)


def test_topk_ranks_with_the_weights() -> None:
    # -w log p: class 1 .9 and .5, class 0 .8: weighted by 1 and 10 the last is the largest.
    value = TopKLoss(k=34, class_weights=[10, 1])(logits_of([0.9, 0.5, 0.2]), truth([1, 1, 0]))
    assert value.item() == pytest.approx(-10 * math.log(0.8), abs=1e-5)


# Class weights, by hand


def test_class_weights_of_dice_are_of_the_mean_over_classes() -> None:
    logits, target = random_case(6, 5, classes=3)
    _, one, two = (DiceLoss(class_weights=row)(logits, target) for row in torch.eye(3).tolist())
    value = DiceLoss(class_weights=[5, 1, 3])(logits, target)  # the background's does not count
    torch.testing.assert_close(value, (one + 3 * two) / 4)
    assert not torch.isclose(one, two)


def test_class_weights_of_generalized_dice_multiply_its_own() -> None:
    value = GeneralizedDiceLoss(class_weights=[2, 1])(logits_of([0.9, 0.2, 0.6, 0.1]), truth([1, 0, 0, 0]))
    both, size = 0.9 + 2 * (0.8 + 0.4 + 0.9) / 9, (1.8 + 1) + 2 * (2.2 + 3) / 9
    assert value.item() == pytest.approx(-2 * both / size, abs=1e-5)


def test_class_weights_of_regions() -> None:
    p, target = torch.tensor([0.9, 0.2]), torch.tensor([1, 1])
    logits = torch.logit(p).view(1, 2, 1, 1)
    value = CrossEntropyLoss(class_weights=[1, 3])(logits, target.view(1, 2, 1, 1))
    assert value.item() == pytest.approx(-(math.log(0.9) + 3 * math.log(0.2)) / 4, abs=1e-6)
    focal = FocalLoss(class_weights=[1, 3])(logits, target.view(1, 2, 1, 1))
    assert focal.item() == pytest.approx(-(0.01 * math.log(0.9) + 3 * 0.64 * math.log(0.2)) / 4, abs=1e-6)


def test_weights_of_classes_that_do_not_occur_give_no_loss() -> None:
    assert CrossEntropyLoss(class_weights=[1, 0])(logits_of([0.9, 0.2]), truth([1, 1])) == 0


@pytest.mark.parametrize(
    "kind", [CenterlineDiceLoss, CrossEntropyLoss, DiceLoss, FocalLoss, GeneralizedDiceLoss, TopKLoss, TverskyLoss]
)
def test_class_weights_are_one_a_channel(kind: type[nn.Module]) -> None:
    logits, target = random_case(6, 5)
    equal = kind(class_weights=[1, 1, 1, 1])
    torch.testing.assert_close(equal(logits, target), kind()(logits, target))
    assert equal.state_dict() == {}  # the weights are no part of a checkpoint
    with pytest.raises(MedsegError, match="class_weights has 3 numbers, but the network has 4 output channels"):
        kind(class_weights=[1, 1, 1])(logits, target)


# Regions


def test_dice_of_regions_by_hand() -> None:
    p = torch.tensor([[0.9, 0.2, 0.6, 0.1], [0.5, 0.5, 0.5, 0.5]])
    target = torch.tensor([[1, 0, 1, IGNORE], [0, 0, IGNORE, 1]])
    value = DiceLoss(squared=False)(torch.logit(p).view(1, 2, 1, 4), target.view(1, 2, 1, 4))
    assert value.item() == pytest.approx(-(2 * 1.5 / (1.7 + 2) + 2 * 0.5 / (1.5 + 1)) / 2, abs=1e-5)


def test_cross_entropy_of_regions_is_binary() -> None:
    logits, _ = random_case(6, 5)
    target = torch.randint(2, logits.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        CrossEntropyLoss()(logits, target), F.binary_cross_entropy_with_logits(logits, target.float())
    )
    torch.testing.assert_close(
        CrossEntropyLoss(label_smoothing=0.2)(logits, target),
        F.binary_cross_entropy_with_logits(logits, 0.8 * target + 0.1),
    )


def test_another_number_of_outputs_than_regions_is_explained() -> None:
    with pytest.raises(MedsegError, match="the network has 4 outputs, but the reference 2 regions"):
        DiceLoss()(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.int64))


# Centrelines


def bar() -> Tensor:
    image = torch.zeros(1, 9, 9)
    image[:, 3:6, 1:8] = 1
    return image


def test_the_skeleton_of_a_bar_is_its_middle_line() -> None:
    # A bar of 3 x 7: its one erosion that leaves anything is the line of 5 in the middle.
    expected = torch.zeros(1, 9, 9)
    expected[:, 4, 2:7] = 1
    skeleton = soft_skeleton(bar(), iterations=3)
    assert (skeleton[expected == 1] == 1).all()
    assert (skeleton[:, [3, 5], 3:6] == 0).all()


def test_cldice_by_hand() -> None:
    # The prediction finds the bar's left part alone: its line lies in the bar, of whose line it holds a part.
    target = bar().long()[:, None]
    found = target.clone()
    found[..., 5:] = 0
    line = soft_skeleton(bar(), 5)
    sensitivity = (line * found[:, 0]).sum() / line.sum()
    assert 0.3 < sensitivity < 0.8
    logits = 60 * torch.cat([1 - found, found], dim=1).float()
    value = CenterlineDiceLoss(smooth=1e-6)(logits, target)
    torch.testing.assert_close(value, -2 * sensitivity / (1 + sensitivity))


def test_a_gap_costs_centerline_dice_more_than_a_thin_tube() -> None:
    def cost(found: Tensor) -> Tensor:
        return CenterlineDiceLoss()(60 * torch.cat([1 - found, found], dim=1).float(), bar().long()[:, None])

    gap, thin = bar()[:, None], bar()[:, None]
    gap[..., 4] = 0  # 3 voxels gone
    thin[..., [3, 5], :] = 0  # 14 voxels gone
    assert cost(thin) < cost(gap)


# Against others


@BOTH
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


@BOTH
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


def one_hot(target: Tensor, classes: int = 4) -> Tensor:
    return F.one_hot(target[:, 0], classes).movedim(-1, 1)


@BOTH
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
def test_tversky_is_that_of_monai_less_one(
    monai_losses: Any, spatial: tuple[int, ...], batch: bool, include_background: bool
) -> None:
    logits, target = random_case(*spatial)
    options = {"batch": batch, "include_background": include_background, "alpha": 0.3, "beta": 0.7}
    reference = monai_losses.TverskyLoss(to_onehot_y=True, softmax=True, **options)
    torch.testing.assert_close(TverskyLoss(**options)(logits, target), reference(logits, target) - 1)


@BOTH
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("absent", [False, True])
def test_generalized_dice_is_that_of_monai_less_one(
    monai_losses: Any, spatial: tuple[int, ...], batch: bool, include_background: bool, absent: bool
) -> None:
    logits, target = random_case(*spatial)
    target = target.where(target != 2, 3) if absent else target
    options = {"batch": batch, "include_background": include_background}
    # Each is smoothed in its own scale, so neither is.
    reference = monai_losses.GeneralizedDiceLoss(to_onehot_y=True, softmax=True, smooth_nr=0, smooth_dr=0, **options)
    value = GeneralizedDiceLoss(smooth=1e-12, **options)(logits.double(), target)
    torch.testing.assert_close(value, reference(logits.double(), target) - 1)


@BOTH
def test_focal_is_that_of_monai(monai_losses: Any, spatial: tuple[int, ...]) -> None:
    logits, target = random_case(*spatial)
    exclusive = monai_losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=1.5)
    # MONAI's mean counts the zeros of the three other classes.
    torch.testing.assert_close(FocalLoss(gamma=1.5)(logits, target), 4 * exclusive(logits, target))
    regions = monai_losses.FocalLoss(gamma=1.5)(logits, one_hot(target))
    torch.testing.assert_close(FocalLoss(gamma=1.5)(logits, one_hot(target)), regions)


@BOTH
def test_weighted_cross_entropy_with_unknown_voxels_is_that_of_pytorch(spatial: tuple[int, ...]) -> None:
    logits, target = random_case(*spatial)
    target[torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.3] = IGNORE
    weights = [0.5, 1.0, 4.0, 2.0]
    expected = F.cross_entropy(logits, target[:, 0], weight=torch.tensor(weights), ignore_index=IGNORE)
    torch.testing.assert_close(CrossEntropyLoss(class_weights=weights)(logits, target), expected)
    smooth = F.cross_entropy(logits, target[:, 0], ignore_index=IGNORE, label_smoothing=0.1)
    torch.testing.assert_close(CrossEntropyLoss(label_smoothing=0.1)(logits, target), smooth)


@BOTH
def test_topk_is_that_of_pytorch_s_sorted(spatial: tuple[int, ...]) -> None:
    logits, target = random_case(*spatial)
    losses = F.cross_entropy(logits, target[:, 0], reduction="none").flatten().sort(descending=True).values
    torch.testing.assert_close(TopKLoss(k=20)(logits, target), losses[: len(losses) // 5].mean())


@BOTH
def test_regions_are_those_of_monai(monai_losses: Any, spatial: tuple[int, ...]) -> None:
    logits, target = random_case(*spatial)
    options: dict[str, Any] = {"sigmoid": True, "batch": True}
    dice = monai_losses.DiceLoss(**options)(logits, one_hot(target)) - 1
    torch.testing.assert_close(DiceLoss(squared=False)(logits, one_hot(target)), dice)
    tversky = monai_losses.TverskyLoss(alpha=0.3, beta=0.7, **options)(logits, one_hot(target)) - 1
    torch.testing.assert_close(TverskyLoss()(logits, one_hot(target)), tversky)


@BOTH
def test_the_skeleton_and_cldice_are_those_of_monai(monai_losses: Any, spatial: tuple[int, ...]) -> None:
    logits, target = random_case(*(2 * size for size in spatial), classes=2)
    p = torch.softmax(logits, dim=1)
    torch.testing.assert_close(soft_skeleton(p[:, 1], 3), monai_losses.cldice.soft_skel(p[:, 1:], 3)[:, 0])
    reference = monai_losses.SoftclDiceLoss(iter_=3, smooth=1e-12)  # the mean over samples
    expected = reference(p[:, 1:], target.float()) - 1
    torch.testing.assert_close(CenterlineDiceLoss(iterations=3, batch=False)(logits, target), expected)


# Losses of other packages


def test_losses_of_monai_are_called_alike(monai_losses: Any) -> None:
    logits, target = random_case(6, 5)
    leaf = logits.clone().requires_grad_()
    value = monai_losses.DiceFocalLoss(to_onehot_y=True, softmax=True)(leaf, target)
    value.backward()
    assert value.shape == ()
    assert leaf.grad.abs().max() > 0


@pytest.mark.parametrize("include_background", [False, True])
def test_the_adapter_gives_monai_s_losses_classes_and_regions(monai_losses: Any, include_background: bool) -> None:
    logits, target = random_case(6, 5)
    adapted = OnProbabilities(loss=monai_losses.DiceLoss(jaccard=True), include_background=include_background)
    own = {"jaccard": True, "include_background": include_background}
    expected = monai_losses.DiceLoss(softmax=True, to_onehot_y=True, **own)(logits, target)
    torch.testing.assert_close(adapted(logits, target), expected)
    regions = monai_losses.DiceLoss(sigmoid=True, jaccard=True)(logits, one_hot(target))
    torch.testing.assert_close(adapted(logits, one_hot(target)), regions)
    one = monai_losses.DiceLoss(sigmoid=True, jaccard=True)(logits[:, :1], one_hot(target)[:, :1])
    torch.testing.assert_close(adapted(logits[:, :1], one_hot(target)[:, :1]), one)


def test_the_adapter_hides_unknown_voxels(monai_losses: Any) -> None:
    logits, target = random_case(6, 5)
    target[..., 3:] = IGNORE
    value = OnProbabilities(loss=monai_losses.DiceLoss())(logits, target)
    cut = monai_losses.DiceLoss(softmax=True, to_onehot_y=True, include_background=False)
    torch.testing.assert_close(value, cut(logits[..., :3], target[..., :3]))


def test_the_adapter_gives_no_loss_where_nothing_is_known() -> None:
    loss = OnProbabilities(loss=lambda p, g: (p - g).abs().sqrt().mean() + 1)  # of infinite slope at 0
    logits = torch.zeros(1, 2, 3, 3, requires_grad=True)
    value = loss(logits, torch.full((1, 1, 3, 3), IGNORE))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


# Determinism and refusals


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize(
    "kind", [CenterlineDiceLoss, CrossEntropyLoss, DiceLoss, FocalLoss, GeneralizedDiceLoss, TopKLoss, TverskyLoss]
)
def test_gradients_have_a_deterministic_form_on_a_gpu(kind: type[nn.Module], regions: bool) -> None:
    logits, target = random_case(8, 8, 8)
    target = one_hot(target) if regions else target
    target[..., :2] = IGNORE
    leaf = logits.cuda().requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        value = kind(class_weights=[1, 2, 3, 4]).cuda()(leaf, target.cuda())
        value.backward()
    finally:
        torch.use_deterministic_algorithms(False)
    expected = kind(class_weights=[1, 2, 3, 4])(logits, target)
    torch.testing.assert_close(value.cpu(), expected)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DiceLoss(smooth=0), "smooth of DiceLoss is 0; allowed: above 0"),
        (lambda: TverskyLoss(alpha=0), r"alpha of TverskyLoss is 0; allowed: a number in \(0, inf\)"),
        (lambda: CrossEntropyLoss(label_smoothing=1), "label_smoothing of CrossEntropyLoss is 1"),
        (lambda: FocalLoss(gamma=-1), r"gamma of FocalLoss is -1; allowed: a number in \[0, inf\)"),
        (lambda: TopKLoss(k=0), r"k of TopKLoss is 0; allowed: a number in \(0, 100\]"),
        (lambda: TopKLoss(k=101), "k of TopKLoss is 101"),
        (
            lambda: CenterlineDiceLoss(iterations=0),
            r"iterations of CenterlineDiceLoss is 0; allowed: a whole number in \[1, inf\)",
        ),
        (lambda: CenterlineDiceLoss(smooth=0), "smooth of CenterlineDiceLoss is 0"),
        (
            lambda: DiceLoss(class_weights=[1, -1]),
            r"class_weights of DiceLoss is \[1, -1\]; allowed: a list of numbers in",
        ),
        (lambda: DiceLoss(class_weights=[0, 0]), "at least one above 0"),
        (
            lambda: WeightedSum(weights={"ce": -1}, ce=CrossEntropyLoss()),
            r"weights of WeightedSum is {'ce': -1}; allowed: a mapping of names to numbers in \[0, inf\)",
        ),
        (lambda: WeightedSum(weights={"ce": 0}, ce=CrossEntropyLoss()), "allowed: at least one above 0"),
        (lambda: WeightedSum(weights={}, ce=CrossEntropyLoss()), "ce: it has no weight. Give weights.ce"),
        (
            lambda: WeightedSum(weights={"dise": 1, "ce": 1}, dice=DiceLoss(), ce=CrossEntropyLoss()),
            "weights.dise: there is no loss 'dise'. Did you mean 'dice'?",
        ),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], Any], words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        build()
