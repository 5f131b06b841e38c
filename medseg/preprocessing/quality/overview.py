"""A data set in numbers: cases, grids, intensities, classes and the parts of its split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medseg.io.case import Case, Dataset
from medseg.io.datasets.splits import SUBSETS, Split
from medseg.io.labels import LabelMap
from medseg.preprocessing.fingerprint.duplicates import subsets_of
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint
from medseg.preprocessing.quality.issues import Issue
from medseg.preprocessing.quality.outliers import Cases, sizes_of, small_component_size, small_components_of
from medseg.preprocessing.quality.warnings import size_of

Numbers = dict[str, Any]


def overview(dataset: Dataset, label_map: LabelMap, usable: Fingerprint, split: Split | None) -> Numbers:
    """Return the content of ``inspect.json``; grids and voxels are those of the ``usable`` cases only.

    Shapes are in voxels and spacings in mm (or pixels), both in network axes; volumes in ml, or in pixels of 2D images.
    """
    group = {case.id: case.group for case in dataset.cases}
    subsets = {subset: getattr(split, subset) for subset in SUBSETS if split}
    numbers: Numbers = {
        "cases": len(dataset.cases),
        "usable": len(usable.cases),
        "groups": len({*group.values()}),
        "labels": dict(label_map.labels),
        "split": {
            subset: {"cases": len(ids), "groups": len({group[name] for name in ids})} for subset, ids in subsets.items()
        }
        or None,
    }
    if not usable.cases:
        return numbers
    cases = usable.cases.values()
    return numbers | {
        "spatial_dims": usable.spatial_dims,
        "unit": usable.unit,
        "shape": spread([case.shape for case in cases]),
        "spacing": spread([case.spacing for case in cases]),
        "channels": channels(dataset, usable),
        "classes": classes(dataset.cases, label_map, usable),
        "masks": {name: masks_of(usable.cases, index) for index, name in enumerate(label_map.names) if index},
    }


def spread(values: ArrayLike) -> Numbers:
    """Return minimum, median and maximum of (N, ...) over its first axis."""
    array = np.asarray(values, dtype=float)
    statistics = {"min": array.min(axis=0), "median": np.median(array, axis=0), "max": array.max(axis=0)}
    return {name: np.round(value, 6).tolist() for name, value in statistics.items()}


def channels(dataset: Dataset, usable: Fingerprint) -> list[Numbers]:
    """Return name, modality and intensities of each channel.

    ``low``, ``median`` and ``high`` are the medians over the cases of the 0.5, 50 and 99.5 percentiles of their voxels,
    ``over_cases`` their minimum, median and maximum over the cases.
    """
    names, modality = dataset.channels or (), dataset.modality or ()
    modality = modality * usable.channels if len(modality) == 1 else modality
    quantiles = np.stack([case.quantiles for case in usable.cases.values()])  # (N, C, 5)
    rows = []
    for channel in range(usable.channels):
        of_cases = dict(zip(("low", "median", "high"), quantiles[:, channel, 1:4].T, strict=True))
        rows.append(
            {
                "name": names[channel] if channel < len(names) else None,
                "modality": modality[channel] if channel < len(modality) else None,
                "min": float(quantiles[:, channel, 0].min()),
                **{name: float(np.median(values)) for name, values in of_cases.items()},
                "max": float(quantiles[:, channel, 4].max()),
                "over_cases": {name: spread(values) for name, values in of_cases.items()},
            }
        )
    return rows


def classes(cases: Sequence[Case], label_map: LabelMap, usable: Fingerprint) -> dict[str, Numbers]:
    """Return for each foreground class and region in how many cases it is, of those annotated for it, and its size."""
    members: dict[str, tuple[int, ...]] = {name: (index,) for index, name in enumerate(label_map.names) if index}
    members |= {name: indices for name, indices in label_map.reported.items() if label_map.regions}
    annotated = {case.id: label_map.annotated(case.annotated) for case in cases}
    numbers = {}
    for name, indices in members.items():
        known = [case for case_id, case in usable.cases.items() if annotated[case_id][list(indices)].all()]
        volumes = [sum(size_of(case, index) for index in indices) for case in known]
        present = [volume for volume in volumes if volume]
        numbers[name] = {
            "is_region": name in (label_map.regions or {}),
            "n_known": len(known),
            "n_present": len(present),
            "volume": spread(present) if present else None,
        }
    return numbers


def masks_of(cases: Cases, index: int) -> Numbers:
    """Return what the masks of a class consist of: components, small ones, and what is outside the body.

    ``speck`` is the number of voxels up to which a component beside larger ones is small, ``specks`` counts these.
    """
    most = small_component_size(cases, index)
    components = [len(sizes) for case in cases.values() if len(sizes := sizes_of(case, index))]
    small = [len(small_components_of(case, index, most)) for case in cases.values()]
    outside = [int(case.outside[index]) for case in cases.values()]
    return {
        "components": spread(components) if components else None,
        "speck": most,
        "specks": {"n": sum(small), "n_cases": sum(map(bool, small))},
        "outside": {"voxels": sum(outside), "n_cases": sum(map(bool, outside))},
    }


def case_rows(
    dataset: Dataset, label_map: LabelMap, usable: Fingerprint, split: Split | None, issues: Sequence[Issue]
) -> list[Numbers]:
    """Return what is known of each case, in order; without grid and voxels where it cannot be used.

    ``intensities`` (C, 5) are minimum, 0.5, 50 and 99.5 percentile and maximum, ``sizes`` those of each class in ml or
    pixels.
    """
    part_of = subsets_of(split)
    kinds: dict[str, list[str]] = {case.id: [] for case in dataset.cases}
    for issue in issues:
        for name in issue.cases:
            kinds[name] += [issue.kind] if issue.kind not in kinds[name] else []
    return [
        {
            "id": case.id,
            "group": case.group,
            "part": part_of.get(case.id),
            **(described(usable.cases[case.id], label_map) if case.id in usable.cases else {}),
            "findings": kinds[case.id],
        }
        for case in dataset.cases
    ]


def described(case: CaseFingerprint, label_map: LabelMap) -> Numbers:
    """Return grid, intensities, and sizes and components of the classes of one case."""
    classes = [*enumerate(label_map.names)][1:]
    return {
        "shape": list(case.shape),
        "spacing": np.round(case.spacing, 6).tolist(),
        "intensities": case.quantiles.tolist(),
        "sizes": {name: round(size_of(case, index), 6) for index, name in classes},
        "components": {name: len(sizes_of(case, index)) for index, name in classes},
    }
