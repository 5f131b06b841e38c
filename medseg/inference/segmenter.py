"""From probabilities to a label map on the native grid, as validation and prediction both do it.

Options of single classes are in ``postprocess.classes``, such as ``{liver: {largest: true}}``, thresholds of single
regions in ``inference.thresholds``, such as ``{WT: 0.4}``. An option for all holds where a class has none of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.config.check import wrong
from medseg.config.schema import Overrides
from medseg.config.settings import KEYS_OF, InferenceSettings, PostprocessSettings
from medseg.errors import MedsegError, listing, nearest
from medseg.inference.postprocess import largest_together, postprocess
from medseg.inference.probabilities import Observer, Slabs
from medseg.io.labels import LabelMap
from medseg.system.memory import on_device_or_cpu

DEFAULT_THRESHOLD = 0.5
"""Threshold of a region without its own: from here on it is more likely there than not."""

OF_CLASSES = ("largest", "min_ml", "min_voxels", "fill_holes")
"""Options that may differ between classes; smoothing weighs them against each other."""

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Regions:
    """The class indices that make up each region, and the class that it is written as, in the order of writing.

    ``nested``: what lies outside a region is outside all that are parts of it. Else, as in nnU-Net, each is written
    wherever it was predicted, the later one over the earlier.
    """

    members: tuple[tuple[int, ...], ...]
    region_indices: tuple[int, ...]
    nested: bool = True

    @classmethod
    def of(cls, label_map: LabelMap) -> "Regions | None":
        """Return the regions of a label map, None where classes exclude each other."""
        if not label_map.regions:
            return None
        return cls(tuple(label_map.reported.values()), label_map.region_indices, label_map.nested)

    @property
    def are_disjoint(self) -> bool:
        """Whether a voxel is in one region at most: no two have a class in common, nor are written over each other."""
        return self.nested and all(set(one).isdisjoint(other) for one, other in combinations(self.members, 2))

    def paint(self, masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
        """Write masks (*spatial), one a region, one over the other, as class indices; nested ones are cut to nest."""
        indices = np.zeros(masks[0].shape, dtype=np.uint8)
        for mask, members, index in zip(masks, self.members, self.region_indices, strict=True):
            inside = mask
            for larger, other in zip(masks, self.members, strict=True):
                if self.nested and set(members) < set(other):
                    inside = inside & larger
            indices[inside] = index
        return indices


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """How probabilities become labels.

    Args:
        threshold: foreground where its probability (one minus the background's) exceeds this, the likeliest foreground
            class there; None: the likeliest of all classes. A region is where its own probability exceeds this; None:
            0.5.
        thresholds: of each region its own threshold; none: that of all.
        postprocess: arguments of ``medseg.inference.postprocess.postprocess``; of regions that overlap each is cleaned
            by itself, as the class of its number counted from one.
        regions: what the network's outputs are, where they are no classes that exclude each other.
        largest_of: groups of class indices. At the very end, one group after the other, only the largest component of
            its classes taken together stays.
    """

    threshold: float | None = None
    thresholds: Sequence[float] = ()
    postprocess: dict[str, Any] = field(default_factory=dict)
    regions: Regions | None = None
    largest_of: Sequence[Sequence[int]] = ()

    @property
    def overlapping(self) -> Regions | None:
        """The regions of which each is labelled by a mask of its own, since a voxel may be in several; None: none."""
        return self.regions if self.regions and not self.regions.are_disjoint else None

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
        predicted = self.predict_labels(slabs, native_shape)
        return self.clean(predicted, spacing=spacing, unit=unit, voxel_volume=voxel_volume)

    @torch.inference_mode()
    def predict_labels(
        self, slabs: Slabs, native_shape: Sequence[int], observers: Sequence[Observer] = ()
    ) -> NDArray[np.uint8]:
        """Return class indices (*native grid), or of regions that overlap a mask each (R, *native grid).

        ``observers`` are called with each slab: slices of the last native axis and the probabilities.
        """
        masks = [len(self.overlapping.members)] if self.overlapping else []
        labels = np.empty((*masks, *native_shape), dtype=np.uint8)
        label = self.above if self.overlapping else self.classes
        for slices, probs in slabs:
            for observer in observers:
                observer(slices, probs)
            labels[..., slices] = on_device_or_cpu(label, probs).cpu().numpy()
        return labels

    def clean(
        self,
        predicted: NDArray[np.uint8],
        *,
        spacing: Sequence[float],
        unit: Literal["mm", "px"],
        voxel_volume: float | None = None,
    ) -> NDArray[np.uint8]:
        """Return class indices (*native grid), post-processed, of what ``predict_labels`` returned."""

        def cleaned(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return postprocess(labels, tuple(spacing), unit, voxel_volume=voxel_volume, **self.postprocess)

        if not self.overlapping:
            return largest_together(cleaned(predicted), self.largest_of)
        masks = [cleaned(mask * np.uint8(number)) > 0 for number, mask in enumerate(predicted, 1)]
        return largest_together(self.overlapping.paint(masks), self.largest_of)

    def above(self, probs: Tensor) -> Tensor:
        """Return where the probabilities (R, *) of regions exceed their thresholds; bool (R, *)."""
        thresholds = self.thresholds or [DEFAULT_THRESHOLD if self.threshold is None else self.threshold]
        each = torch.tensor(thresholds, dtype=probs.dtype, device=probs.device)
        return probs > each.view(-1, *[1] * (probs.ndim - 1))

    def classes(self, probs: Tensor) -> Tensor:
        """Turn probabilities (K, *) of classes, or of regions that exclude each other, into class indices (*) uint8."""
        if self.regions:
            likeliest = probs.max(0).indices
            indices = torch.tensor(self.regions.region_indices, dtype=torch.uint8, device=probs.device)
            return indices[likeliest] * self.above(probs).gather(0, likeliest[None])[0]
        if self.threshold is None:
            return probs.argmax(0).to(torch.uint8)
        foreground = 1 - probs[0] > self.threshold
        return ((probs[1:].argmax(0) + 1) * foreground).to(torch.uint8)


def make_segmenter(
    inference: InferenceSettings,
    cleaning: PostprocessSettings,
    label_map: LabelMap,
    largest_of: Sequence[Sequence[int]] = (),
) -> Segmenter:
    """Return how probabilities become labels, by the user's settings; for ``largest_of`` see ``Segmenter``.

    Raises:
        MedsegError: an option of a class or region that there is not, or a value that it cannot have.
    """
    thresholds, classes = inference.thresholds, cleaning.classes
    if problems := threshold_problems(thresholds, label_map):
        raise MedsegError(f"these thresholds of regions are wrong:\n{listing(problems)}")
    if problems := class_problems(classes, label_map):
        raise MedsegError(f"these options of classes are wrong:\n{listing(problems)}")
    regions = Regions.of(label_map)
    # a class is cleaned by its index; regions that overlap are cleaned one by one, each by its number from one
    numbers: Sequence[int] = range(1, len(label_map.reported) + 1)
    if regions and regions.are_disjoint:
        numbers = regions.region_indices
    by_name = dict(zip(label_map.reported, numbers, strict=True))
    own = {by_name[name]: options for name, options in classes.items()}
    for_all = DEFAULT_THRESHOLD if inference.threshold is None else inference.threshold
    return Segmenter(
        threshold=inference.threshold,
        thresholds=tuple(thresholds.get(name, for_all) for name in label_map.regions or ()),
        postprocess={**vars(cleaning), "classes": own},
        regions=regions,
        largest_of=largest_of,
    )


def class_problems(classes: Options, label_map: LabelMap) -> list[str]:
    """Return what is wrong with ``postprocess.classes``: the options of each class or region."""
    problems = []
    for name, own in classes.items():
        where = f"postprocess.classes.{name}"
        if name not in label_map.reported:
            problems.append(f"{where}: {unknown(name, label_map)}")
        elif not isinstance(own, Mapping):
            problems.append(f"{where}={own!r}: must be a mapping, such as {{largest: true}}.")
        else:
            for option, value in own.items():
                key = KEYS_OF["train"][f"postprocess.{option}"] if option in OF_CLASSES else None
                allowed = f" Options of a class are {', '.join(OF_CLASSES)}." if key is None else ""
                if problem := wrong(f"{where}.{option}", key, value):
                    problems.append(f"{problem}{allowed}")
    return problems


def threshold_problems(thresholds: Options, label_map: LabelMap) -> list[str]:
    """Return what is wrong with ``inference.thresholds``: the threshold of each region."""
    problems = []
    for name, value in thresholds.items():
        where = f"inference.thresholds.{name}"
        if not label_map.regions:
            problems.append(f"{where}: the model has classes that exclude each other, and no regions.")
        elif name not in label_map.regions:
            problems.append(f"{where}: {unknown(name, label_map)}")
        elif problem := wrong(where, replace(KEYS_OF["train"]["inference.threshold"], null=""), value):
            problems.append(problem)
    return problems


def unknown(name: str, label_map: LabelMap) -> str:
    """Return the message for a name that is no class or region."""
    known = list(label_map.reported)
    return f"no class or region of the model.{nearest(str(name), known)} There are {', '.join(known)}."


def inference_over(overrides: Overrides, saved: InferenceSettings) -> InferenceSettings:
    """Return the settings that hold: the overrides that are not None, over those saved.

    A threshold for all regions takes the place of saved ones of single regions.
    """
    new = {name: value for name, value in overrides.items() if value is not None}
    return replace(saved, **({"thresholds": {}} if "threshold" in new else {}) | new)


def postprocess_over(overrides: Overrides, saved: PostprocessSettings) -> PostprocessSettings:
    """Return the settings that hold, likewise: an override for all replaces saved ones of classes."""
    new = {name: value for name, value in overrides.items() if value is not None}
    classes = {
        name: {option: value for option, value in own.items() if option not in new}
        for name, own in saved.classes.items()
    }
    return replace(saved, **{"classes": classes} | new)
