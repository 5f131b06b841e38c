"""nnU-Net's preprocessing: a scan on the grid that its network was trained on, and the way back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import MedsegError
from medseg.inference.nnunet.normalization import Scheme, normalised, schemes_of
from medseg.inference.nnunet.plans import Plan
from medseg.inference.nnunet.resampling import Resampling, resampling_of
from medseg.io.case import Scan, foreground_of
from medseg.io.limits import check_memory
from medseg.preprocessing.geometry import Geometry, bounding_box, orient

READERS = {
    "SimpleITKIO": False,
    "NibabelIO": False,
    "NaturalImage2DIO": False,
    "SimpleITKIOWithReorient": True,
    "NibabelIOWithReorient": True,
}
"""nnU-Net's classes that read images, and whether they turn them to RAS."""

BETWEEN_SINGLE_SLICES = 999.0
"""Distance of the slices of a 2D image, in pixels: far."""


@dataclass(frozen=True, kw_only=True)
class NNUNetPreparation:
    """Orders the axes, crops to what is not zero, normalises and resamples, as nnU-Net's DefaultPreprocessor.

    nnU-Net's arrays have the axes (z, y, x) of SimpleITK and, for pictures, a first axis of one slice.

    Args:
        schemes: the normalisation of each channel.
        transpose: the axes of the array in the order of the network.
        spacing: of the network's grid, in its order and mm; two for 2D networks, whose slices stay where they are.
        reorient: whether scans are first turned to RAS.
        images: how images are resampled.
        outputs: how what the network gives is brought back.
    """

    schemes: tuple[Scheme, ...]
    transpose: tuple[int, int, int]
    spacing: tuple[float, ...]
    reorient: bool
    images: Resampling
    outputs: Resampling

    @property
    def n_channels(self) -> int:
        """Channels that a scan must have."""
        return len(self.schemes)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments in plain containers."""
        return asdict(self)

    def __call__(self, scan: Scan) -> tuple[Tensor, Geometry]:
        """Return the scan on the network grid, float32 (C, *network grid), and the way back.

        Raises:
            MedsegError: the scan has one value throughout, or values that the model's normalisation does not take.
        """
        image = np.require(scan.image, np.float32, ["C", "W"])
        foreground_of(image)
        geometry = self._cropped(scan, (image != 0).any(0))
        cut = as_volume(geometry.cut(torch.from_numpy(image)).numpy())  # (C, z, y, x)
        region = self._region(cut)
        old = self._spacing(scan, geometry)
        new = (*old[: 3 - len(self.spacing)], *self.spacing)
        shape = self._shape(cut.shape[1:], old, new)
        check_memory("the network's grid is an array", (len(cut), *shape))
        resampled = self.images(normalised(cut, region, self.schemes), shape, old, new)
        dims = len(scan.shape)
        way_back = self.outputs.kernels(new, old)[-dims:]
        image_on_grid = torch.from_numpy(resampled.reshape(len(cut), *shape[-dims:]))
        return image_on_grid, replace(geometry, shape=tuple(shape[-dims:]), back=way_back)

    def _cropped(self, scan: Scan, mask: NDArray[np.bool_]) -> Geometry:
        """Return the geometry that orders the axes and crops to ``mask`` (*native shape), if it is not empty."""
        order, flips = self._axes(scan)
        lengths = tuple(scan.shape[native] for native in order)
        geometry = Geometry(scan.shape, order, flips, tuple((0, length) for length in lengths), lengths)
        if not mask.any():
            return geometry
        crop = bounding_box(geometry.cut(torch.from_numpy(mask)[None])[0], 0)
        return replace(geometry, crop=crop)

    def _axes(self, scan: Scan) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Return the native axis that each network axis is, and whether it is reversed."""
        dims = len(scan.shape)
        if scan.unit == "px":  # (row, column), as nnU-Net reads pictures
            native, flips = tuple(range(dims)), (False,) * dims
        else:
            native, flips = orient(scan.affine, scan.shape) if self.reorient else (tuple(range(dims)), (False,) * dims)
            native, flips = native[::-1], flips[::-1]
        places = self._places(dims)
        return tuple(native[place] for place in places), tuple(flips[place] for place in places)

    def _places(self, dims: int) -> list[int]:
        """Return nnU-Net's order of the axes that an image of 2 or 3 has."""
        if dims == 3:
            return list(self.transpose)
        if self.transpose[0] != 0:
            raise MedsegError("this model of nnU-Net takes volumes and turns them; the scan is a single slice.")
        return [place - 1 for place in self.transpose[1:]]

    def _spacing(self, scan: Scan, geometry: Geometry) -> tuple[float, ...]:
        """Return the spacing of the array's three axes in the network's order."""
        spacing = tuple(scan.spacing[native] for native in geometry.order)
        return spacing if len(spacing) == 3 else (BETWEEN_SINGLE_SLICES * max(spacing), *spacing)

    def _shape(self, shape: Sequence[int], old: Sequence[float], new: Sequence[float]) -> tuple[int, ...]:
        """Return the shape of the network grid."""
        if self.images.keeps:
            return tuple(shape)
        return tuple(round(step / wanted * length) for length, step, wanted in zip(shape, old, new, strict=True))

    def _region(self, image: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where any channel of (C, z, y, x) is not zero, with the holes; all where no channel asks."""
        if not any(scheme.masked for scheme in self.schemes):
            return np.ones(image.shape[1:], bool)
        from scipy import ndimage  # takes longer to import than most images to process

        filled: NDArray[np.bool_] = ndimage.binary_fill_holes((image != 0).any(0))
        return filled


def as_volume(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (C, z, y, x), where a 2D image is one slice."""
    return image if image.ndim == 4 else image[:, None]


def preparation_of(plan: Plan) -> NNUNetPreparation:
    """Return the preprocessing of a plan.

    Raises:
        MedsegError: it names a reader, a normalisation or a resampling that is not known.
    """
    if plan.reader not in READERS:
        raise MedsegError(
            f"{plan.path}: images are read by {plan.reader}, in an order of axes that is not known here; known are"
            f" {', '.join(READERS)}."
        )
    return NNUNetPreparation(
        schemes=schemes_of(plan),
        transpose=plan.transpose,
        spacing=tuple(plan.settings["spacing"]),
        reorient=READERS[plan.reader],
        images=resampling_of(plan, "data"),
        outputs=resampling_of(plan, "probabilities"),
    )
