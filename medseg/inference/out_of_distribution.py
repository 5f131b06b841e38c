"""Is a scan like those that a model was trained on? Ranges recorded in training, and what a new scan has outside them.

A flag says that nobody knows how good the mask is, not that it is wrong; no flag does not say that it is right.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg.io.case import Scan
from medseg.io.labels import LabelMap
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint, quantiles
from medseg.preprocessing.geometry import whole

Ranges = dict[str, list[float]]
"""For each quantity the lowest and the highest value in training, and the limits of what counts as in distribution."""

FEWEST = 5
"""Training cases below which nothing can be said."""
FACTOR = 1.5
"""Lengths and volumes so many times smaller or larger than in training are always in distribution."""
SHARE = 0.15
"""So are intensities beyond those in training by this share of the range from dark to bright."""
ABSOLUTE = ("ct", "none")
"""Normalisations to which an intensity is the same in every scan."""


class Measured(NamedTuple):
    """A value, and the least tolerance beyond the training cases; None: ``FACTOR``."""

    value: float
    margin: float | None = None


def training_ranges(fingerprint: Fingerprint, label_map: LabelMap, normalize: Sequence[str]) -> Ranges:
    """Return the ranges of what can be measured of scans and masks, over the training cases; none of too few.

    In distribution is what lies between the lowest and the highest value, or beyond them by at most the spread of the
    middle eight tenths of the cases. Lengths and volumes are compared by their logarithms. Classes that some cases lack
    may be absent; of the others, 0 is out of distribution.

    ``normalize`` names the normalisation of each channel: what it makes equal is not compared.
    """
    cases = list(fingerprint.cases.values())
    if len(cases) < FEWEST:
        return {}
    measured = [
        of_image(case.shape, case.spacing, case.unit, case.quantiles, normalize)
        | of_voxels(voxels_of(case, label_map), case.unit, len(case.shape), case.voxel_volume)
        for case in cases
    ]
    ranges = {name: range_of([each[name] for each in measured]) for name in measured[0]}
    return {name: limits for name, limits in ranges.items() if limits}


def reasons(ranges: Ranges, measured: Mapping[str, Measured]) -> dict[str, str]:
    """Return in words what a scan has outside the ranges, by the name of the quantity."""
    return {
        name: f"{name} is {measured[name].value:.4g}, in training {low:.4g} to {high:.4g}"
        for name, (low, high, least, most) in ranges.items()
        if name in measured and not least <= measured[name].value <= most
    }


def shared_reasons(models: Sequence[Ranges], measured: Mapping[str, Measured]) -> str:
    """Return in words what a scan has outside the ranges of every model of an ensemble; nothing where it is alike."""
    each = [reasons(ranges, measured) for ranges in models]
    return "; ".join(text for name, text in each[0].items() if all(name in other for other in each))


def of_scan(scan: Scan, absent: Collection[int] = ()) -> dict[str, Measured]:
    """Measure a scan as the training cases were measured, by all that any model could compare.

    ``absent`` holds the indices of channels without a file.
    """
    methods = [None if channel in absent else "none" for channel in range(len(scan.image))]
    order = whole(scan.affine, scan.shape).order
    shape, spacing = tuple(scan.shape[axis] for axis in order), tuple(scan.spacing[axis] for axis in order)
    return of_image(shape, spacing, scan.unit, quantiles(scan), methods)


def of_image(
    shape: Sequence[int],
    spacing: Sequence[float],
    unit: str,
    levels: NDArray[np.float32],
    normalize: Sequence[str | None],
) -> dict[str, Measured]:
    """Measure an image, by words that begin a sentence.

    ``shape`` and ``spacing`` are in network axes, ``levels`` the intensities (C, 5) at ``fingerprint.QUANTILES``.
    Channels whose normalisation is None are left out.
    """
    axes = ("left-right", "front-back", "head-foot") if unit == "mm" else ("first", "second")
    measured = {}
    for axis, voxels, step in zip(axes, shape, spacing, strict=False):
        measured[f"the {axis} extent in {unit}"] = Measured(voxels * step)
        if unit == "mm":
            measured[f"the {axis} spacing in mm"] = Measured(step)
    for channel, (method, (_, dark, middle, bright, _)) in enumerate(zip(normalize, levels.tolist(), strict=True), 1):
        if method is None:
            continue
        width = bright - dark
        position = (middle - dark) / width if width else 0.0
        measured[f"where the median of channel {channel} lies from dark (0) to bright (1)"] = Measured(position, SHARE)
        for name, value in (("dark", dark), ("median", middle), ("bright", bright)) if method in ABSOLUTE else ():
            measured[f"the {name} intensity of channel {channel}"] = Measured(value, SHARE * width)
    return measured


def of_voxels(voxels: Mapping[str, int], unit: str, dims: int, voxel_volume: float) -> dict[str, Measured]:
    """Measure the classes, or regions, of a mask from their voxels; ``voxel_volume`` is in mm³, or mm² in 2D."""
    name, size = ("px", 1.0) if unit == "px" else ("mm²", voxel_volume) if dims == 2 else ("ml", voxel_volume / 1000)
    return {f"{each} in {name}": Measured(number * size) for each, number in voxels.items()}


def voxels_of(case: CaseFingerprint, label_map: LabelMap) -> dict[str, int]:
    """Return the voxels of each class, or region, of a training case."""
    return {name: int(case.voxels[list(members)].sum()) for name, members in label_map.reported.items()}


def range_of(measured: Sequence[Measured]) -> list[float]:
    """Return lowest, highest, least and most of a quantity; nothing of a class that no case has."""
    values = np.array([each.value for each in measured])
    margins = [each.margin for each in measured if each.margin is not None]
    if margins:
        return widened(values, float(np.median(margins)))
    there = values[values > 0]
    if not len(there):
        return []
    low, high, least, most = (math.exp(value) for value in widened(np.log(there), math.log(FACTOR)))
    return [low, high, least, most] if len(there) == len(values) else [0.0, high, 0.0, most]


def widened(values: NDArray[np.float64], margin: float) -> list[float]:
    """Return the lowest and the highest value, and both moved outwards, at least by ``margin``."""
    low, high = float(values.min()), float(values.max())
    outwards = max(margin, float(np.subtract(*np.quantile(values, (0.9, 0.1)))))
    return [low, high, low - outwards, high + outwards]
