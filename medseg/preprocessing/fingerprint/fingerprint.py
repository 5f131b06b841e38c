"""The fingerprint of a case: its scan and its mask, read once and described in a few numbers."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.io.case import Case, Scan, foreground_of
from medseg.io.datasets.annotations import read_labelled
from medseg.io.files.header_check import Placement, placement
from medseg.io.files.read import suffix
from medseg.io.formats.images_2d import SUFFIXES, read
from medseg.io.formats.mask_values import rgb
from medseg.io.labels import IGNORE, LabelMap, numbers
from medseg.preprocessing.fingerprint.components import components, count_values
from medseg.preprocessing.fingerprint.duplicates import Acquisition, SameScan, acquisition, same_scans
from medseg.preprocessing.fingerprint.outside_body import labels_outside
from medseg.preprocessing.fingerprint.pixel_size import fidelity
from medseg.preprocessing.fingerprint.rims import inside_and_between
from medseg.preprocessing.fingerprint.symmetry import Thumbnail, thumbnail
from medseg.preprocessing.geometry import whole

INTENSITY_SAMPLES = 10_000
QUANTILES = (0, 0.005, 0.5, 0.995, 1)
QUANTILE_SAMPLES = 100_000


@dataclass(frozen=True)
class CaseFingerprint:
    """One scan: shape, spacing and thumbnail in network axes, a hash of its voxels, foreground intensities (C, n).

    ``intensities`` are up to 10 000 of labelled voxels. ``voxels`` counts those of each class. ``fidelity`` is what a
    coarser grid costs a 2D image (see ``pixel_size``); it is empty for scans in mm. ``acquisition`` is how the scan was
    taken, None where its file has no such attributes. ``quantiles`` (C, 5) are the whole image's, at ``QUANTILES``,
    ``voxel_volume`` is in mm³. ``components`` are those of all classes (see the module of this name), ``outside``
    counts the voxels of each class outside the body, ``placement`` says how far the headers agree. ``inside`` and
    ``between`` count the voxels of each class as ``rims`` says. Of 2D images ``orientations`` are those that image and
    mask were turned by (1: as stored), ``lossy`` says whether a mask's format changes values, ``transparent`` counts
    its pixels that are read as background in spite of their colour, ``mixed`` those of masks of one class that have
    neither 0 nor the highest value. ``messages`` are what reading the case warns of.
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
    group: str = ""
    acquisition: Acquisition | None = None
    quantiles: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, len(QUANTILES)), np.float32))
    voxel_volume: float = 1.0
    components: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 3), np.int64))
    outside: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    placement: Placement = field(default_factory=Placement)
    inside: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    between: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    orientations: tuple[int, int] = (1, 1)
    lossy: bool = False
    transparent: int = 0
    mixed: int = 0
    messages: tuple[str, ...] = ()


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
        """ "mm", or "px" for 2D images."""
        return next(iter(self.cases.values())).unit

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each case's voxels, by which equal scans are found under other names."""
        return {name: case.voxel_hash for name, case in self.cases.items()}

    @cached_property
    def same_scans(self) -> list[SameScan]:
        """The cases that are, or probably are, of one scan."""
        acquisitions = {name: case.acquisition for name, case in self.cases.items()}
        return same_scans(self.hashes, acquisitions, {name: case.group for name, case in self.cases.items()})


def fingerprint(case: Case, label_map: LabelMap) -> CaseFingerprint:
    """Read one case, check it and describe it.

    Raises:
        MedsegError: it cannot be read, its image is constant, or its mask does not fit it or has undeclared values.
    """
    scan, mask = read_labelled(case, label_map)
    foreground_of(scan.image)  # or else there is nothing to segment
    geometry = whole(scan.affine, scan.shape)
    n_classes = len(label_map.names)
    marked = mask if label_map.has_masks else np.zeros_like(mask)
    inside, between = inside_and_between(marked, label_map)
    flat = scan.image.reshape(len(scan.image), -1)
    labelled = np.flatnonzero((mask > 0) & (mask != IGNORE))
    labelled = labelled[:: max(1, -(-len(labelled) // INTENSITY_SAMPLES))]  # evenly spread
    return CaseFingerprint(
        shape=tuple(scan.shape[axis] for axis in geometry.order),
        spacing=tuple(scan.spacing[axis] for axis in geometry.order),
        unit=scan.unit,
        channels=len(scan.image),
        voxel_hash=voxel_hash(scan),
        voxels=class_sizes(mask)[:n_classes],
        intensities=flat[:, labelled],
        thumbnail=thumbnail(scan, geometry),
        fidelity=fidelity(marked, geometry, n_classes) if scan.unit == "px" else (),
        group=case.group,
        acquisition=acquisition(scan),
        quantiles=quantiles(scan),
        voxel_volume=scan.voxel_volume,
        components=components(marked, n_classes),
        outside=labels_outside(scan, marked, n_classes),
        placement=placement(case, scan),
        inside=inside,
        between=between,
        **of_2d_images(case, scan, label_map),
    )


def of_2d_images(case: Case, scan: Scan, label_map: LabelMap) -> dict[str, Any]:
    """Return what only files of 2D images have: ``orientations``, ``lossy``, ``transparent`` and ``mixed``."""
    masks = [(file, *read(file.path)) for file in case.labels if suffix(file.path) in SUFFIXES]
    layouts = [layout for *_, layout in masks]
    tags = (getattr(scan.layout, "orientation", 1), max((layout.orientation for layout in layouts), default=1))
    is_exact = case.other_values == "error"  # or else the user has said what becomes of other values
    background = np.reshape(rgb(np.array(numbers(label_map.labels[label_map.names[0]])[0])), (-1, 1))
    hidden = [
        (pixels[:, layout.transparent] != background[: len(pixels)]).any(axis=0)
        for _, pixels, _, layout in masks
        if layout.transparent is not None
    ]
    levels = [pixels.max(axis=0) for file, pixels, *_ in masks if file.value is not None and is_exact]
    return {
        "orientations": tags if case.orientation == "apply" else (1, 1),
        "lossy": is_exact and any(layout.lossy for layout in layouts),
        "transparent": sum(int(np.count_nonzero(colours)) for colours in hidden),
        "mixed": sum(int(((level > 0) & (level < level.max())).sum()) for level in levels),
    }


def class_sizes(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the voxels of each class index, IGNORE included: (256,)."""
    return count_values(mask, IGNORE + 1)


def voxel_hash(scan: Scan) -> str:
    """Return a SHA-256 over shape and voxel values, equal for equal images in whatever file."""
    digest = hashlib.sha256(str(scan.image.shape).encode())
    digest.update(np.ascontiguousarray(scan.image).tobytes())
    return digest.hexdigest()


def quantiles(scan: Scan) -> NDArray[np.float32]:
    """Return the intensities (C, 5) at ``QUANTILES``, the inner ones from a sample of the voxels."""
    flat = scan.image.reshape(len(scan.image), -1)
    inner = np.quantile(flat[:, :: max(1, flat.shape[1] // QUANTILE_SAMPLES)], QUANTILES[1:-1], axis=1).T
    return np.column_stack([flat.min(axis=1), inner, flat.max(axis=1)]).astype(np.float32)
