"""Learning what scans look like, without masks: what a pretext task hides is reconstructed from the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.augmentation.random import RandomNumbers, random_numbers
from medseg.models.slices import without_context
from medseg.training.losses.combination import deep_supervision
from medseg.training.module import TrainingModule, gather
from medseg.training.optim.divergence import diverged
from medseg.training.pretraining.data import PER_CASE, ReconstructionData

Pretext = Callable[[Tensor, RandomNumbers], tuple[Tensor, Tensor]]
"""(image, random) to the image as the network sees it and what of it is hidden, bool (B, 1, *spatial)."""

DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {"l1": torch.abs, "l2": torch.square}
"""What each difference of a reconstruction counts."""


@dataclass(frozen=True)
class Shown:
    """Validation patches (B, C, *patch): as they are, as the network saw them, its reconstruction, what was hidden."""

    image: Tensor
    seen: Tensor
    output: Tensor
    hidden: Tensor


class ReconstructionModule(TrainingModule):
    """Trains a network to reconstruct scans; the loss is the mean over what was hidden of them.

    Every validation uses the same patches, with the same parts hidden.

    Args:
        network: patches (B, C, *patch) to as many channels, a tensor or a list of them with the finest first.
        pretext: hides parts of images.
        distance: one of ``DISTANCES``.
        common: what every training takes (see ``TrainingModule``).
    """

    def __init__(self, network: nn.Module, *, pretext: Pretext, distance: str, **common: Any) -> None:
        super().__init__(network, **common)
        self.pretext, self.distance = pretext, DISTANCES[distance]
        self.errors: dict[int, np.ndarray[Any, Any]] = {}
        self.shown: Shown | None = None

    def loss_of(self, batch: dict[str, Tensor], step: int, first: int) -> Tensor:
        """Augment a batch, hide parts of it, run the network, compare with the batch."""
        image, seen, hidden = self.task_of(batch, step, first)
        outputs = self.logits(seen.contiguous(memory_format=self.memory_format))
        image, hidden = (without_context(whole, self.context) for whole in (image, hidden))
        return reconstruction_loss(outputs, image, hidden, self.distance)

    def count_windows(self, data: ReconstructionData) -> list[int]:
        """Return how many patches of each validation case the network is given."""
        return [PER_CASE] * len(data.val_files)

    def input_of(self, batch: dict[str, Tensor], step: int) -> Tensor:
        """Return a batch's augmented images with parts hidden."""
        return self.task_of(batch, step, 0)[1]

    def task_of(self, batch: dict[str, Tensor], step: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the augmented images of a batch, what the network sees of them, and what is hidden."""
        image, _ = self.augment(batch["image"], batch["label"], step, first)
        return image, *self.hide(image, random_numbers(len(image), first, self.seed, 4, step))

    @torch.no_grad()
    def hide(self, image: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Hide parts of images, in full precision."""
        with torch.autocast(image.device.type, enabled=False):
            return self.pretext(image, random)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        super().on_validation_epoch_start()
        self.errors, self.shown = {}, None

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Reconstruct a batch and add up the distance over what was hidden."""
        number = batch["number"]
        image = without_context(batch["image"], self.margin_of(batch["image"]))
        seen, hidden = self.hide(image, random_numbers(len(image), 0, self.seed, 5, number))
        output = self.final_logits(seen.contiguous(memory_format=self.memory_format))[0].float()
        image, seen, hidden = (without_context(whole, self.context) for whole in (image, seen, hidden))
        counted = hidden.expand_as(image)
        of_rows = (self.distance(output - image) * counted).sum(-1)
        total = of_rows.cpu().double().sum()  # there, as MPS has no float64
        self.errors[number] = np.array([total.item(), counted.sum().item()])
        if number == 0:
            self.shown = Shown(image, seen, output, hidden)

    def on_validation_epoch_end(self) -> None:
        """Log the mean distance.

        Raises:
            MedsegError: it is not finite.
        """
        gathered = gather(self.errors)
        total, count = np.sum([gathered[number] for number in sorted(gathered)], axis=0)
        if not np.isfinite(total):
            raise diverged(self.trainer, "the network's output for a validation patch is NaN or infinite")
        self.add_score(float(total / count))


def reconstruction_loss(
    outputs: Sequence[Tensor], image: Tensor, hidden: Tensor, distance: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the mean distance over hidden voxels, over all outputs by ``deep_supervision``.

    Args:
        outputs: (B, C, *), finest first; coarser ones, of deep supervision, are compared with the image's mean over
            their voxels, where the middle of these is hidden.
        image: (B, C, *).
        hidden: bool (B, 1, *).
        distance: of differences.
    """

    def loss_of(output: Tensor) -> Tensor:
        shape = list(output.shape[2:])
        target = image if output.shape == image.shape else coarsened(image, shape)
        counted = F.interpolate(hidden.float(), size=shape, mode="nearest-exact").expand_as(target)
        return (distance(output.float() - target) * counted).sum() / counted.sum().clamp(min=1)

    return deep_supervision(outputs, loss_of)


def coarsened(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the means of an image (B, C, *spatial) over the voxels of a coarser grid: (B, C, *shape).

    ``F.interpolate`` with ``mode="area"``, of volumes in two passes: MPS has no kernel for one.
    """
    *before, height, width = shape
    slices = F.adaptive_avg_pool2d(image.flatten(1, -3), (height, width))
    if not before:
        return slices
    columns = slices.reshape(*image.shape[:3], height * width)
    return F.adaptive_avg_pool2d(columns, (before[0], height * width)).reshape(*image.shape[:2], *shape)
