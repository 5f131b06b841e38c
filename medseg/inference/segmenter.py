"""One prepared image to class indices on its native grid: the part of the road that validation and prediction share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.inference.postprocess import postprocess
from medseg.inference.regions import Regions
from medseg.inference.sliding_window import Network, sliding_window, softmax
from medseg.preprocessing.geometry import Geometry

EVEN = 0.5
"""Probability from which a region is as likely to be there as not."""


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """How probabilities are made and how they become labels.

    Args:
        patch_size: the window's size on the network grid.
        overlap: share of a window that its neighbour covers.
        batch_size: windows to one pass of the network.
        mirror_axes: axes flipped for test-time augmentation; none without it.
        threshold: foreground where its probability (one minus the background's) exceeds this, the likeliest foreground
            class there; None: the likeliest of all classes. A region is where its own probability exceeds this; None:
            0.5.
        postprocess: arguments of ``medseg.inference.postprocess.postprocess``, applied to each region by itself.
        context: voxels along each axis that the network sees beside a window.
        regions: what the network's outputs are, where they are no classes that exclude each other.
    """

    patch_size: Sequence[int]
    overlap: float = 0.5
    batch_size: int = 1
    mirror_axes: Sequence[int] = ()
    threshold: float | None = None
    postprocess: dict[str, Any] = field(default_factory=dict)
    context: Sequence[int] | None = None
    regions: Regions | None = None

    def __call__(
        self,
        network: Network,
        image: Tensor,
        geometry: Geometry,
        *,
        spacing: Sequence[float],
        unit: Literal["mm", "px"],
        voxel_volume: float | None = None,
    ) -> NDArray[np.uint8]:
        """Return class indices (*native grid) of an image (C, *network grid) that lies on the network's device."""

        def clean(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return postprocess(labels, tuple(spacing), unit, voxel_volume=voxel_volume, **self.postprocess)

        if self.regions is None or self.regions.are_disjoint:
            labels = np.empty(geometry.native_shape, dtype=np.uint8)
            for place, scores in self.scores(network, image, geometry):
                labels[..., place] = self.decide(scores).cpu().numpy()
            return clean(labels)
        masks = np.empty((len(self.regions.members), *geometry.native_shape), dtype=np.uint8)
        for place, scores in self.scores(network, image, geometry):
            masks[..., place] = (scores > (self.threshold or EVEN)).cpu().numpy()
        return self.regions.paint([clean(mask) > 0 for mask in masks])

    @torch.inference_mode()
    def scores(self, network: Network, image: Tensor, geometry: Geometry) -> Iterator[tuple[slice, Tensor]]:
        """Yield (slice along the last native axis, probabilities (K, *slab)) on the native grid."""
        probabilities = sliding_window(
            network,
            image,
            patch_size=self.patch_size,
            overlap=self.overlap,
            batch_size=self.batch_size,
            mirror_axes=self.mirror_axes,
            context=self.context,
            activation=torch.sigmoid if self.regions else softmax,
        )
        background = torch.zeros(len(probabilities), device=image.device)
        background[0] = 0.0 if self.regions else 1.0
        yield from geometry.slabs(probabilities, background)

    def decide(self, scores: Tensor) -> Tensor:
        """Turn probabilities (K, *) of classes, or of regions that exclude each other, into class indices (*) uint8."""
        if self.regions:
            highest, region = scores.max(0)
            painted = torch.tensor(self.regions.painted, dtype=torch.uint8, device=scores.device)
            return painted[region] * (highest > (self.threshold or EVEN))
        if self.threshold is None:
            return scores.argmax(0).to(torch.uint8)
        foreground = 1 - scores[0] > self.threshold
        return ((scores[1:].argmax(0) + 1) * foreground).to(torch.uint8)
