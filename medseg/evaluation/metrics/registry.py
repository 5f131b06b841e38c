"""The metrics of a report: their names, what they mean, and a case measured by them.

Empty masks, of every metric the same: where prediction and ground truth are both empty, there is nothing to
find, so every metric is undefined (NaN), the volume difference excepted, which is 0. Where one of them is empty,
metrics of overlap are 0 and distances undefined: the summary counts these as missed, or ``Settings.missed_mm`` stands
for them. Shares are undefined where what they are shares of is empty. Under BraTS's rule, which leaves small lesions
out, the metrics of lesions take a ground truth of nothing else for an empty one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from medseg.config.settings import MetricsSettings
from medseg.evaluation.metrics import lesions
from medseg.evaluation.metrics.boxes import around
from medseg.evaluation.metrics.centerlines import cldice
from medseg.evaluation.metrics.overlap import dice, iou, precision, relative_difference, sensitivity
from medseg.evaluation.metrics.surfaces import assd, hd95, nsd, surface_distances
from medseg.io.labels import IGNORE

MARGIN = 4
"""Voxels round what is measured; the dilation of BraTS's rule takes three."""


@dataclass(frozen=True)
class Metric:
    """What a metric is called and means.

    ``unit`` is "" for shares, "mm" (px in 2D images), "ml" (pixels in 2D images) or "%"; ``better`` says which values
    are good: higher, lower, or those near zero.
    """

    title: str
    unit: str
    better: Literal["higher", "lower", "zero"]
    definition: str
    source: str = ""


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    ``names`` are keys of ``METRICS``; ``nsd_mm`` is the tolerance of the surface Dice, in px for 2D images; ``surface``
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
        "2|P∩G| / (|P| + |G|): twice the common voxels of prediction P and ground truth G over the sum of both.",
        "Dice, Ecology 26 (1945)",
    ),
    "iou": Metric(
        "IoU",
        "",
        "higher",
        "|P∩G| / |P∪G|: the common voxels over those of either.",
        "Jaccard, New Phytologist 11 (1912)",
    ),
    "sensitivity": Metric("sensitivity", "", "higher", "|P∩G| / |G|: the share of the ground truth that was found."),
    "precision": Metric("precision", "", "higher", "|P∩G| / |P|: the share of the prediction that is right."),
    "volume_difference": Metric(
        "volume difference", "ml", "zero", "|P| − |G|: how much larger the prediction is than the ground truth."
    ),
    "relative_volume_difference": Metric(
        "relative volume difference", "%", "zero", "100 · (|P| − |G|) / |G|: the same in percent of the ground truth."
    ),
    "hd95": Metric(
        "HD95",
        "mm",
        "lower",
        "95 % of the predicted surface lies within this distance of the true one, and 95 % of the true one of the "
        "predicted one: the larger of both 95th percentiles.",
        "Huttenlocher et al., IEEE TPAMI 15 (1993)",
    ),
    "assd": Metric(
        "ASSD",
        "mm",
        "lower",
        "Average symmetric surface distance: the mean distance to the other surface, over both surfaces together.",
        "Heimann et al., IEEE TMI 28 (2009)",
    ),
    "nsd": Metric(
        "NSD",
        "",
        "higher",
        "Normalised surface Dice: the share of both surfaces together that lies within the tolerance (metrics.nsd_mm) "
        "of the other one.",
        "Nikolov et al., J Med Internet Res 23 (2021)",
    ),
    "cldice": Metric(
        "clDice",
        "",
        "higher",
        "The harmonic mean of two shares: of the predicted centreline that lies in the ground truth, and of the true "
        "centreline that lies in the prediction.",
        "Shit et al., CVPR (2021)",
    ),
    "lesion_dice": Metric(
        "lesion Dice",
        "",
        "higher",
        "The mean Dice of the lesions, each with all connected components of the prediction that belong to it; a "
        "missed lesion and a component that belongs to none count as 0. metrics.lesions says what belongs together.",
        "Saluja et al., BraTS 2023",
    ),
    "lesion_sensitivity": Metric(
        "lesion sensitivity", "", "higher", "The share of the lesions that are found: some component belongs to them."
    ),
    "lesion_precision": Metric(
        "lesion precision", "", "higher", "The share of the prediction's connected components that belong to a lesion."
    ),
    "lesion_f1": Metric("lesion F1", "", "higher", "The harmonic mean of lesion sensitivity and lesion precision."),
    "lesion_hd95": Metric(
        "lesion HD95",
        "mm",
        "lower",
        "The mean HD95 of the lesions, each with all connected components of the prediction that belong to it; a "
        "missed lesion and a component that belongs to none count as metrics.missed_mm, or not at all without it.",
        "Saluja et al., BraTS 2023",
    ),
}

PRESETS: dict[str, tuple[str, ...]] = {
    "basic": ("dice", "iou"),
    "full": tuple(name for name in METRICS if name != "lesion_hd95"),
    "brats": ("dice", "sensitivity", "precision", "hd95", "lesion_dice", "lesion_hd95"),
}

WORDS_2D = {
    r"\bvolume\b": "area",
    r"\bvoxels\b": "pixels",
    r"\ba lesion\b": "an object",
    r"(?<!metrics\.)\blesion(s?)\b": r"object\1",
}
"""What reports of 2D images call what they call by the words of volumes elsewhere; ``metrics.lesions`` is a key."""

Mask = NDArray[np.bool_]
Measured = dict[str, float]


def is_distance(name: str) -> bool:
    """Tell a metric that is a length: where one mask is empty there is none to measure."""
    return METRICS[name].unit == "mm"


def worded(text: str, unit: str) -> str:
    """Return a text of reports in the words that fit what was measured: of 2D images (``unit`` "px") those of pictures.

    >>> worded("lesion F1; a lesion by metrics.lesions; volume difference", "px")
    'object F1; an object by metrics.lesions; area difference'
    """
    for pattern, word in WORDS_2D.items() if unit == "px" else ():
        text = re.sub(pattern, word, text)
    return text


def settings_of(chosen: MetricsSettings) -> Settings:
    """Return what the user's settings come to; the preset "brats" brings rules of its own.

    Presets may stand in a list, too. Dice is always measured, and first: runs and cases are ranked by it.
    """
    names = dict.fromkeys(["dice", *(name for item in chosen.names for name in PRESETS.get(item, (item,)))])
    is_brats = "brats" in chosen.names
    return Settings(
        names=tuple(names),
        nsd_mm=chosen.nsd_mm,
        surface=chosen.surface,
        lesions=chosen.lesions or ("brats" if is_brats else "overlap"),
        missed_mm=chosen.missed_mm or (374.0 if is_brats else None),
    )


def measure_case(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    unions: Sequence[Sequence[int]],
    *,
    spacing: Sequence[float],
    voxel_size: float,
    settings: Settings,
) -> list[Measured]:
    """Measure each union of class indices of a case; voxels whose ground truth is IGNORE belong to none.

    ``prediction`` and ``reference`` hold class indices (*spatial), ``spacing`` is in mm (1 in 2D images),
    ``voxel_size`` in ml (1 in 2D images). Each union is measured on the box that holds it, so that 100 organs do not
    take 100 volumes. A volume of one slice is measured as a 2D image is: its surface is the outline, not the slice's
    two sides.
    """
    if reference.ndim == 3 and 1 in reference.shape:
        flat = reference.shape.index(1)
        prediction, reference = prediction.squeeze(flat), reference.squeeze(flat)
        spacing = [*spacing[:flat], *spacing[flat + 1 :]]
    unknown = reference == IGNORE
    if unknown.any():
        prediction, reference = np.where(unknown, 0, prediction), np.where(unknown, 0, reference)
    boxes = [find_objects(mask) for mask in (prediction, reference)]
    measured = []
    for union in unions:
        of_union = [of_mask[index - 1] for of_mask in boxes for index in union if 0 < index <= len(of_mask)]
        there = [box for box in of_union if box is not None]
        box = around(there, MARGIN) if there else tuple(slice(0, 1) for _ in reference.shape)  # one voxel
        masks = (np.isin(mask[box], union) for mask in (prediction, reference))
        measured.append(measure(*masks, spacing=spacing, voxel_size=voxel_size, settings=settings))
    return measured


def measure(
    prediction: Mask, reference: Mask, *, spacing: Sequence[float], voxel_size: float, settings: Settings
) -> Measured:
    """Measure one mask (*spatial) against another, by the metrics that the settings name; NaN is undefined.

    What lies outside the arrays is background. ``spacing`` is in mm (1 in 2D images), ``voxel_size`` in ml (1 in
    2D images).
    """
    names = set(settings.names)
    if not (prediction.any() or reference.any()):
        return {name: 0.0 if name == "volume_difference" else nan for name in settings.names}
    are_both = bool(prediction.any() and reference.any())
    step = tuple(map(float, spacing))
    sizes = [int(np.count_nonzero(mask)) for mask in (prediction & reference, prediction, reference)]
    counts = np.array(sizes, np.int64)
    values = {
        "dice": float(dice(counts)),
        "iou": float(iou(counts)),
        "sensitivity": float(sensitivity(counts)),
        "precision": float(precision(counts)),
        "volume_difference": float(f"{(sizes[1] - sizes[2]) * voxel_size:.9g}"),  # without rounding noise
        "relative_volume_difference": float(relative_difference(counts)),
    }
    if names & {"hd95", "assd", "nsd"}:
        if are_both:
            pair = surface_distances(prediction, reference, step, settings.surface)
            values |= {"hd95": hd95(pair), "assd": assd(pair), "nsd": nsd(pair, settings.nsd_mm)}
        else:
            missed = nan if settings.missed_mm is None else settings.missed_mm
            values |= {"hd95": missed, "assd": missed, "nsd": 0.0}
    if "cldice" in names:
        values["cldice"] = cldice(prediction, reference) if are_both else 0.0
    if any(name.startswith("lesion_") for name in names):
        matched = lesions.match(prediction, reference, step, lesions.RULES[settings.lesions])
        values |= {
            "lesion_dice": lesions.lesion_dice(matched),
            "lesion_sensitivity": lesions.sensitivity(matched),
            "lesion_precision": lesions.precision(matched),
            "lesion_f1": lesions.f1(matched),
        }
        if "lesion_hd95" in names:  # takes longer than the others together
            values["lesion_hd95"] = lesions.lesion_hd95(matched, settings.missed_mm, settings.surface)
    return {name: values[name] for name in settings.names}
