"""What a network makes of patches: a list of logits.

2D networks go through volumes by slices, or 2.5D; those of a second stage correct what a first one finds.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from medseg.config.settings import NetworkPlan, TrainerSettings

Outputs = Tensor | Sequence[Tensor]
LEAST = 0.01
"""No probability of a first stage counts as less, so that a network can correct it: logits differ by 4.6 at most."""


def logits_of(network: Callable[[Tensor], Outputs], plan: NetworkPlan) -> Callable[[Tensor], list[Tensor]]:
    """Return the function from patches (B, C, *patch) to logits, finest first, that a plan asks of a network."""
    axis, context = plan.slice_axis, plan.context
    if axis is not None:
        return lambda patches: by_slices(network, patches, axis, context)
    if count := plan.coarse_channels:
        return lambda patches: corrected(as_list(network(patches), patches), patches[:, -count:])
    return lambda patches: as_list(network(patches), patches)


def corrected(outputs: Sequence[Tensor], probs: Tensor) -> list[Tensor]:
    """Add to a network's logits those of a first stage's probabilities, so that its outputs are corrections of these.

    An untrained network, whose outputs are small, begins near the first stage's result.

    Args:
        outputs: logits (B, K, *), finest first.
        probs: (B, K - 1, *patch) of the classes but for the background, or (B, K, *patch) of the regions.

    Returns:
        Logits (B, K, *) of the same sizes and types.
    """
    probs = probs.float()
    if outputs[0].shape[1] == probs.shape[1]:
        logits = torch.logit(probs, LEAST)
    else:
        logits = torch.cat([1 - probs.sum(1, keepdim=True), probs], 1).clamp(min=LEAST).log()
    sizes = [output.shape[2:] for output in outputs]
    starts = [logits if size == logits.shape[2:] else interpolate(logits, list(size), mode="area") for size in sizes]
    return [output + start.to(output.dtype) for output, start in zip(outputs, starts, strict=True)]


def by_slices(network: Callable[[Tensor], Outputs], patches: Tensor, axis: int, context: int) -> list[Tensor]:
    """Run a 2D network over the slices of patches of volumes.

    Args:
        network: (N, C * (2 * context + 1), *slice) to logits (N, K, *slice); a slice and its neighbours follow each
            other within each channel.
        patches: (B, C, *patch) with n + 2 * context slices along spatial axis ``axis``.
        context: neighbours on either side that a slice is seen with.

    Returns:
        Logits (B, K, *patch) of the n inner slices, finest first.
    """
    stacks = patches.movedim(2 + axis, 2).unfold(2, 2 * context + 1, 1)  # (B, C, n, *slice, 2 context + 1)
    stacks = stacks.movedim(-1, 2).movedim(3, 1)  # (B, n, C, 2 context + 1, *slice)
    batch, count = stacks.shape[:2]
    slices = stacks.flatten(2, 3).flatten(0, 1)  # (B n, C (2 context + 1), *slice)
    outputs = as_list(network(slices), slices)
    return [output.reshape(batch, count, *output.shape[1:]).movedim(1, 2 + axis) for output in outputs]


def patch_in_volume(plan: NetworkPlan) -> list[int]:
    """Return the patch size on the images' grid: of a 2D network on volumes, one slice thick."""
    patch, axis = list(plan.patch_size), plan.slice_axis
    return patch if axis is None else [*patch[:axis], 1, *patch[axis:]]


def context_in_volume(plan: NetworkPlan) -> list[int]:
    """Return how many voxels on either side of a patch the network sees beside it, along each axis."""
    return [plan.context if axis == plan.slice_axis else 0 for axis in range(len(patch_in_volume(plan)))]


def memory_format(trainer: TrainerSettings, plan: NetworkPlan) -> torch.memory_format:
    """Return how weights and patches lie in memory: channels first, or last where that was found to pay."""
    if not trainer.channels_last or plan.slice_axis is not None:
        return torch.contiguous_format
    return torch.channels_last if len(plan.patch_size) == 2 else torch.channels_last_3d


def without_context(label: Tensor, context: Sequence[int]) -> Tensor:
    """Cut (B, C, *patch with context) back to the patch."""
    inner = (slice(c, size - c) for c, size in zip(context, label.shape[2:], strict=True))
    return label[(slice(None), slice(None), *inner)]


def as_list(outputs: Outputs, patches: Tensor) -> list[Tensor]:
    """Return what a network made of ``patches`` (B, C, *) as a list of logits (B, K, *), finest first.

    MONAI's DynUNet stacks the outputs of deep supervision into one tensor (B, n, K, *).
    """
    if not isinstance(outputs, Tensor):
        return list(outputs)
    return list(outputs.unbind(1)) if outputs.ndim > patches.ndim else [outputs]
