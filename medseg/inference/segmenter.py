"""Probabilities to class indices on the native grid: the part of the road that validation and prediction share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.inference.postprocess import largest_together, postprocess
from medseg.inference.probabilities import Slabs
from medseg.inference.regions import Regions
from medseg.system.memory import on_device_or_cpu

EVEN = 0.5
"""Probability from which a region is as likely to be there as not."""

Watch = Callable[[slice, Tensor], None]
"""Sees every slab of probabilities that goes by."""


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """How probabilities become labels.

    Args:
        threshold: foreground where its probability (one minus the background's) exceeds this, the likeliest foreground
            class there; None: the likeliest of all classes. A region is where its own probability exceeds this; None:
            0.5.
        cuts: of each region its own threshold; none: that of all.
        postprocess: arguments of ``medseg.inference.postprocess.postprocess``; of regions that overlap each is cleaned
            by itself, as the class of its place counted from one.
        regions: what the network's outputs are, where they are no classes that exclude each other.
        largest_of: groups of class indices. At the very end, one group after the other, only the largest component of
            its classes taken together stays.
    """

    threshold: float | None = None
    cuts: Sequence[float] = ()
    postprocess: dict[str, Any] = field(default_factory=dict)
    regions: Regions | None = None
    largest_of: Sequence[Sequence[int]] = ()

    def __call__(
        self,
        slabs: Slabs,
        native_shape: Sequence[int],
        *,
        spacing: Sequence[float],
        unit: Literal["mm", "px"],
        voxel_volume: float | None = None,
    ) -> NDArray[np.uint8]:
        """Return class indices (*native grid), post-processed."""
        decided = self.decide(slabs, native_shape)
        return self.clean(decided, spacing=spacing, unit=unit, voxel_volume=voxel_volume)

    @torch.inference_mode()
    def decide(self, slabs: Slabs, native_shape: Sequence[int], watches: Sequence[Watch] = ()) -> NDArray[np.uint8]:
        """Return what the probabilities say: class indices (*native grid), or of regions that overlap (R, *) masks."""
        kinds = 0 if self.regions is None or self.regions.are_disjoint else len(self.regions.members)
        labels = np.empty((*[kinds] * bool(kinds), *native_shape), dtype=np.uint8)
        for place, scores in slabs:
            for watch in watches:
                watch(place, scores)
            found = on_device_or_cpu(self.above if kinds else self.classes, scores)
            labels[..., place] = found.cpu().numpy()
        return labels

    def clean(
        self,
        decided: NDArray[np.uint8],
        *,
        spacing: Sequence[float],
        unit: Literal["mm", "px"],
        voxel_volume: float | None = None,
    ) -> NDArray[np.uint8]:
        """Return class indices (*native grid), post-processed, of what ``decide`` returned."""

        def cleaned(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return postprocess(labels, tuple(spacing), unit, voxel_volume=voxel_volume, **self.postprocess)

        if decided.ndim == len(spacing):
            return largest_together(cleaned(decided), self.largest_of)
        assert self.regions is not None  # or there would be no mask for each
        masks = [cleaned(mask * np.uint8(place)) > 0 for place, mask in enumerate(decided, 1)]
        return largest_together(self.regions.paint(masks), self.largest_of)

    def above(self, scores: Tensor) -> Tensor:
        """Tell where the probabilities (R, *) of regions exceed their thresholds; bool (R, *)."""
        cuts = self.cuts or [EVEN if self.threshold is None else self.threshold]
        return scores > torch.tensor(cuts, dtype=scores.dtype, device=scores.device).view(-1, *[1] * (scores.ndim - 1))

    def classes(self, scores: Tensor) -> Tensor:
        """Turn probabilities (K, *) of classes, or of regions that exclude each other, into class indices (*) uint8."""
        if self.regions:
            likeliest = scores.max(0).indices
            painted = torch.tensor(self.regions.painted, dtype=torch.uint8, device=scores.device)
            return painted[likeliest] * self.above(scores).gather(0, likeliest[None])[0]
        if self.threshold is None:
            return scores.argmax(0).to(torch.uint8)
        foreground = 1 - scores[0] > self.threshold
        return ((scores[1:].argmax(0) + 1) * foreground).to(torch.uint8)
