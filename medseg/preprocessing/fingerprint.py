"""What a data set is like: every scan and mask read once, every problem found at once."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, listing
from medseg.io.case import Case, Scan
from medseg.io.files import read_mask, read_scan
from medseg.io.labels import LabelMap
from medseg.io.splits import Split
from medseg.preprocessing.coarseness import fidelity
from medseg.preprocessing.geometry import whole
from medseg.preprocessing.preprocessor import differs
from medseg.preprocessing.symmetry import Thumbnail, thumbnail

log = logging.getLogger(__name__)

INTENSITY_SAMPLES = 10_000


@dataclass(frozen=True)
class CaseFingerprint:
    """One scan: shape, spacing and thumbnail in network axes, a hash of its voxels, foreground intensities (C, n).

    ``fidelity`` tells of pictures what a coarser grid costs (see ``coarseness``); it is empty for scans in mm.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: str
    channels: int
    voxel_hash: str
    voxels: NDArray[np.int64]
    intensities: NDArray[np.float32]
    thumbnail: Thumbnail
    fidelity: tuple[float, ...] = ()


@dataclass(frozen=True)
class Fingerprint:
    """All scans of a data set by case id."""

    cases: dict[str, CaseFingerprint]

    @property
    def spatial_dims(self) -> int:
        """Two or three."""
        return len(next(iter(self.cases.values())).shape)

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return next(iter(self.cases.values())).channels

    @property
    def unit(self) -> str:
        """ "mm", or "px" for pictures."""
        return next(iter(self.cases.values())).unit

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each case's voxels, which tells equal scans under other names."""
        return {name: case.voxel_hash for name, case in self.cases.items()}


def survey(cases: Sequence[Case], label_map: LabelMap) -> Fingerprint:
    """Read every case and check it.

    Raises:
        MedsegError: listing every case that cannot be read, whose mask does not fit its image or holds undeclared
            values, or that differs from the others in dimensions or channels; or no mask holds any foreground.
    """
    found: dict[str, CaseFingerprint] = {}
    problems = []
    for case in cases:
        try:
            found[case.id] = fingerprint(case, label_map)
        except MedsegError as error:
            problems.append(f"{case.id}: {error}")
    problems += odd_ones(found)
    if problems:
        raise MedsegError(
            f"{len(problems)} of {len(cases)} cases cannot be used:\n{listing(problems)}\nMend or remove them."
        )
    check_foreground(found, label_map)
    return Fingerprint(found)


def fingerprint(case: Case, label_map: LabelMap) -> CaseFingerprint:
    """Read one labelled case, check it and describe it."""
    scan, truth = read_labelled(case, label_map)
    differs(scan.image)  # or else there is nothing to segment
    geometry = whole(scan.affine, scan.shape)
    return CaseFingerprint(
        shape=tuple(scan.shape[axis] for axis in geometry.order),
        spacing=tuple(scan.spacing[axis] for axis in geometry.order),
        unit=scan.unit,
        channels=len(scan.image),
        voxel_hash=voxel_hash(scan),
        voxels=np.bincount(truth.ravel(), minlength=len(label_map.names)),
        intensities=sample_foreground(scan, truth),
        thumbnail=thumbnail(scan, geometry),
        fidelity=fidelity(truth, geometry, len(label_map.names)) if scan.unit == "px" else (),
    )


def read_labelled(case: Case, label_map: LabelMap) -> tuple[Scan, NDArray[np.uint8]]:
    """Read a case's scan and its mask as class indices (*spatial) on the native grid."""
    if case.label is None:
        raise MedsegError(f"{case.id} has no mask.")
    scan = read_scan(case.images)
    return scan, label_map.encode(read_mask(case.label, scan), str(case.label))


def voxel_hash(scan: Scan) -> str:
    """Return a SHA-256 over shape and voxel values, equal for equal images in whatever file."""
    digest = hashlib.sha256(str(scan.image.shape).encode())
    digest.update(np.ascontiguousarray(scan.image).tobytes())
    return digest.hexdigest()


def sample_foreground(scan: Scan, truth: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return up to 10 000 evenly spread intensities (C, n) of labelled voxels."""
    inside = np.flatnonzero(truth)
    inside = inside[:: max(1, -(-len(inside) // INTENSITY_SAMPLES))]
    return scan.image.reshape(len(scan.image), -1)[:, inside]


def odd_ones(found: dict[str, CaseFingerprint]) -> list[str]:
    """Name the cases that differ from the majority in dimensions, channels or unit."""
    forms = {name: (len(case.shape), case.channels, case.unit) for name, case in found.items()}
    if len(set(forms.values())) <= 1:
        return []
    usual = max(set(forms.values()), key=list(forms.values()).count)
    return [
        f"{name}: {form[0]}D with {form[1]} channel(s) in {form[2]}, "
        f"the others are {usual[0]}D with {usual[1]} in {usual[2]}"
        for name, form in forms.items()
        if form != usual
    ]


def check_foreground(found: dict[str, CaseFingerprint], label_map: LabelMap) -> None:
    """Warn of empty masks and absent classes; refuse a data set without any foreground."""
    empty = [name for name, case in found.items() if not case.voxels[1:].any()]
    if len(empty) == len(found):
        raise MedsegError("every mask is empty: there is nothing to learn. Are dataset.labels and dataset.masks right?")
    if empty:
        log.warning("%d case(s) have an empty mask:\n%s", len(empty), listing(empty))
    total = np.sum([case.voxels for case in found.values()], axis=0)
    if absent := [name for name, count in zip(label_map.names, total, strict=True) if not count]:
        log.warning("no mask holds the class(es) %s", ", ".join(absent))


def warn_of_equal_scans(fingerprint: Fingerprint, split: Split) -> None:
    """Name cases of equal voxels in two parts of a split: the test would be of scans that were trained on."""
    parts = {"train": split.train, "val": split.val, "test": split.test}
    seen: dict[str, list[str]] = {}
    for part, names in parts.items():
        for name in names:
            seen.setdefault(fingerprint.cases[name].voxel_hash, []).append(f"{name} ({part})")
    equal = [names for names in seen.values() if len({name.rsplit(" ", 1)[1] for name in names}) > 1]
    if equal:
        pairs = listing(" = ".join(names) for names in equal)
        log.warning("the same scan is in two parts of the split; give dataset.group or remove one:\n%s", pairs)
