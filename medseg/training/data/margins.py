"""How much larger than the network's patch patches are cut, so that rotation and zooming out turn in real tissue."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from medseg.models.slices import context_in_volume, patch_in_volume
from medseg.preprocessing.cache import load

_MOST = 2.0
"""A patch with its margin has at most this many times the voxels: all that is cut is read and moved, while six of ten
samples are not turned at all, and those that are reach so far with a corner only."""


def margin_for(spatial: Any, files: Sequence[Path], plan: dict[str, Any]) -> list[int]:
    """Return the voxels on either side of each axis that ``spatial`` can make use of.

    None without a ``spatial`` that tells its ``reach``, none across the slices of a 2D network, and no more than the
    largest preprocessed case has beyond a patch: where all cases fit into it, only padding would come in.
    """
    patch, context = patch_in_volume(plan), context_in_volume(plan)
    if not hasattr(spatial, "reach"):
        return [0] * len(patch)
    seen = [size + 2 * beside for size, beside in zip(patch, context, strict=True)]
    largest = [max(sizes) for sizes in zip(*(load(file)["label"].shape for file in files), strict=True)]
    tissue = [max(0, size - there) for size, there in zip(largest, seen, strict=True)]
    useful = [min(pair) for pair in zip(spatial.reach(seen), tissue, strict=True)]
    return affordable([0 if axis == plan["slice_axis"] else size for axis, size in enumerate(useful)], seen)


def affordable(margin: Sequence[int], patch: Sequence[int]) -> list[int]:
    """Return the margin, or the largest share of it by the percent with which a patch is not too large."""
    shares = ([size * percent // 100 for size in margin] for percent in range(100, -1, -1))
    most = _MOST * prod(patch)
    return next(share for share in shares if prod(p + 2 * m for p, m in zip(patch, share, strict=True)) <= most)
