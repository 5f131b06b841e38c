"""The centreline Dice loss for tubes: vessels, airways, nerves."""

from functools import reduce
from typing import Annotated, Any

import torch
from torch import Tensor

from medseg.config.arguments import check_declared
from medseg.config.schema import Setting
from medseg.training.losses.base import (
    Batch,
    ClassWeights,
    IncludeBackground,
)
from medseg.training.losses.overlap import RatioLoss


class CenterlineDiceLoss(RatioLoss):
    """L = -2 P S / (P + S), the mean over classes; from -1 (perfect) to 0. Not to be used alone.

    P = sum(s(p) g) / sum(s(p)) is the share of the predicted centreline that lies in the reference tube, S = sum(s(g)
    p) / sum(s(g)) the share of the reference centreline that is found; s is a soft skeleton. Shit et al., "clDice - a
    novel topology-preserving loss function for tubular structure segmentation" (CVPR 2021), who add the Dice loss: this
    one sees whether tubes are connected, hardly how wide they are.

    Args:
        iterations: erosions of the skeleton, at least the largest radius of a tube in voxels.
        batch: one ratio for the whole batch instead of one a sample.
        include_background: count class 0 as well; regions have no background.
        class_weights: a number for each output channel; None: all are equal.
        smooth: added to numerators and denominators, above 0.
    """

    def __init__(
        self,
        *,
        iterations: Annotated[
            int, Setting("erosions, at least the largest radius of a tube in voxels", "[1, inf)")
        ] = 5,
        batch: Batch = True,
        include_background: IncludeBackground = False,
        class_weights: ClassWeights = None,
        smooth: float = 1.0,
    ) -> None:
        super().__init__(batch, include_background, class_weights, smooth)
        check_declared("loss", self, iterations=iterations)
        self.iterations = iterations

    def sums(self, p: Tensor, g: Tensor) -> Tensor:
        """Return how much of the predicted centreline lies in the reference tube, its length, and both reversed."""
        g = g.to(p.dtype)
        predicted, true = (soft_skeleton(each, self.iterations) for each in (p, g))
        return torch.stack([self.total(values) for values in (predicted * g, predicted, true * p, true)])

    def ratio(self, sums: Tensor) -> Tensor:
        """Return each class's clDice, (C, S)."""
        predicted_inside, predicted, true_inside, true = sums + self.smooth
        precision, sensitivity = predicted_inside / predicted, true_inside / true
        return 2 * precision * sensitivity / (precision + sensitivity)


def soft_skeleton(image: Tensor, iterations: int) -> Tensor:
    """Return the soft skeleton of images (B, *spatial) with values from 0 to 1: Shit et al., algorithm 1."""
    eroded = erode(image)
    skeleton = torch.relu(image - dilate(eroded))
    for _ in range(iterations):
        image, eroded = eroded, erode(eroded)
        ridge = torch.relu(image - dilate(eroded))
        skeleton = skeleton + torch.relu(ridge - skeleton * ridge)
    return skeleton


def erode(image: Tensor) -> Tensor:
    """Return the minimum of each voxel (B, *spatial) and its neighbours along the axes."""
    return reduce(minimum, [lowest_of_three(image, axis) for axis in range(1, image.ndim)])


def dilate(image: Tensor) -> Tensor:
    """Return the maximum of each voxel (B, *spatial) and all its neighbours, diagonal ones too."""
    return -reduce(lowest_of_three, range(1, image.ndim), -image)


def lowest_of_three(image: Tensor, axis: int) -> Tensor:
    """Return the minimum of each voxel and the two beside it along an axis; there are none beyond the border."""
    # Not max_pool3d: its gradient has no deterministic form on a GPU.
    size = image.shape[axis]
    if size == 1:
        return image
    pairs = minimum(image.narrow(axis, 0, size - 1), image.narrow(axis, 1, size - 1))
    inner = minimum(pairs.narrow(axis, 0, size - 2), pairs.narrow(axis, 1, size - 2))
    return torch.cat([pairs.narrow(axis, 0, 1), inner, pairs.narrow(axis, size - 2, 1)], dim=axis)


def minimum(first: Tensor, second: Tensor) -> Tensor:
    """Return the lower of each two values."""
    return Minimum.apply(first, second)  # type: ignore[no-untyped-call]


class Minimum(torch.autograd.Function):
    """torch.minimum, whose own gradient takes a CPU several times as long. Of two equals the first has the gradient."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        """Return the lower of each two values."""
        ctx.save_for_backward(first <= second)
        return torch.minimum(first, second)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Give the gradient to the value that was taken."""
        (is_first,) = ctx.saved_tensors
        of_first = gradient * is_first.to(gradient.dtype)
        return of_first, gradient - of_first
