"""From a scan on its native grid to the network's grid, and the labels with it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import MedsegError
from medseg.io.case import Scan, foreground_of
from medseg.io.labels import IGNORE
from medseg.io.limits import check_memory
from medseg.preprocessing.geometry import Geometry, whole
from medseg.preprocessing.intensity import check_methods, denoise, normalise

ANISOTROPY = 3
"""An axis this many times coarser than the finest other is resampled apart, by nearest neighbour (nnU-Net's rule)."""

MOST_FACTOR = 100
"""How far a scan's spacing may be from the network's: units are 1000 times apart, scans within a factor of 20."""

MARGIN = 1
"""Voxels of background kept around the foreground, so that its edge, or all of a uniform object, does not vanish."""


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """Orient, denoise, crop to the foreground, normalise and resample a scan. The same for train, eval and predict.

    ``spacing`` is the network grid's, per axis in RAS order and the scan's unit, or None to keep each scan's own;
    ``resize`` instead fixes the network grid's shape, in 2D only. ``normalize`` names a method per channel; ``window``
    holds [low, high, mean, std] per channel for "ct" (see ``intensity.normalise``). ``denoise`` is "gaussian", "median"
    or None, its strength in voxels.

    Raises:
        MedsegError: unknown names, values out of range, or ones that contradict each other.
    """

    spacing: list[float] | None = None
    resize: list[int] | None = None
    crop: bool = True
    normalize: list[str]
    window: list[list[float]] | None = None
    denoise: str | None = None
    denoise_strength: float = 1.0

    def __post_init__(self) -> None:
        check_methods(self.normalize, self.window, self.denoise, self.denoise_strength)
        if self.resize and self.spacing:
            raise MedsegError(f"preprocessing.resize={self.resize} and spacing={self.spacing}: give one of them.")
        for name, values in (("resize", self.resize), ("spacing", self.spacing)):
            if values is not None and min(values, default=0) <= 0:
                raise MedsegError(f"preprocessing.{name}={values}: every number must be above 0.")

    @property
    def config(self) -> dict[str, Any]:
        """The arguments, plain containers: ``Preprocessor(**other.config)`` does what ``other`` does."""
        return asdict(self)

    @property
    def n_channels(self) -> int:
        """Channels that a scan must have."""
        return len(self.normalize)

    @property
    def added_channels(self) -> int:
        """Channels that the image on the network grid has beside the scan's."""
        return 0

    def __call__(self, scan: Scan, region: Sequence[tuple[float, float]] | None = None) -> tuple[Tensor, Geometry]:
        """Return the scan on the network grid, float32 (C, *network grid), and the way back.

        ``region`` is all that is kept of the cropped scan (see ``Geometry.narrowed``); None: the whole. What is
        outside takes part in the normalisation, so that intensities do not depend on the region.

        Raises:
            MedsegError: the scan has other channels or axes than expected, or one value throughout.
        """
        self._check(scan)
        image = np.require(scan.image, np.float32, ["C", "W"])  # torch takes neither read-only nor reversed arrays
        foreground = torch.from_numpy(foreground_of(image))[None]  # of the image as read: filters leave rounding errors
        geometry = self._geometry(scan, foreground)
        if self.denoise:
            image = denoise(image, self.denoise, self.denoise_strength)
        cut = geometry.cut(torch.from_numpy(image))
        normal = normalise(cut, geometry.cut(foreground)[0], self.normalize, self.window)
        if region:
            geometry, inside = geometry.narrowed(region)
            normal = normal[(slice(None), *inside)]
        return geometry.resample(normal, geometry.kernels("cubic")), geometry

    def label(self, indices: NDArray[np.uint8], geometry: Geometry, n_classes: int) -> Tensor:
        """Bring class indices, uint8 (*native shape), to the network grid: each voxel's class with the largest share.

        IGNORE, where the class is unknown, counts as a class.

        Each class is resampled linearly by itself, one after the other; of equal shares the lower class wins.
        """
        native = geometry.cut(torch.from_numpy(np.require(indices, np.uint8, ["C", "W"]))[None])
        if geometry.cut_shape == geometry.shape:
            return native[0]
        result = torch.zeros(geometry.shape, dtype=torch.uint8)
        most = torch.zeros(geometry.shape)
        for index in (*range(n_classes), IGNORE):
            mask = native == index
            if mask.any():
                share = geometry.resample(mask.float(), geometry.kernels("linear"))[0]
                result[share > most] = index
                torch.maximum(most, share, out=most)
        return result

    def _check(self, scan: Scan) -> None:
        """Raise for a scan that does not fit the settings."""
        shape = tuple(scan.image.shape)
        if len(shape) not in (3, 4):
            raise MedsegError(f"An image of shape {shape}: expected channels and 2 or 3 spatial axes.")
        if len(self.normalize) != shape[0]:
            raise MedsegError(
                f"{shape[0]} channel(s) of shape {shape[1:]}, where {len(self.normalize)} are expected "
                f"(normalize={self.normalize}). Give as many channels as were trained with."
            )
        for name, values, allowed in (("spacing", self.spacing, (2, 3)), ("resize", self.resize, (2,))):
            if values is not None and (len(values) != len(scan.shape) or len(values) not in allowed):
                hint = "resize is for 2D images only." if name == "resize" else "Give one value per spatial axis."
                raise MedsegError(f"A {len(scan.shape)}D image of shape {scan.shape}, but {name}={values}. {hint}")

    def _geometry(self, scan: Scan, foreground: Tensor) -> Geometry:
        """Place the network grid on the scan; ``foreground`` is (1, *native shape)."""
        geometry = whole(scan.affine, scan.shape)
        if self.crop:
            geometry = geometry.cropped(foreground, MARGIN)
        if self.resize:
            check_memory("preprocessing.resize makes an array", (len(scan.image), *self.resize))
            return replace(geometry, shape=tuple(self.resize))
        spacing = [scan.spacing[native] for native in geometry.order]
        target = self.spacing or spacing
        shape = tuple(
            max(1, round(length * old / new))
            for length, old, new in zip(geometry.cut_shape, spacing, target, strict=True)
        )
        if any(not 1 / MOST_FACTOR <= old / new <= MOST_FACTOR for old, new in zip(spacing, target, strict=True)):
            raise MedsegError(
                f"Voxels of {' x '.join(f'{old:g}' for old in spacing)} {scan.unit}, where the network works on"
                f" {' x '.join(f'{new:g}' for new in target)}: more than {MOST_FACTOR} times apart. Is the header in"
                " another unit? Correct it with the tool that wrote it."
            )
        check_memory("the network's grid is an array", (len(scan.image), *shape))
        return replace(geometry, shape=shape, coarse=coarse_axes(spacing, target))


def coarse_axes(spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Return the axes more than three times coarser than the finest other axis, of the scan or of the target."""
    return tuple(
        axis
        for axis in range(len(spacing))
        if any(
            step[axis] > ANISOTROPY * min(value for other, value in enumerate(step) if other != axis)
            for step in (spacing, target)
        )
    )
