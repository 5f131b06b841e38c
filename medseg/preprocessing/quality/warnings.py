"""What is worth a look in cases that can be read and learned from: slips in masks, sizes, headers, splits."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from medseg.io.datasets.splits import SUBSETS, Split
from medseg.io.grids.grid import TOLERANCE
from medseg.io.labels import LabelMap
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint
from medseg.preprocessing.quality.issues import Issue
from medseg.preprocessing.quality.mask_values import doubtful_masks
from medseg.preprocessing.quality.outliers import (
    Cases,
    odd_intensities,
    odd_sizes,
    small_component_sizes,
    small_components_of,
)

NATURE = 0.05
"""Share of a class outside the body in the median case from which on it is not a slip, but air that is labelled."""
USUAL = 0.95
ENOUGH = 20
"""A class that is in so large a share of at least so many cases is missed in the others."""
AIR = -900
"""Hounsfield units below which the darkest voxels of a CT lie that shows air; other modalities have no such values."""
ROUNDING = 0.01
"""How far apart in voxels headers may be that were stored in single precision, or as quaternions."""


def data_warnings(usable: Fingerprint, label_map: LabelMap) -> list[Issue]:
    """Return warnings: small components, labels outside the body, unusual sizes, intensities and headers."""
    cases = usable.cases
    if not cases:
        return []
    most_voxels = small_component_sizes(cases, len(label_map.names))
    warnings = [
        warning
        for index, name in enumerate(label_map.names)
        if index
        for warning in of_class(cases, index, name, most_voxels.get(index, 0))
    ]
    for channel in range(usable.channels):
        low, high = (np.array([case.quantiles[channel, at] for case in cases.values()]) for at in (1, 3))
        details = {name: text for name, text in zip(cases, odd_intensities(low, high), strict=True) if text}
        warnings += about(f"channel {channel}: intensities on another scale than most", details, "intensity")
    warnings += [issue for issue in doubtful_masks(cases, label_map) if issue.level == "warning"]
    return [*warnings, *of_headers(cases)]


def of_class(cases: Cases, index: int, name: str, most_voxels: int) -> Iterator[Issue]:
    """Yield what is unusual in the masks of one class, whose small components have at most ``most_voxels``."""
    small = {case: small_components_of(fingerprint, index, most_voxels) for case, fingerprint in cases.items()}
    details = {
        case: f"{len(rows)}, {'the first ' if len(rows) > 1 else ''}at voxel {rows[0, 3:].tolist()}"
        for case, rows in small.items()
        if len(rows)
    }
    yield from about(f"{name}: specks, separate pieces of at most {most_voxels} voxels", details, "specks")

    having = {case: fingerprint for case, fingerprint in cases.items() if fingerprint.voxels[index]}
    outside = [fingerprint.outside[index] / fingerprint.voxels[index] for fingerprint in having.values()]
    if having and np.median(outside) <= NATURE:  # else the class is there by its nature, as air is
        details = {
            case: f"{fingerprint.outside[index]} of {fingerprint.voxels[index]} voxels"
            for case, fingerprint in having.items()
            if fingerprint.outside[index]
        }
        yield from about(f"{name}: labelled outside the body", details, "outside")

    absent = {case: "" for case in cases if case not in having}
    if len(cases) >= ENOUGH and len(absent) <= (1 - USUAL) * len(cases):
        text = f"{name}: missing, though {len(having)} of {len(cases)} cases have it"
        yield from about(text, absent, "missing class")

    sizes = {case: size_of(fingerprint, index) for case, fingerprint in having.items()}
    if sizes:
        unit = "ml" if next(iter(cases.values())).unit == "mm" else "pixels"
        details = {
            case: f"{size:.4g} {unit}, z = {z:.1f}"
            for (case, size), z in zip(sizes.items(), odd_sizes([*sizes.values()]), strict=True)
            if z
        }
        median = np.median([*sizes.values()])
        text = f"{name}: much smaller or larger than usual, the median being {median:.4g} {unit}"
        yield from about(text, details, "volume")


def size_of(case: CaseFingerprint, index: int) -> float:
    """Return the size of a class in a case, in ml; in pixels for 2D images."""
    voxels = int(case.voxels[index])
    return voxels * case.voxel_volume / 1000 if case.unit == "mm" else float(voxels)


def of_headers(cases: Cases) -> Iterator[Issue]:
    """Yield the cases whose headers do not agree on where the voxels are."""
    shifts = {name: case.placement.files for name, case in cases.items() if case.placement.files > ROUNDING}
    slight = {name: f"{shift:.2g} voxels" for name, shift in shifts.items() if shift <= TOLERANCE}
    yield from about("channels or masks slightly displaced, by their headers", slight, "header")
    other = {
        name: "another shape" if np.isinf(shift) else f"{shift:.3g} voxels"
        for name, shift in shifts.items()
        if shift > TOLERANCE
    }
    yield from about("channels or masks on another grid than their image, see dataset.geometry", other, "header")
    forms = {
        name: f"{case.placement.forms:.3g} voxels" for name, case in cases.items() if case.placement.forms > TOLERANCE
    }
    text = "sform and qform disagree, so that programs differ in where the scan is; medseg goes by the sform"
    yield from about(text, forms, "header")


def unnamed_ct(usable: Fingerprint, modality: Sequence[str] | None) -> Iterator[Issue]:
    """Yield a warning for each channel that looks like CT where no modality is given, and so no window is planned."""
    cases = usable.cases.values()
    if modality or any(case.unit != "mm" for case in cases):
        return
    for channel in range(usable.channels if cases else 0):
        low = float(np.median([case.quantiles[channel, 1] for case in cases]))
        if low <= AIR:
            yield Issue(
                "warning",
                f"channel {channel}: intensities like those of CT, from {low:.0f} on, but no modality is given, so that"
                " each scan is normalised by its own mean and standard deviation. If it is CT, give"
                " dataset.modality=ct.",
                kind="modality",
            )


def about(text: str, details: Mapping[str, str], kind: str) -> Iterator[Issue]:
    """Yield a warning about the cases of ``details``, if there are any."""
    if details:
        yield Issue("warning", text, tuple(details), kind, tuple(details.values()) if any(details.values()) else ())


def classes_by_subset(usable: Fingerprint, label_map: LabelMap, split: Split | None) -> Iterator[Issue]:
    """Yield a warning for each class, or region, that has no training case, or those of one group of several.

    Classes that no case has are named elsewhere.
    """
    if split is None or not label_map.has_masks:
        return
    cases = usable.cases
    parts = {part: [name for name in getattr(split, part) if name in cases] for part in SUBSETS}
    training_groups = {cases[name].group for name in parts["train"]}
    for label, members in label_map.reported.items():
        having = {
            part: [name for name in ids if cases[name].voxels[list(members)].any()] for part, ids in parts.items()
        }
        groups = {cases[name].group for name in having["train"]}
        counts = ", ".join(f"{part} {len(having[part])} of {len(ids)}" for part, ids in parts.items())
        cases_with_it = tuple(name for ids in having.values() for name in ids)
        subsets = tuple(part for part, ids in having.items() for _ in ids)
        if cases_with_it and not groups:
            text = (
                f"{label}: no training case has it, so that it cannot be learned (cases with it: {counts}); give"
                " another split.seed or split.file, more cases, or leave the class out of dataset.labels"
            )
            yield Issue("warning", text, cases_with_it, "class split", subsets)
        elif len(groups) == 1 < len(training_groups):
            only = f"all training cases with it are of one patient, {min(groups)}"
            if len(having["train"]) == 1:
                only = f"only one training case has it, {having['train'][0]}"
            text = f"{label}: {only} (cases with it: {counts}); what is learned of it may not hold for other patients"
            yield Issue("warning", text, cases_with_it, "class split", subsets)
