"""Where the network grid lies on a scan's native grid: axis order, flips, crop and scale, and the way back by slabs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from nibabel.orientations import io_orientation
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import MedsegError
from medseg.preprocessing.resample import Kernel, resample_axis, taps


def orient(affine: NDArray[np.float64], shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return the axis order and the flips that bring an array of this spatial shape closest to RAS.

    Axes are only permuted and flipped, never rotated, so that no voxel is interpolated for it. In 2D the two axes are
    sorted by the world axis they are closest to, and made to point its positive way.

    Returns:
        ``order``, whose entry a is the native axis that becomes axis a, and ``flips``, one per new axis.

    Raises:
        MedsegError: an axis of the affine has no direction.
    """
    dims = len(shape)
    # (dims, 2): the closest world axis, and 1 or -1
    codes = io_orientation(np.asarray(affine, dtype=float)[:, [*range(dims), 3]])
    if np.isnan(codes).any():
        raise MedsegError(
            f"The affine {np.asarray(affine).tolist()} gives {dims} voxel axes no {dims} separate directions. "
            "Write the file again with a valid orientation."
        )
    order = np.argsort(codes[:, 0])
    return tuple(order.tolist()), tuple((codes[order, 1] < 0).tolist())


@dataclass(frozen=True)
class Geometry:
    """How one scan's native grid becomes its network grid. Two or three spatial axes (d).

    ``native_shape`` is the scan's spatial shape. Network axis a comes from native axis ``order[a]``, reversed where
    ``flips[a]``; of it ``crop[a]`` (start, stop) is kept, and resampled to ``shape[a]`` voxels. ``coarse`` names the
    network axes so much coarser than the others that images and labels are not interpolated across them.
    """

    native_shape: tuple[int, ...]
    order: tuple[int, ...]
    flips: tuple[bool, ...]
    crop: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    coarse: tuple[int, ...] = ()

    @property
    def cut_shape(self) -> tuple[int, ...]:
        """Shape after orientation and crop, before resampling."""
        return tuple(stop - start for start, stop in self.crop)

    def kernels(self, fine: Kernel) -> tuple[Kernel, ...]:
        """Return a kernel per network axis: "nearest" across the coarse ones, else ``fine``."""
        return tuple("nearest" if axis in self.coarse else fine for axis in range(len(self.shape)))

    def forward(self, x: Tensor, kernels: Sequence[Kernel]) -> Tensor:
        """Bring ``x`` (C, *native_shape) to the network grid (C, *shape), with a kernel per network axis."""
        return self.resample(self.cut(x), kernels)

    def cut(self, x: Tensor) -> Tensor:
        """Orient and crop ``x`` (C, *native_shape) to (C, *cut_shape), every voxel as it is."""
        if tuple(x.shape[1:]) != self.native_shape:
            raise ValueError(f"array of spatial shape {tuple(x.shape[1:])}, the scan's is {self.native_shape}")
        x = x.permute(0, *(1 + axis for axis in self.order))
        x = x[(slice(None), *(slice(*span) for span in self._unflipped_crop()))]
        return x.flip(self._flipped_axes()).contiguous()

    def resample(self, x: Tensor, kernels: Sequence[Kernel]) -> Tensor:
        """Resample ``x`` (C, *cut_shape) to (C, *shape)."""
        lengths = self.cut_shape
        shrinking_first = sorted(range(len(self.shape)), key=lambda axis: self.shape[axis] / lengths[axis])
        for axis in shrinking_first:
            x = resample_axis(x, 1 + axis, taps(lengths[axis], self.shape[axis], kernels[axis]))
        return x

    def slabs(self, scores: Tensor, fill: Tensor, thickness: int = 32) -> Iterator[tuple[slice, Tensor]]:
        """Bring scores back to the native grid, a slab at a time, each computed alone from the rows it needs.

        Interpolation is linear, with a low-pass along axes where the native grid is the coarser one.

        Args:
            scores: (K, *shape), float32.
            fill: (K,), the scores of voxels outside the crop.
            thickness: voxels of a slab along the last native axis; memory grows with it.

        Yields:
            The slab's range along the last native axis, and its scores (K, *native_shape[:-1], up to ``thickness``).
        """
        last = len(self.shape) - 1
        axis = self.order.index(last)  # the network axis along which slabs are cut
        crop = self._unflipped_crop()
        start, stop = crop[axis]
        box = tuple(slice(*crop[self.order.index(native)]) for native in range(last))
        for low in range(0, self.native_shape[last], thickness):
            high = min(low + thickness, self.native_shape[last])
            slab = fill.to(scores).view(-1, *[1] * (last + 1)).repeat(1, *self.native_shape[:-1], high - low)
            inside = slice(max(low, start), min(high, stop))
            if inside.start < inside.stop:
                values = self._uncut(scores, axis, slice(inside.start - start, inside.stop - start))
                slab[(slice(None), *box, slice(inside.start - low, inside.stop - low))] = values
            yield slice(low, high), slab

    def _uncut(self, scores: Tensor, axis: int, rows: slice) -> Tensor:
        """Bring (K, *shape) to the crop on the native grid; of network axis ``axis`` only ``rows``, in native order."""
        length = self.cut_shape[axis]
        if self.flips[axis]:
            rows = slice(length - rows.stop, length - rows.start)
        x = resample_axis(scores, 1 + axis, taps(self.shape[axis], length, "linear", rows))
        for other, (old, new) in enumerate(zip(self.shape, self.cut_shape, strict=True)):
            x = x if other == axis else resample_axis(x, 1 + other, taps(old, new, "linear"))
        x = x.flip(self._flipped_axes())
        return x.permute(0, *(1 + self.order.index(native) for native in range(len(self.order))))

    def network_affine(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the 4x4 affine of the network grid, for the native grid's: both map voxel centres to world mm."""
        dims = len(self.order)
        to_native = np.eye(4)  # network voxel index -> native voxel index
        to_native[:dims, :dims] = 0
        for axis, native in enumerate(self.order):
            (start, stop), length = self.crop[axis], self.native_shape[native]
            scale = (stop - start) / self.shape[axis]
            offset = start + scale / 2 - 0.5
            to_native[native, axis] = -scale if self.flips[axis] else scale
            to_native[native, 3] = length - 1 - offset if self.flips[axis] else offset
        return np.asarray(affine @ to_native)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, for a file."""
        plain = {name: list(value) for name, value in asdict(self).items()}
        return {**plain, "crop": [list(span) for span in self.crop]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Geometry":
        """Read what ``to_dict`` returned."""
        fields = {name: tuple(value) for name, value in plain.items()}
        return cls(**{**fields, "crop": tuple((start, stop) for start, stop in plain["crop"])})

    def _unflipped_crop(self) -> list[tuple[int, int]]:
        """Return the crop per network axis, counted in the native direction."""
        lengths = [self.native_shape[native] for native in self.order]
        return [
            (length - stop, length - start) if flip else (start, stop)
            for (start, stop), length, flip in zip(self.crop, lengths, self.flips, strict=True)
        ]

    def _flipped_axes(self) -> list[int]:
        """Return the flipped axes of a (C, *network axes) array."""
        return [1 + axis for axis, flip in enumerate(self.flips) if flip]


def whole(affine: NDArray[np.float64], shape: Sequence[int]) -> Geometry:
    """Return the geometry that only orients a scan: no crop, no resampling."""
    order, flips = orient(affine, shape)
    lengths = tuple(shape[native] for native in order)
    return Geometry(tuple(shape), order, flips, tuple((0, length) for length in lengths), lengths)


def bounding_box(mask: Tensor, margin: int) -> tuple[tuple[int, int], ...]:
    """Return (start, stop) along each axis of the True voxels in ``mask`` (*spatial), at least one, and a margin."""
    spans = []
    for axis in range(mask.dim()):
        others = [other for other in range(mask.dim()) if other != axis]
        found = torch.nonzero(mask.any(others))
        spans.append((max(0, int(found[0]) - margin), min(mask.shape[axis], int(found[-1]) + 1 + margin)))
    return tuple(spans)
