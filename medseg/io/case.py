"""What every module passes: a case on disk, a scan in memory, and the data set they belong to."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FileValue = int | str
"""A class's value in a mask file: a number, or ``"#rrggbb"`` where the masks are coloured."""


@dataclass(frozen=True)
class Case:
    """One examination of one patient, as files.

    ``images`` holds one file a channel, or a single file that carries every channel. ``group`` is the unit that a
    split never parts, normally the patient. ``label`` is None for a case to be predicted.
    """

    id: str
    group: str
    images: tuple[Path, ...]
    label: Path | None = None


@dataclass(frozen=True)
class Scan:
    """The channels of a case on their native grid.

    ``image`` is float32 (C, *spatial) with two or three spatial axes, in nibabel's order (i, j, k) for medical formats
    and (row, column) for pictures. ``affine`` is 4x4, voxel indices to RAS+ mm; the identity for pictures, whose
    ``unit`` is "px". ``layout`` is what the writer needs to give a mask the input's own form (see ``medseg.io.files``).
    """

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    unit: Literal["mm", "px"] = "mm"
    layout: Any = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape, without the channels."""
        return self.image.shape[1:]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring voxel centres along each spatial axis, in ``unit``."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))


@dataclass(frozen=True)
class Dataset:
    """What a layout finds under its root.

    ``labels`` maps class names to file values, background first; None means: read them off the masks.
    ``channels`` and ``modality`` name what is known of each channel, None where the layout cannot tell.
    """

    cases: tuple[Case, ...]
    labels: dict[str, FileValue] | None = None
    channels: tuple[str, ...] | None = None
    modality: tuple[str, ...] | None = None
