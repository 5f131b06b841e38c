"""Predictions kept on disk, which can be scored with any choice of post-processing and thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.config.schema import typed
from medseg.config.settings import InferenceSettings, PostprocessSettings
from medseg.evaluation.metrics.overlap import counts, dice
from medseg.evaluation.tuning import Choice, Scores, Space
from medseg.inference.predictor import Predictor
from medseg.inference.segmenter import DEFAULT_THRESHOLD, OF_CLASSES, Regions, Segmenter, make_segmenter
from medseg.io.case import Case
from medseg.io.datasets.annotations import read_labelled
from medseg.io.files.sizes import size_of
from medseg.io.grids.grid import bounding_box
from medseg.io.labels import LabelMap
from medseg.io.warnings import logged
from medseg.system.files import replacing
from medseg.system.memory import TO_READ, enough_memory
from medseg.system.parallel import in_parallel

Node = dict[str, Any]

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
ON_OR_OFF = (True, False)
MILLILITRES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
PIXELS = (0, 10, 30, 100, 300, 1000)
COPIES = 10
"""Memory that scoring a case takes, in sizes of its arrays; components are numbered in 32 bits."""


@dataclass(frozen=True)
class Prediction:
    """A case predicted once. Its file holds ``predicted`` and ``reference``, both cut to what is not background.

    ``predicted`` are class indices (*spatial) before post-processing, or of regions ``quantised`` (R, *spatial).
    ``known`` says of each class or region whether it was annotated, ``bytes`` how large the arrays are.
    """

    file: Path
    spacing: tuple[float, ...]
    unit: Literal["mm", "px"]
    voxel_volume: float
    known: NDArray[np.bool_]
    bytes: int

    @property
    def has_volume(self) -> bool:
        """Whether sizes can be given in ml."""
        return self.unit == "mm" and len(self.spacing) == 3


@dataclass(frozen=True)
class Trials:
    """What all trials share: the classes, and the checkpoint's own options, which a choice overrides."""

    label_map: LabelMap
    inference: Node
    postprocess: Node

    @property
    def regions(self) -> Regions | None:
        """The model's regions."""
        return Regions.of(self.label_map)

    @property
    def common(self) -> Node:
        """The options of all classes without their own."""
        threshold = self.inference["threshold"]
        return {"threshold": DEFAULT_THRESHOLD if threshold is None else threshold} | {
            name: self.postprocess[name] for name in OF_CLASSES
        }

    @property
    def start(self) -> Choice:
        """The options that single classes have already."""
        choice: Choice = {name: dict(own) for name, own in self.postprocess["classes"].items()}
        for name, threshold in self.inference["thresholds"].items():
            choice[name] = {**choice.get(name, {}), "threshold": threshold}
        return choice

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds to try, rising, with those that hold now."""
        own = self.inference["thresholds"].values()
        return tuple(sorted({*THRESHOLDS, self.common["threshold"], *own}))

    def space(self, *, has_volume: bool) -> Space:
        """Return what may be chosen, for scans whose voxels have a volume or for pictures."""
        sizes: dict[str, Sequence[Any]] = {"min_ml": MILLILITRES} if has_volume else {"min_voxels": PIXELS}
        ladders = {"largest": ON_OR_OFF, "fill_holes": ON_OR_OFF, **sizes}
        ladders = {"threshold": self.thresholds, **ladders} if self.regions else ladders
        independent = self.regions is None or self.regions.are_disjoint
        return Space(names=list(self.label_map.reported), ladders=ladders, common=self.common, independent=independent)

    def options(self, choice: Choice) -> dict[str, Node]:
        """Return the nodes ``inference`` and ``postprocess`` with a choice in them."""
        thresholds = {name: own["threshold"] for name, own in choice.items() if "threshold" in own}
        classes = {name: {key: own[key] for key in OF_CLASSES if key in own} for name, own in choice.items()}
        return {
            "inference": {**self.inference, "thresholds": thresholds},
            "postprocess": {**self.postprocess, "classes": {name: own for name, own in classes.items() if own}},
        }

    def keep(self, predictor: Predictor, case: Case, file: Path) -> Prediction:
        """Predict a case and write what scoring needs of it into a file."""
        with logged(), enough_memory(lambda: f"to read {size_of(case)}", TO_READ):
            scan, reference = read_labelled(case, self.label_map)
        prepared = predictor.prepare(scan)
        if self.regions is None:
            predicted = predictor.predict_labels(prepared)
        else:
            regions, levels = self.regions, np.zeros((len(self.regions.members), *scan.shape), np.uint8)

            def quantise(where: slice, probs: Tensor) -> None:
                levels[..., where] = quantised(probs, self.thresholds, regions).cpu().numpy()

            predictor.predict_labels(prepared, [quantise])
            predicted = levels
        if not self.postprocess["smooth_mm"]:  # a blur would feel where the arrays end
            box = filled_box([*predicted.reshape(-1, *scan.shape), reference])
            predicted, reference = predicted[(slice(None),) * (predicted.ndim - reference.ndim) + box], reference[box]
        with replacing(file) as temporary:
            np.savez_compressed(temporary, predicted=predicted, reference=reference)
        known = self.label_map.is_known(self.label_map.annotated(case.annotated))
        return Prediction(file, scan.spacing, scan.unit, scan.voxel_volume, known, predicted.nbytes + reference.nbytes)

    def score(self, segmenter: Segmenter, case: Prediction) -> NDArray[np.float64]:
        """Return the Dice of each class or region (R,), 1 where both are empty, NaN where it was not annotated."""
        with np.load(case.file) as arrays:
            predicted, reference = arrays["predicted"], arrays["reference"]
        if self.regions:
            predicted = masks_of(predicted, self.thresholds, segmenter.thresholds, self.regions)
        indices = segmenter.clean(predicted, spacing=case.spacing, unit=case.unit, voxel_volume=case.voxel_volume)
        reported = self.label_map.reported.values()
        scores = dice(counts(indices, reference, len(self.label_map.names), reported))
        return np.where(case.known, np.nan_to_num(scores, nan=1.0), np.nan)

    def scores(self, predictions: Sequence[Prediction], choice: Choice) -> Scores:
        """Return the Dice of all cases (N, R) with a choice."""
        options = self.options(choice)
        inference = typed(InferenceSettings, options["inference"])
        segmenter = make_segmenter(inference, typed(PostprocessSettings, options["postprocess"]), self.label_map)
        work = COPIES * max(case.bytes for case in predictions)
        return np.stack(list(in_parallel(partial(self.score, segmenter), predictions, work)))


def filled_box(arrays: Sequence[NDArray[np.uint8]]) -> tuple[slice, ...]:
    """Return the smallest box outside which all arrays of one shape are 0; one voxel where they are so everywhere."""
    anything = np.logical_or.reduce([array > 0 for array in arrays])
    return bounding_box(anything) if anything.any() else (slice(0, 1),) * anything.ndim


def quantised(probs: Tensor, thresholds: Sequence[float], regions: Regions) -> Tensor:
    """Return uint8 (R, *) of probabilities (R, *): how many of the rising thresholds each exceeds.

    This is all that masks at any of these thresholds need, in a byte a voxel. Of regions that exclude each other, all
    but the likeliest are 0.
    """
    levels = torch.zeros(probs.shape, dtype=torch.uint8, device=probs.device)
    for threshold in thresholds:
        levels += probs > threshold
    if regions.are_disjoint:
        levels *= torch.zeros_like(levels).scatter_(0, probs.max(0).indices[None], 1)
    return levels


def masks_of(
    levels: NDArray[np.uint8], thresholds: Sequence[float], chosen: Sequence[float], regions: Regions
) -> NDArray[np.uint8]:
    """Return ``Segmenter.predict_labels`` at the ``chosen`` thresholds, one a region and each in ``thresholds``.

    ``levels`` is (R, *spatial). Returns a mask of each region (R, *spatial), or class indices (*spatial) of regions
    that exclude each other; uint8.
    """
    above = [level > thresholds.index(threshold) for level, threshold in zip(levels, chosen, strict=True)]
    masks = np.stack(above).view(np.uint8)
    if not regions.are_disjoint:
        return masks
    classes = np.array(regions.region_indices, np.uint8).reshape(-1, *[1] * (levels.ndim - 1))
    return (masks * classes).max(0)  # at most one of them is not 0
