"""What every module passes: a case on disk, a scan in memory, and the data set they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError

FileValue = int | str
"""A class's value in a mask file: a number, or ``"#rrggbb"`` where the masks are coloured."""


FileValues = FileValue | list[FileValue]
"""The values of a class that was merged from several; masks are written with the first."""

SHORTEST_MM, LONGEST_MM = 1e-9, 1e9
"""How long voxels may be: beyond, lengths are damaged headers, and products of them leave the range of numbers."""

GridPolicy = Literal["error", "warn", "resample"]
MissingMasks = Literal["error", "empty", "unannotated"]
Orientation = Literal["apply", "ignore"]
OtherValues = Literal["error", "nearest", "ignore"]


@dataclass(frozen=True)
class LabelFile:
    """A file of annotation: a label map, or with ``value`` a mask of one class, whose non-zero voxels are of it."""

    path: Path
    value: FileValue | None = None


@dataclass(frozen=True)
class Case:
    """One examination of one patient, as files, and how to read them.

    ``images`` holds one file a channel, or a single file that carries every channel. ``group`` is the unit that a
    split never parts, normally the patient. ``labels`` are laid one over the other, the last on top; there are none
    for a case to be predicted. ``annotated`` names the classes that were looked for in this case; None: all.

    ``geometry`` says what becomes of channels and labels on another grid than channel ``reference``: an error,
    resampled onto it in scanner coordinates (see ``medseg.io.grids.resample``), or, with "warn", taken voxel by voxel
    where shape and spacing agree, with a warning. The reference gives the scan its affine and its form.
    ``orientation`` says whether 2D images are read as their EXIF wants them shown. ``other_values`` says what happens
    to mask values that are no class's: an error, the class of the nearest value, or "ignore", voxels of unknown class.
    ``segments`` says which classes the named segments of label files are meant for (see
    ``medseg.io.segments.segmentation``). ``columns`` are further columns of a table, such as the site. ``absent`` are
    the indices of channels that have no file, for networks that can do without: they are read as zeros, and ``images``
    holds the others. ``added`` marks a case that came with corrections (see ``medseg.io.datasets.corrections``), which
    only trains.
    """

    id: str
    group: str
    images: tuple[Path, ...]
    labels: tuple[LabelFile, ...] = ()
    annotated: tuple[str, ...] | None = None
    geometry: GridPolicy = "error"
    reference: int = 0
    orientation: Orientation = "apply"
    other_values: OtherValues = "error"
    segments: Mapping[str, str | None] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[int, ...] = ()
    added: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the case."""
        return (*self.images, *(label.path for label in self.labels))


@dataclass(frozen=True, repr=False)
class Scan:
    """The channels of a case on their native grid.

    ``image`` is float32 (C, *spatial) with two or three spatial axes, in nibabel's order (i, j, k) for medical formats
    and (row, column) for 2D images. ``affine`` is 4x4, voxel indices to RAS+ mm; the identity for 2D images, whose
    ``unit`` is "px". ``layout`` is what the writer needs to give a mask the input's own form (see
    ``medseg.io.files.read``).

    >>> import numpy as np
    >>> scan = medseg.Scan(np.zeros((1, 40, 50, 12), np.float32), affine=np.diag([0.9, 0.9, 3.0, 1.0]))
    >>> scan.shape, scan.spacing, round(scan.voxel_volume, 2)
    ((40, 50, 12), (0.9, 0.9, 3.0), 2.43)
    """

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    unit: Literal["mm", "px"] = "mm"
    layout: Any = field(default=None, compare=False)

    def __repr__(self) -> str:
        """Describe the scan without its voxels."""
        spacing = tuple(float(f"{step:.6g}") for step in self.spacing)
        return f"Scan(channels={len(self.image)}, shape={self.shape}, spacing={spacing}, unit={self.unit!r})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape, without the channels."""
        return self.image.shape[1:]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring voxel centres along each spatial axis, in ``unit``."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm³ (area in 2D), below the product of the spacings where axes are sheared."""
        axes = self.affine[:3, : len(self.shape)]
        return float(np.sqrt(np.linalg.det(axes.T @ axes)))


@dataclass(frozen=True)
class Dataset:
    """What a layout finds under its root.

    ``labels`` maps class names to file values, background first; None means: read them off the masks. A class named
    "ignore" is none, but the value of voxels whose class is unknown. ``regions`` names unions of classes to be learned
    and reported in their place, ``region_order`` the class that each is given in masks (see ``medseg.io.labels``).
    ``channels`` and ``modality`` name what is known of each channel, ``endings`` the endings of file names that tell
    channels apart, of which each may have several; None where the layout cannot tell. ``split_file`` holds a split that
    came with the data. ``problems`` are mistakes that shut cases out, a line each. ``unlabelled`` are scans without a
    mask, which only pre-training takes.
    """

    cases: tuple[Case, ...]
    labels: dict[str, FileValues] | None = None
    regions: dict[str, list[str]] | None = None
    region_order: list[str] | None = None
    channels: tuple[str, ...] | None = None
    endings: tuple[tuple[str, ...], ...] | None = None
    modality: tuple[str, ...] | None = None
    split_file: Path | None = None
    problems: tuple[str, ...] = ()
    unlabelled: tuple[Case, ...] = ()


def foreground_of(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where any channel of (C, *spatial) differs from that channel's minimum.

    Raises:
        MedsegError: nowhere.
    """
    lowest = image.min(axis=tuple(range(1, image.ndim)), keepdims=True)
    foreground: NDArray[np.bool_] = (image != lowest).any(axis=0)
    if not foreground.any():
        values = ", ".join(f"{value:g}" for value in lowest.ravel())
        raise MedsegError(f"Constant image of shape {image.shape[1:]}, value {values}: nothing to segment.")
    return foreground


def gives_size(affine: NDArray[np.float64], axes: int) -> bool:
    """Return whether voxels have a size along the first axes of an affine (4, 4): ``SHORTEST_MM`` to ``LONGEST_MM``."""
    columns = affine[:3, :axes]
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(columns) < axes:
        return False
    lengths = np.abs(columns).max(axis=0)
    return bool(lengths.min() >= SHORTEST_MM and lengths.max() <= LONGEST_MM)
