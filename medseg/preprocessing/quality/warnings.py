"""What is worth a look in cases that can be read and learned from: slips in masks, sizes, headers, splits."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from medseg.io.datasets.splits import PARTS, Split
from medseg.io.grids.grid import TOLERANCE
from medseg.io.labels import UNLABELLED, LabelMap
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint
from medseg.preprocessing.quality.issues import Finding
from medseg.preprocessing.quality.mask_values import doubtful_masks
from medseg.preprocessing.quality.outliers import Cases, odd_intensities, odd_sizes, speck_sizes, specks_of

NATURE = 0.05
"""Share of a class outside the body in the median case from which on it is not a slip, but air that is labelled."""
USUAL = 0.95
ENOUGH = 20
"""A class that is in so large a share of at least so many cases is missed in the others."""
ROUNDING = 0.01
"""How far apart in voxels headers may be that were stored in single precision, or as quaternions."""


def suspicions(usable: Fingerprint, label_map: LabelMap) -> list[Finding]:
    """Return, as warnings, specks, labels outside the body, and cases unlike the others in sizes, values or headers."""
    cases = usable.cases
    if not cases:
        return []
    most = speck_sizes(cases, len(label_map.names))
    classes = [*enumerate(label_map.names)][1:]
    found = [finding for index, name in classes for finding in of_class(cases, index, name, most.get(index, 0))]
    found += [finding for channel in range(usable.channels) for finding in intensities(cases, channel)]
    found += [finding for finding in doubtful_masks(cases, label_map) if finding.level == "warning"]
    return [*found, *placements(cases)]


def of_class(cases: Cases, index: int, name: str, speck: int) -> Iterator[Finding]:
    """Yield what is odd in the masks of one class; ``speck`` are the voxels of its largest speck."""
    yield from specks(cases, index, name, speck)
    yield from outside(cases, index, name)
    yield from missing(cases, index, name)
    yield from volumes(cases, index, name)


def specks(cases: Cases, index: int, name: str, most: int) -> Iterator[Finding]:
    """Yield the cases with specks of a class, which are of at most so many voxels."""
    rows = {case: specks_of(found, index, most) for case, found in cases.items()}
    details = {
        case: f"{len(these)}, {'the first ' if len(these) > 1 else ''}at voxel {these[0, 3:].tolist()}"
        for case, these in rows.items()
        if len(these)
    }
    yield from about(f"{name}: specks, separate pieces of at most {most} voxels", details, "specks")


def outside(cases: Cases, index: int, name: str) -> Iterator[Finding]:
    """Yield the cases with voxels of a class outside the body, unless it is found there by its nature, as air is."""
    having = {case: found for case, found in cases.items() if found.voxels[index]}
    shares = [found.outside[index] / found.voxels[index] for found in having.values()]
    if not having or np.median(shares) > NATURE:
        return
    details = {
        case: f"{found.outside[index]} of {found.voxels[index]} voxels"
        for case, found in having.items()
        if found.outside[index]
    }
    yield from about(f"{name}: labelled outside the body", details, "outside")


def missing(cases: Cases, index: int, name: str) -> Iterator[Finding]:
    """Yield the cases without a class that almost all others have."""
    absent = {case: "" for case, found in cases.items() if not found.voxels[index]}
    if len(cases) >= ENOUGH and len(absent) <= (1 - USUAL) * len(cases):
        text = f"{name}: missing, though {len(cases) - len(absent)} of {len(cases)} cases have it"
        yield from about(text, absent, "missing class")


def volumes(cases: Cases, index: int, name: str) -> Iterator[Finding]:
    """Yield the cases in which a class is much smaller or larger than in the others."""
    sizes = {case: size_of(found, index) for case, found in cases.items() if found.voxels[index]}
    if not sizes:
        return
    unit = "ml" if next(iter(cases.values())).unit == "mm" else "pixels"
    details = {
        case: f"{size:.4g} {unit}, z = {z:.1f}"
        for (case, size), z in zip(sizes.items(), odd_sizes([*sizes.values()]), strict=True)
        if z
    }
    text = f"{name}: much smaller or larger than usual, the median being {np.median([*sizes.values()]):.4g} {unit}"
    yield from about(text, details, "volume")


def size_of(found: CaseFingerprint, index: int) -> float:
    """Return the size of a class in a case, in ml; in pixels for pictures."""
    voxels = int(found.voxels[index])
    return voxels * found.voxel_volume / 1000 if found.unit == "mm" else float(voxels)


def intensities(cases: Cases, channel: int) -> Iterator[Finding]:
    """Yield the cases whose intensities of a channel are on another scale than those of the others."""
    low, high = (np.array([found.quantiles[channel, place] for found in cases.values()]) for place in (1, 3))
    details = {case: text for case, text in zip(cases, odd_intensities(low, high), strict=True) if text}
    yield from about(f"channel {channel}: intensities on another scale than most", details, "intensity")


def placements(cases: Cases) -> Iterator[Finding]:
    """Yield the cases whose headers do not agree on where the voxels are."""
    far = {case: found.placement.files for case, found in cases.items() if found.placement.files > ROUNDING}
    slight = {case: f"{shift:.2g} voxels" for case, shift in far.items() if shift <= TOLERANCE}
    yield from about("channels or masks slightly displaced, by their headers", slight, "header")
    other = {
        case: "another shape" if np.isinf(shift) else f"{shift:.3g} voxels"
        for case, shift in far.items()
        if shift > TOLERANCE
    }
    yield from about("channels or masks on another grid than their image, see dataset.geometry", other, "header")
    forms = {
        case: f"{found.placement.forms:.3g} voxels"
        for case, found in cases.items()
        if found.placement.forms > TOLERANCE
    }
    text = "sform and qform disagree, so that programs differ in where the scan is; medseg goes by the sform"
    yield from about(text, forms, "header")


def about(text: str, details: Mapping[str, str], kind: str) -> Iterator[Finding]:
    """Yield a warning about the cases of ``details``, if there are any."""
    said: Sequence[str] = [*details.values()] if any(details.values()) else []
    if details:
        yield Finding("warning", text, tuple(details), kind, tuple(said))


def classes_by_part(usable: Fingerprint, label_map: LabelMap, split: Split | None) -> Iterator[Finding]:
    """Yield a warning for each class, or region, that has no training case, or those of one group of several.

    Classes that no case has are named elsewhere.
    """
    if split is None or label_map is UNLABELLED:
        return
    cases = usable.cases
    parts = {part: [name for name in getattr(split, part) if name in cases] for part in PARTS}
    training_groups = {cases[name].group for name in parts["train"]}
    for label, members in label_map.reported.items():
        having = {
            part: [name for name in ids if cases[name].voxels[list(members)].any()] for part, ids in parts.items()
        }
        groups = {cases[name].group for name in having["train"]}
        counts = ", ".join(f"{part} {len(having[part])} of {len(ids)}" for part, ids in parts.items())
        found = tuple(name for ids in having.values() for name in ids)
        where = tuple(part for part, ids in having.items() for _ in ids)
        if found and not groups:
            text = (
                f"{label}: no training case has it, so that it cannot be learned (cases with it: {counts}); give"
                " another split.seed or split.file, more cases, or leave the class out of dataset.labels"
            )
            yield Finding("warning", text, found, "class split", where)
        elif len(groups) == 1 < len(training_groups):
            only = f"all training cases with it are of one patient, {min(groups)}"
            if len(having["train"]) == 1:
                only = f"only one training case has it, {having['train'][0]}"
            text = f"{label}: {only} (cases with it: {counts}); what is learned of it may not hold for other patients"
            yield Finding("warning", text, found, "class split", where)
