"""Predictions kept on disk, which can be scored with any choice of post-processing and thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.metrics.overlap import counts, dice
from medseg.evaluation.tuning import Choice, Scores, Space
from medseg.inference.predictor import Predictor
from medseg.inference.segmenter import EVEN, OF_CLASSES, Regions, Segmenter, make_segmenter
from medseg.io.case import Case
from medseg.io.datasets.annotations import read_labelled
from medseg.io.files.sizes import size_of
from medseg.io.labels import LabelMap
from medseg.io.warnings import told
from medseg.jobs.evaluate.quantised import decided, rungs_of
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
class Kept:
    """A case predicted once. Its file holds ``found`` and ``truth``, both cut to what is not background.

    ``found`` are class indices (*spatial) before post-processing, or of regions their rungs (R, *spatial). ``known``
    tells of each class or region whether it was annotated, ``bytes`` how large the arrays are.
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
    """What trials have in common: the classes, and the checkpoint's own options, which a choice is put over."""

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
        return {"threshold": EVEN if threshold is None else threshold} | {
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

    def keep(self, predictor: Predictor, case: Case, file: Path) -> Kept:
        """Predict a case and write down what scoring needs of it."""
        with told(), enough_memory(lambda: f"to read {size_of(case)}", TO_READ):
            scan, truth = read_labelled(case, self.label_map)
        prepared = predictor.prepare(scan)
        if self.regions is None:
            found = predictor.decide(prepared)
        else:
            found = np.zeros((len(self.regions.members), *scan.shape), np.uint8)
            predictor.decide(prepared, [partial(note_rungs, found, self.thresholds, self.regions)])
        if not self.postprocess["smooth_mm"]:  # a blur would feel where the arrays end
            box = filled_box([*found.reshape(-1, *scan.shape), truth])
            found, truth = found[(slice(None),) * (found.ndim - truth.ndim) + box], truth[box]
        with replacing(file) as temporary:
            np.savez_compressed(temporary, found=found, truth=truth)
        known = self.label_map.is_known(self.label_map.annotated(case.annotated))
        return Kept(file, scan.spacing, scan.unit, scan.voxel_volume, known, found.nbytes + truth.nbytes)

    def score(self, segmenter: Segmenter, kept: Kept) -> NDArray[np.float64]:
        """Return the Dice of each class or region (R,), 1 where both are empty, NaN where it was not annotated."""
        with np.load(kept.file) as arrays:
            found, truth = arrays["found"], arrays["truth"]
        if self.regions:
            found = decided(found, self.thresholds, segmenter.cuts, self.regions)
        indices = segmenter.clean(found, spacing=kept.spacing, unit=kept.unit, voxel_volume=kept.voxel_volume)
        reported = self.label_map.reported.values()
        scores = dice(counts(indices, truth, len(self.label_map.names), reported))
        return np.where(kept.known, np.nan_to_num(scores, nan=1.0), np.nan)

    def scores(self, kept: Sequence[Kept], choice: Choice) -> Scores:
        """Return the Dice of all cases (N, R) with a choice."""
        options = self.options(choice)
        segmenter = make_segmenter(options["inference"], options["postprocess"], self.label_map)
        work = COPIES * max(case.bytes for case in kept)
        return np.stack(list(in_parallel(partial(self.score, segmenter), kept, work)))


def note_rungs(found: NDArray[np.uint8], ladder: Sequence[float], regions: Regions, place: slice, scores: Any) -> None:
    """Write the rungs of a slab of probabilities into ``found`` (R, *spatial)."""
    found[..., place] = rungs_of(scores, ladder, regions).cpu().numpy()


def filled_box(arrays: Sequence[NDArray[np.uint8]]) -> tuple[slice, ...]:
    """Return the smallest box outside which all arrays of one shape are 0; one voxel where they are so everywhere."""
    anything = np.logical_or.reduce([array > 0 for array in arrays])
    spans = []
    for axis in range(anything.ndim):
        places = np.flatnonzero(anything.any(tuple(other for other in range(anything.ndim) if other != axis)))
        spans.append(slice(places[0], places[-1] + 1) if places.size else slice(0, 1))
    return tuple(spans)
