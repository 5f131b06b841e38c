"""The metrics of a report: their names, what they mean, and a case measured by them.

Empty masks, of every metric the same: where prediction and truth are both empty, nothing was to be found and nothing
was, so every metric is undefined (NaN), the volume difference excepted, which is 0. Where one of them is empty, metrics
of overlap are 0 and distances undefined: the summary counts these as missed, or ``Settings.missed_mm`` stands for them.
Shares are undefined where what they are shares of is empty.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from medseg.evaluation.overlap import dice, iou, precision, relative_difference, sensitivity
from medseg.io.labels import IGNORE

MARGIN = 4
"""Voxels round what is measured; the dilation of BraTS's rule takes three."""


@dataclass(frozen=True)
class Metric:
    """What a metric is called and means.

    ``unit`` is "" for shares, "mm" (px in pictures), "ml" (pixels in pictures) or "%"; ``better`` tells which values
    are wanted: higher, lower, or those near zero.
    """

    title: str
    unit: str
    better: Literal["higher", "lower", "zero"]
    definition: str
    source: str = ""


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    ``names`` are keys of ``METRICS``; ``nsd_mm`` is the tolerance of the surface Dice, in px for pictures; ``surface``
    the elements of surfaces; ``lesions`` the rule by which components belong together; ``missed_mm`` the distance
    where only one of the two masks is empty, None: undefined.
    """

    names: tuple[str, ...]
    nsd_mm: float = 1.0
    surface: Literal["elements", "voxel"] = "elements"
    lesions: Literal["overlap", "brats"] = "overlap"
    missed_mm: float | None = None


METRICS: dict[str, Metric] = {
    "dice": Metric(
        "Dice",
        "",
        "higher",
        "2|P∩G| / (|P| + |G|): twice the common voxels of prediction P and truth G over the sum of both.",
        "Dice, Ecology 26 (1945)",
    ),
    "iou": Metric(
        "IoU",
        "",
        "higher",
        "|P∩G| / |P∪G|: the common voxels over those of either.",
        "Jaccard, New Phytologist 11 (1912)",
    ),
    "sensitivity": Metric("sensitivity", "", "higher", "|P∩G| / |G|: the share of the truth that was found."),
    "precision": Metric("precision", "", "higher", "|P∩G| / |P|: the share of the prediction that is right."),
    "volume_difference": Metric(
        "volume difference", "ml", "zero", "|P| − |G|: how much larger the prediction is than the truth."
    ),
    "relative_volume_difference": Metric(
        "relative volume difference", "%", "zero", "100 · (|P| − |G|) / |G|: the same in percent of the truth."
    ),
}

PRESETS: dict[str, tuple[str, ...]] = {
    "basic": ("dice", "iou"),
    "full": ("dice", "iou", "sensitivity", "precision", "volume_difference", "relative_volume_difference"),
    "brats": ("dice", "sensitivity", "precision"),
}

Mask = NDArray[np.bool_]
Measured = dict[str, float]


def is_distance(name: str) -> bool:
    """Tell a metric that is a length: where one mask is empty there is none to measure."""
    return METRICS[name].unit == "mm"


def settings_of(node: dict[str, Any]) -> Settings:
    """Return the settings that the config's ``metrics`` node gives; the preset "brats" brings rules of its own.

    Presets may stand in a list, too. Dice is always measured, and first: runs and cases are ranked by it.
    """
    given = [node["names"]] if isinstance(node["names"], str) else node["names"]
    chosen = tuple(dict.fromkeys(["dice", *(name for item in given for name in PRESETS.get(item, (item,)))]))
    is_brats = "brats" in given
    return Settings(
        names=chosen,
        nsd_mm=node["nsd_mm"],
        surface=node["surface"],
        lesions=node["lesions"] or ("brats" if is_brats else "overlap"),
        missed_mm=node["missed_mm"] or (374.0 if is_brats else None),
    )


def measure_case(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    unions: Sequence[Sequence[int]],
    *,
    spacing: Sequence[float],
    voxel_size: float,
    settings: Settings,
) -> list[Measured]:
    """Measure each union of class indices of a case; voxels whose truth is IGNORE belong to none.

    ``prediction`` and ``truth`` hold class indices (*spatial), ``spacing`` is in mm (1 in pictures), ``voxel_size`` in
    ml (1 in pictures). Each union is measured on the box that holds it, so that 100 organs do not take 100 volumes.
    """
    unknown = truth == IGNORE
    if unknown.any():
        prediction, truth = np.where(unknown, 0, prediction), np.where(unknown, 0, truth)
    boxes = [find_objects(mask) for mask in (prediction, truth)]
    measured = []
    for union in unions:
        box = _box_round([found[index - 1] for found in boxes for index in union if 0 < index <= len(found)], truth)
        masks = (np.isin(mask[box], union) for mask in (prediction, truth))
        measured.append(measure(*masks, spacing=spacing, voxel_size=voxel_size, settings=settings))
    return measured


def measure(
    prediction: Mask, truth: Mask, *, spacing: Sequence[float], voxel_size: float, settings: Settings
) -> Measured:
    """Measure one mask (*spatial) against another, by the metrics that the settings name; NaN is undefined.

    What lies outside the arrays is background.
    """
    found: Measured = {}
    for names, family in FAMILIES.items():
        if set(names) & set(settings.names):
            found |= family(prediction, truth, spacing, voxel_size, settings)
    return {name: found[name] for name in settings.names}


def _overlaps(
    prediction: Mask, truth: Mask, spacing: Sequence[float], voxel_size: float, settings: Settings
) -> Measured:
    sizes = [int(np.count_nonzero(mask)) for mask in (prediction & truth, prediction, truth)]
    counts = np.array(sizes, np.int64)
    return {
        "dice": float(dice(counts)),
        "iou": float(iou(counts)),
        "sensitivity": float(sensitivity(counts)),
        "precision": float(precision(counts)),
        "volume_difference": float(f"{(sizes[1] - sizes[2]) * voxel_size:.9g}"),  # without rounding noise
        "relative_volume_difference": float(relative_difference(counts)),
    }


Family = Callable[[Mask, Mask, Sequence[float], float, Settings], Measured]
FAMILIES: dict[tuple[str, ...], Family] = {
    ("dice", "iou", "sensitivity", "precision", "volume_difference", "relative_volume_difference"): _overlaps
}
"""Metrics that are computed together."""


def _box_round(parts: Sequence[tuple[slice, ...] | None], volume: NDArray[Any]) -> tuple[slice, ...]:
    """The box round some boxes, ``MARGIN`` larger as far as the volume goes; an empty one where there are none."""
    boxes = [part for part in parts if part is not None]
    if not boxes:
        return tuple(slice(0, 1) for _ in volume.shape)
    return tuple(
        slice(max(0, min(span.start for span in spans) - MARGIN), min(size, max(span.stop for span in spans) + MARGIN))
        for spans, size in zip(zip(*boxes, strict=True), volume.shape, strict=True)
    )
