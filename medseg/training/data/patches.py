"""Patches out of preprocessed cases: which case, which position, how large; all random from (seed, index) alone."""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medseg.augmentation.random import seeded
from medseg.config.settings import NetworkPlan
from medseg.models.slices import context_in_volume, patch_in_volume
from medseg.preprocessing.cache import form_of, load


class Patches(Dataset[dict[str, Any]]):
    """The training patches: patch n is the same whenever and wherever it is drawn.

    Cases come in a new order each round, so that all are seen equally often. ``foreground`` is the share of patches
    that are centred on a labelled voxel, or on a false positive of a first stage: one of the classes, or these, drawn
    evenly, and the voxel drawn within. A patch comes with ``context`` voxels more on either side of each axis: the
    neighbours that a network sees, the margin of augmentation. ``transform`` is called with a sample and its number.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        patch_size: Sequence[int],
        foreground: float,
        seed: int,
        transform: Callable[[dict[str, Any], int], dict[str, Any]] | None = None,
        context: Sequence[int] | None = None,
    ) -> None:
        self.files, self.patch_size, self.foreground = list(files), list(patch_size), foreground
        self.seed, self.transform = seed, transform
        self.context = list(context or [0] * len(self.patch_size))

    def __getitem__(self, n: int) -> dict[str, Any]:
        """Return patch n as ``image`` float32 (C, *patch), ``label`` (1, *patch), ``annotated`` (K,), ``index`` ()."""
        sample = self.untransformed(n)
        return self.transform(sample, n) if self.transform else sample

    def untransformed(self, n: int) -> dict[str, Tensor]:
        """Return patch n without ``transform``."""
        sample = self.empty()
        self.write(n, sample)
        return sample

    @cached_property
    def classes(self) -> set[int]:
        """Class indices that a case holds, from what the cache lists of each; mostly a few cases have all."""
        held: set[int] = set()
        for file in self.files:
            locations = load(file)["locations"]
            held |= {index for index, voxels in enumerate(locations, 1) if len(voxels)}
            if len(held) == len(locations):
                break
        return held

    def empty(self, *batches: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Return tensors to write samples into, with these axes before a sample's own; images have the ``dtype``."""
        case = load(self.files[0])
        size = [patch + 2 * context for patch, context in zip(self.patch_size, self.context, strict=True)]
        return {
            "image": torch.empty(*batches, len(case["image"]), *size, dtype=dtype),
            "label": torch.empty(*batches, 1, *size, dtype=torch.uint8),
            "annotated": torch.empty(*batches, len(case["annotated"]), dtype=torch.bool),
            "index": torch.empty(batches, dtype=torch.int64),
        }

    def write(self, n: int, sample: dict[str, Tensor]) -> None:
        """Write patch n, without ``transform``, into tensors that ``empty`` has made."""
        generator = seeded(self.seed, 0, n)
        index = self.case_of(n)
        case = load(self.files[index])
        is_forced = int((n + 1) * self.foreground) > int(n * self.foreground)  # evenly, whatever the batch
        corner = draw_corner(case, self.patch_size, is_forced, generator)
        corner = [start - context for start, context in zip(corner, self.context, strict=True)]
        cut(case["image"], corner, sample["image"])
        cut(case["label"][None], corner, sample["label"])
        sample["annotated"].copy_(case["annotated"])
        sample["index"].fill_(index)

    def case_of(self, n: int) -> int:
        """Return the case that patch ``n`` comes from."""
        turn, position = divmod(n, len(self.files))
        return int(torch.randperm(len(self.files), generator=seeded(self.seed, 1, turn))[position])


def draw_corner(
    case: dict[str, Any], patch_size: Sequence[int], is_forced: bool, generator: torch.Generator
) -> list[int]:
    """Draw where a patch begins: where forced round a voxel of a class, or of a false positive; anywhere else.

    Where some voxels are of unknown class, "anywhere" is round a known one, as in nnU-Net: with a few slices annotated,
    most other patches would teach nothing.

    A case smaller than the patch along an axis lies in its middle, as in prediction.
    """
    shape = case["label"].shape
    sought = [voxels for voxels in (*case["locations"], case["false_positives"]) if is_forced and len(voxels)]
    centres = sought or [case["known"]] * (len(case["known"]) > 0)
    if centres:
        voxels = centres[draw(len(centres), generator)]
        centre = voxels[draw(len(voxels), generator)].tolist()
        corner = [c - patch // 2 for c, patch in zip(centre, patch_size, strict=True)]
    else:
        corner = [draw(max(1, size - patch + 1), generator) for size, patch in zip(shape, patch_size, strict=True)]
    return [
        min(max(start, 0), size - patch) if size >= patch else -((patch - size) // 2)
        for start, size, patch in zip(corner, shape, patch_size, strict=True)
    ]


def draw(n: int, generator: torch.Generator) -> int:
    """Draw one of 0 … n-1."""
    return int(torch.randint(n, (), generator=generator))


def cut(volume: Tensor, corner: Sequence[int], patch: Tensor) -> None:
    """Copy out of a volume (C, *spatial) what a patch (C, *size) at ``corner`` covers; what lies outside is zero."""
    ends = [start + size for start, size in zip(corner, patch.shape[1:], strict=True)]
    inside = [(max(0, start), min(end, size)) for start, end, size in zip(corner, ends, volume.shape[1:], strict=True)]
    source = tuple(slice(*pair) for pair in inside)
    target = tuple(slice(first - start, last - start) for (first, last), start in zip(inside, corner, strict=True))
    if inside != list(zip(corner, ends, strict=True)):
        patch.zero_()
    patch[:, *target] = volume[:, *source]


_MOST = 2.0
"""A patch with its margin has at most this many times the voxels: all that is cut is read and moved, while six of ten
samples are not turned at all, and those that are reach so far with a corner only."""


def margin_for(spatial: Any, files: Sequence[Path], plan: NetworkPlan) -> list[int]:
    """Return the voxels on either side of each axis that ``spatial`` can make use of.

    None without a ``spatial`` that tells its ``reach``, none across the slices of a 2D network, and no more than the
    largest preprocessed case has beyond a patch: where all cases fit into it, only padding would come in.
    """
    patch, context = patch_in_volume(plan), context_in_volume(plan)
    if not hasattr(spatial, "reach"):
        return [0] * len(patch)
    seen = [size + 2 * beside for size, beside in zip(patch, context, strict=True)]
    largest = [max(sizes) for sizes in zip(*(form_of(file)[0][1:] for file in files), strict=True)]
    tissue = [max(0, size - there) for size, there in zip(largest, seen, strict=True)]
    useful = [min(pair) for pair in zip(spatial.reach(seen), tissue, strict=True)]
    return affordable([0 if axis == plan.slice_axis else size for axis, size in enumerate(useful)], seen)


def affordable(margin: Sequence[int], patch: Sequence[int]) -> list[int]:
    """Return the margin, or the largest share of it by the percent with which a patch is not too large."""
    shares = ([size * percent // 100 for size in margin] for percent in range(100, -1, -1))
    most = _MOST * prod(patch)
    return next(share for share in shares if prod(p + 2 * m for p, m in zip(patch, share, strict=True)) <= most)
