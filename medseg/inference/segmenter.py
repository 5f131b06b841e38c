"""From probabilities to a label map on the native grid, as validation and prediction both do it.

Options of single classes are in ``postprocess.classes``, such as ``{liver: {largest: true}}``, thresholds of single
regions in ``inference.thresholds``, such as ``{WT: 0.4}``. An option for all holds where a class has none of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.config.check import wrong
from medseg.config.schema import KEYS
from medseg.errors import MedsegError, listing, nearest
from medseg.inference.postprocess import largest_together, postprocess
from medseg.inference.probabilities import Slabs, Watch
from medseg.io.labels import LabelMap
from medseg.system.memory import on_device_or_cpu


@dataclass(frozen=True)
class Regions:
    """The class indices that make up each region, and the class that it is painted with, in the order of painting.

    ``nested``: what lies outside a region is outside all that are parts of it. Else, as in nnU-Net, each is painted
    wherever it is found, the later one over the earlier.
    """

    members: tuple[tuple[int, ...], ...]
    painted: tuple[int, ...]
    nested: bool = True

    @classmethod
    def of(cls, label_map: LabelMap) -> "Regions | None":
        """Return the regions of a label map, None where classes exclude each other."""
        if not label_map.regions:
            return None
        return cls(tuple(label_map.reported.values()), label_map.painted, label_map.nested)

    @property
    def are_disjoint(self) -> bool:
        """Tell whether a voxel is in one region at most: no two have a class in common, nor are painted over."""
        return self.nested and all(set(one).isdisjoint(other) for one, other in combinations(self.members, 2))

    def paint(self, masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
        """Paint masks (*spatial), one a region, one over the other, as class indices.

        First they are made to nest, where they are nested.
        """
        indices = np.zeros(masks[0].shape, dtype=np.uint8)
        for place, index in enumerate(self.painted):
            inside = masks[place]
            for other in self._larger(place):
                inside = inside & masks[other]
            indices[inside] = index
        return indices

    def _larger(self, place: int) -> list[int]:
        """The regions that a region is a part of."""
        mine = set(self.members[place])
        return [other for other, members in enumerate(self.members) if self.nested and mine < set(members)]


EVEN = 0.5
"""Probability from which a region is as likely to be there as not."""


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


Options = Mapping[str, Any]

OF_CLASSES = ("largest", "min_ml", "min_voxels", "fill_holes")
"""What may differ between classes; smoothing weighs them against each other."""


def inference_over(given: Options, saved: Options) -> dict[str, Any]:
    """Return the ``inference`` options that hold: those given, where they are not None, over those saved.

    A threshold given for all regions takes the place of saved ones of single regions.
    """
    new = {name: value for name, value in given.items() if value is not None}
    return {**saved, **({"thresholds": {}} if "threshold" in new else {}), **new}


def postprocess_over(given: Options, saved: Options) -> dict[str, Any]:
    """Return the ``postprocess`` options that hold, likewise: one given for all replaces saved ones of classes."""
    new = {name: value for name, value in given.items() if value is not None}
    classes = {
        name: {option: value for option, value in own.items() if option not in new}
        for name, own in saved.get("classes", {}).items()
    }
    return {**saved, "classes": classes, **new}


def by_number(postprocess: Options, label_map: LabelMap) -> dict[str, Any]:
    """Return ``postprocess`` options with the classes by the number that each has when it is cleaned.

    That is the class index; of regions that overlap, which are cleaned one by one, their place, counted from one.

    Raises:
        MedsegError: an option of a class that there is not, or a value that it cannot have.
    """
    classes = postprocess.get("classes") or {}
    if problems := list(_class_problems(classes, label_map)):
        raise MedsegError(f"these options of classes are wrong:\n{listing(problems)}")
    numbers = dict(zip(label_map.reported, _numbers(label_map), strict=True))
    return {**postprocess, "classes": {numbers[name]: own for name, own in classes.items()}}


def cuts(inference: Options, label_map: LabelMap, even: float) -> tuple[float, ...]:
    """Return the probability above which each region is there, ``even`` where none is given; nothing without regions.

    Raises:
        MedsegError: a threshold of a region that there is not, or one that is no probability.
    """
    own = inference.get("thresholds") or {}
    if problems := list(_threshold_problems(own, label_map)):
        raise MedsegError(f"these thresholds of regions are wrong:\n{listing(problems)}")
    of_all: float = even if inference["threshold"] is None else inference["threshold"]
    return tuple(own.get(name, of_all) for name in label_map.regions or ())


def _numbers(label_map: LabelMap) -> tuple[int, ...]:
    regions = Regions.of(label_map)
    if regions is None:
        return tuple(range(1, len(label_map.names)))
    return regions.painted if regions.are_disjoint else tuple(range(1, len(regions.members) + 1))


def _class_problems(classes: Mapping[str, Any], label_map: LabelMap) -> Iterator[str]:
    for name, own in classes.items():
        where = f"postprocess.classes.{name}"
        if name not in label_map.reported:
            yield f"{where}: {_unknown(name, label_map)}"
        elif not isinstance(own, Mapping):
            yield f"{where}={own!r}: must be a mapping, such as {{largest: true}}."
        else:
            for option, value in own.items():
                key = KEYS[f"postprocess.{option}"] if option in OF_CLASSES else None
                allowed = f" Options of a class are {', '.join(OF_CLASSES)}." if key is None else ""
                yield from (f"{text}{allowed}" for text in [wrong(f"{where}.{option}", key, value)] if text)


def _threshold_problems(thresholds: Mapping[str, Any], label_map: LabelMap) -> Iterator[str]:
    for name, value in thresholds.items():
        where = f"inference.thresholds.{name}"
        if not label_map.regions:
            yield f"{where}: the model has classes that exclude each other, and no regions."
        elif name not in label_map.regions:
            yield f"{where}: {_unknown(name, label_map)}"
        elif text := wrong(where, KEYS["inference.threshold"], value):
            yield text


def _unknown(name: str, label_map: LabelMap) -> str:
    known = list(label_map.reported)
    return f"no class or region of the model.{nearest(str(name), known)} There are {', '.join(known)}."
