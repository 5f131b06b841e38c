"""The first stage of two: coarse models, whose result in a scan the model of the second stage uses.

The result is a step of the second stage's preprocessing: probabilities as further channels, or a region as the crop.
So validation and prediction know nothing of stages. Both stages crop a scan to the same box before they resample it, so
that the coarse grid and the fine one have the same edges, and no probability goes over the native grid.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from itertools import groupby
from threading import Lock
from typing import Any, Literal

import torch
from torch import Tensor

from medseg.config.settings import FirstStageSettings
from medseg.errors import MedsegError
from medseg.inference.trained_model import Model, scorer_of
from medseg.io.case import Scan
from medseg.io.grids.grid import bounding_box
from medseg.io.labels import LabelMap
from medseg.preprocessing.geometry import Geometry
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.preprocessing.resample import interpolation, resample_axis
from medseg.system.device import autocast, pick_precision

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstStage:
    """Coarse models that know the same classes, of which the probabilities are averaged.

    They compute where their networks lie. Raises a MedsegError where the models differ in classes or channels.
    """

    models: tuple[Model, ...]
    lock: Any = field(default_factory=Lock, compare=False, repr=False)

    def __post_init__(self) -> None:
        for other in self.models[1:]:
            if (other.label_map, other.preprocessor.n_channels) != (self.label_map, self.n_channels):
                raise MedsegError(f"{other.path}: the models of its first stage differ in classes or channels.")

    @property
    def label_map(self) -> LabelMap:
        """The classes and regions that the models know."""
        return self.models[0].label_map

    @property
    def n_channels(self) -> int:
        """Channels that a scan must have."""
        return self.models[0].preprocessor.n_channels

    @cached_property
    def hashes(self) -> list[str]:
        """A hash of each model: what it makes of scans depends on nothing else."""
        hashes = []
        for model in self.models:
            settings = [model.preprocessor.config, asdict(model.inference), list(model.patch_size), model.precision]
            digest = hashlib.sha256(json.dumps(settings).encode())
            for name, value in model.network.state_dict().items():
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            hashes.append(digest.hexdigest()[:32])
        return hashes

    @torch.no_grad()
    def __call__(self, scan: Scan) -> tuple[Tensor, Geometry]:
        """Return probabilities, float32 (K, *coarse grid) on the CPU, of the classes or regions; and the coarse grid.

        Raises:
            MedsegError: the scan does not fit the models.
        """
        total: Tensor | None = None
        for _, members in groupby(self.models, key=lambda model: model.grid):
            group = list(members)
            first, device = group[0], next(group[0].network.parameters()).device
            image, geometry = first.preprocessor(scan)
            scorer = scorer_of(first, first.inference)
            axis, is_flipped = geometry.slab_axis
            alone = nullcontext() if device.type == "cpu" else self.lock  # a GPU's memory is for one reader's scan
            with alone, autocast(device, pick_precision(first.precision, device)):
                blocks = scorer.blocks([model.logits for model in group], image.to(device), geometry)
                probs = torch.cat([block.to("cpu", copy=True) for block in blocks], 1 + axis)
            probs = (probs.flip(1 + axis) if is_flipped else probs) * (len(group) / len(self.models))
            total = probs if total is None else total + probs
        assert total is not None  # there is a model
        return total, geometry


def second_stage(
    preprocessing: dict[str, Any], models: Sequence[Model], settings: FirstStageSettings, patch_size: Sequence[int]
) -> "SecondStage":
    """Return the preprocessor of a model whose first stage is ``models``; ``patch_size`` is that of its windows."""
    assert settings.use is not None
    first = FirstStage(tuple(models))
    return SecondStage(**preprocessing, first=first, use=settings.use, margin=settings.margin, least=list(patch_size))


@dataclass(frozen=True, kw_only=True)
class SecondStage(Preprocessor):
    """A preprocessor that uses what a first stage makes of a scan.

    Args:
        first: the coarse models.
        use: "channels" adds the probabilities of the classes, but for the background, or of the regions, as channels;
            "region" crops the scan to the box round what was found.
        margin: in the scan's unit, on each side of the box.
        least: voxels on the network grid that a region has at least along each axis, as far as the scan has them.
    """

    first: FirstStage
    use: Literal["channels", "region"]
    margin: float
    least: Sequence[int]

    @property
    def config(self) -> dict[str, Any]:
        """Plain containers, equal for two that do the same."""
        own = {each.name: getattr(self, each.name) for each in fields(Preprocessor)}
        stage = {"models": self.first.hashes, "use": self.use, "margin": self.margin, "least": list(self.least)}
        return {**own, "first_stage": stage}

    @property
    def added_channels(self) -> int:
        """Channels that the image on the network grid has beside the scan's."""
        return len(self.first.label_map.reported) if self.use == "channels" else 0

    def __call__(self, scan: Scan, region: Sequence[tuple[float, float]] | None = None) -> tuple[Tensor, Geometry]:
        """Return the scan on the network grid, (C + ``added_channels``, *network grid), and the way back.

        Raises:
            MedsegError: as ``Preprocessor``.
        """
        probs, coarse = self.first(scan)
        if self.use == "region":
            return super().__call__(scan, self.region(probs, coarse, scan))
        image, geometry = super().__call__(scan)
        probs = probs if self.first.label_map.regions else probs[1:]
        for axis, (old, new) in enumerate(zip(coarse.shape, geometry.shape, strict=True), 1):
            probs = resample_axis(probs, axis, interpolation(old, new, "linear"))
        return torch.cat([image, probs]), geometry

    def region(self, probs: Tensor, coarse: Geometry, scan: Scan) -> list[tuple[float, float]]:
        """Return where along each network axis the second stage works, in fractions of the cropped scan.

        A voxel is found where the background, or none of the regions, is less likely than not.

        Args:
            probs: (K, *coarse grid).
            coarse: that grid.
            scan: what they were made of.
        """
        found = (probs > 0.5).any(0) if self.first.label_map.regions else probs[0] < 0.5
        if not found.any():
            name = getattr(scan.layout, "path", None) or "a scan"
            log.warning("%s: the first stage found nothing in it; the whole scan is worked on", name)
            return [(0.0, 1.0)] * found.ndim
        spans = []
        for axis, box in enumerate(bounding_box(found.numpy(), 1)):  # edges between two coarse voxels are in it
            step = scan.spacing[coarse.order[axis]]
            extent = step * coarse.cut_shape[axis]  # of the cropped scan
            margin = self.margin / extent
            low, high = box.start / coarse.shape[axis] - margin, box.stop / coarse.shape[axis] + margin
            lacking = self.least[axis] * (self.spacing[axis] if self.spacing else step) / extent - (high - low)
            low, high = low - max(0, lacking) / 2, high + max(0, lacking) / 2
            # A region that is cut off on one side goes on beyond the other
            shift = max(0, -low) - max(0, high - 1)
            spans.append((max(0.0, low + shift), min(1.0, high + shift)))
        return spans
