"""Losses that each voxel has by itself, on the probability of its reference: cross-entropy, focal and top-k."""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.config.arguments import check_declared
from medseg.config.schema import Setting
from medseg.io.labels import IGNORE
from medseg.training.losses.base import ClassWeighted, ClassWeights, all_known, are_regions, full, weighted_mean


class CrossEntropyLoss(ClassWeighted):
    """The mean of -log p over all known voxels, p being the probability of the reference.

    That is the true class, or in each region for itself whether the voxel belongs to it. With class weights it is
    sum(-w log p) / sum(w), where w is the weight of the true class, or of the region. With label smoothing s the
    reference is 1 - s + s / K for the true class and s / K for the others (K = 2 in a region): Szegedy et al.,
    "Rethinking the Inception Architecture" (CVPR 2016), section 7.

    Args:
        label_smoothing: s, from 0 to below 1.
        class_weights: a number for each output channel; None: all are equal.
    """

    def __init__(
        self,
        *,
        label_smoothing: Annotated[float, Setting("share of the target spread over all classes", "[0, 1)")] = 0.0,
        class_weights: ClassWeights = None,
    ) -> None:
        super().__init__(class_weights)
        check_declared("loss", self, label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, *spatial) and int64 classes or regions -> scalar, float32 (float64 for float64 logits)."""
        logits = full(logits)
        log_p = log_likelihood(logits, target)
        if self.label_smoothing:
            # The mean of log p over all that the reference might be: yes and no, or the K classes.
            if are_regions(logits, target):
                mean_log_p = logits / 2 - F.softplus(logits)
            else:
                mean_log_p = logits.mean(1, keepdim=True) - logits.logsumexp(1, keepdim=True)
            log_p = (1 - self.label_smoothing) * log_p + self.label_smoothing * mean_log_p
        return -weighted_mean(log_p, voxel_weights(self, logits, target))


class FocalLoss(ClassWeighted):
    """The mean of -(1 - p)^gamma log p over all known voxels, p being the probability of the reference.

    Lin et al., "Focal loss for dense object detection" (ICCV 2017): cross-entropy in which voxels that are right
    already count less. Classes, regions and class weights (their alpha) are as in ``CrossEntropyLoss``.

    Args:
        gamma: 0 is cross-entropy; the more, the less the easy voxels count.
        class_weights: a number for each output channel; None: all are equal.
    """

    def __init__(
        self,
        *,
        gamma: Annotated[
            float, Setting("the more, the less the easy voxels count; 0 is cross-entropy", "[0, inf)")
        ] = 2.0,
        class_weights: ClassWeights = None,
    ) -> None:
        super().__init__(class_weights)
        check_declared("loss", self, gamma=gamma)
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, *spatial) and int64 classes or regions -> scalar, float32 (float64 for float64 logits)."""
        logits = full(logits)
        log_p = log_likelihood(logits, target)
        # 1 - p without cancellation. Kept above 0, where a power below 1 has an infinite slope.
        doubt = -torch.expm1(log_p).clamp(max=-torch.finfo(log_p.dtype).tiny)
        return -weighted_mean(doubt.pow(self.gamma) * log_p, voxel_weights(self, logits, target))


class TopKLoss(ClassWeighted):
    """The mean of -w log p over the k percent of the known voxels where it is largest.

    nnU-Net's form (Isensee et al., 2021) of Wu et al., "Bridging category-level and instance-level semantic image
    segmentation" (2016): cross-entropy of the hardest voxels of a batch, w being the class weights, 1 by default. A
    region's voxels are ranked together with those of the others.

    Args:
        k: percentage of the voxels, above 0; 100 is cross-entropy.
        class_weights: a number for each output channel; None: all are equal.
    """

    def __init__(
        self,
        *,
        k: Annotated[float, Setting("percentage of the voxels that count, the hardest ones", "(0, 100]")] = 10.0,
        class_weights: ClassWeights = None,
    ) -> None:
        super().__init__(class_weights)
        check_declared("loss", self, k=k)
        self.k = k

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, *spatial) and int64 classes or regions -> scalar, float32 (float64 for float64 logits)."""
        logits = full(logits)
        loss, known, weights = -log_likelihood(logits, target), target != IGNORE, voxel_weights(self, logits, target)
        loss = loss if weights is None else loss * weights
        ranked = loss.where(known, -1).flatten().topk(max(1, int(known.numel() * self.k / 100))).values
        # How many of these count is not asked of the device, which would have to be waited for.
        count = (known.sum() * self.k / 100).int().clamp(min=1)
        hardest = torch.arange(len(ranked), device=ranked.device) < count
        return weighted_mean(ranked, hardest & (ranked >= 0))


def log_likelihood(logits: Tensor, target: Tensor) -> Tensor:
    """Return the log of the probability of the reference, shaped as target; without meaning where that is unknown."""
    if are_regions(logits, target):
        return F.logsigmoid(torch.where(target == 1, logits, -logits))
    # Not F.cross_entropy: on spatial axes it has no deterministic form on a GPU.
    return F.log_softmax(logits, dim=1).gather(1, indices(target))


def voxel_weights(loss: ClassWeighted, logits: Tensor, target: Tensor) -> Tensor | None:
    """Return the weight of each voxel's true class, or of its region, shaped as target; 0 where it is unknown.

    None: all are known and weigh the same.
    """
    if loss.class_weights is None:
        return None if all_known(target) else (target != IGNORE).to(logits.dtype)
    weights = loss.weights_for(logits)
    of_voxels = weights.view(-1, *[1] * (logits.ndim - 2)) if are_regions(logits, target) else weights[indices(target)]
    return of_voxels * (target != IGNORE)


def indices(target: Tensor) -> Tensor:
    """Return class indices with any valid one, the background's, where the class is unknown."""
    return target if all_known(target) else target.masked_fill(target == IGNORE, 0)
