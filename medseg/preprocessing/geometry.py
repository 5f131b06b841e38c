"""Where the network grid lies on a scan's native grid: axis order, flips, crop, scale; and back to it by slabs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, floor, prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nibabel.orientations import io_orientation
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import MedsegError
from medseg.io.grids.grid import bounding_box
from medseg.preprocessing.resample import Kernel, interpolation, resample_axis

MANY = 16
"""Classes from which on they lie last in memory."""

SLAB = 1 << 25
"""Numbers that exist on the native grid at once: 128 MB of float32."""


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
    network axes so much coarser than the others that images and labels are not interpolated across them. ``back`` holds
    a kernel per network axis for the way back; empty: linear along all.
    """

    native_shape: tuple[int, ...]
    order: tuple[int, ...]
    flips: tuple[bool, ...]
    crop: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    coarse: tuple[int, ...] = ()
    back: tuple[Kernel, ...] = ()

    @property
    def cut_shape(self) -> tuple[int, ...]:
        """Shape after orientation and crop, before resampling."""
        return tuple(stop - start for start, stop in self.crop)

    def kernels(self, fine: Kernel) -> tuple[Kernel, ...]:
        """Return a kernel per network axis: "nearest" across the coarse ones, else ``fine``."""
        return tuple("nearest" if axis in self.coarse else fine for axis in range(len(self.shape)))

    def cut(self, x: Tensor) -> Tensor:
        """Orient and crop ``x`` (C, *native_shape), on the CPU, to (C, *cut_shape) in memory of its own."""
        if tuple(x.shape[1:]) != self.native_shape:
            raise ValueError(f"array of spatial shape {tuple(x.shape[1:])}, the scan's is {self.native_shape}")
        oriented = x.numpy().transpose(0, *(1 + axis for axis in self.order))
        cut = oriented[(slice(None), *(slice(*span) for span in self._unflipped_crop()))]
        return torch.from_numpy(np.array(np.flip(cut, tuple(self._flipped_axes())), order="C"))  # flipped in the copy

    def cropped(self, mask: Tensor, margin: int = 0) -> "Geometry":
        """Return this geometry with its crop round the True voxels of ``mask`` (1, *native_shape), and a margin."""
        box = bounding_box(self.cut(mask)[0].numpy(), margin)
        return replace(self, crop=tuple((span.start, span.stop) for span in box))

    def narrowed(self, region: Sequence[tuple[float, float]]) -> tuple["Geometry", tuple[slice, ...]]:
        """Return this geometry with less of its crop, and where that lies in the crop.

        ``region`` holds for each network axis where it begins and ends, in fractions of the crop.
        """
        lengths = self.cut_shape
        inside = tuple(
            slice(floor(start * length), max(ceil(stop * length), floor(start * length) + 1))
            for (start, stop), length in zip(region, lengths, strict=True)
        )
        sizes = [part.stop - part.start for part in inside]
        crop = tuple((low + part.start, low + part.stop) for (low, _), part in zip(self.crop, inside, strict=True))
        shape = tuple(
            max(1, round(voxels * size / length))
            for voxels, size, length in zip(self.shape, sizes, lengths, strict=True)
        )
        return replace(self, crop=crop, shape=shape), inside

    def resample(self, x: Tensor, kernels: Sequence[Kernel]) -> Tensor:
        """Resample ``x`` (C, *cut_shape) to (C, *shape)."""
        lengths = self.cut_shape
        shrinking_first = sorted(range(len(self.shape)), key=lambda axis: self.shape[axis] / lengths[axis])
        for axis in shrinking_first:
            x = resample_axis(x, 1 + axis, interpolation(lengths[axis], self.shape[axis], kernels[axis]))
        return x

    @property
    def slab_axis(self) -> tuple[int, bool]:
        """The network axis that is the native grid's last one, along which slabs are cut, and whether it is flipped."""
        axis = self.order.index(len(self.order) - 1)
        return axis, self.flips[axis]

    def in_one_block(self, values: Tensor) -> Iterator[Tensor]:
        """Yield values (K, *shape) of the whole network grid as ``slabs`` takes them."""
        axis, is_flipped = self.slab_axis
        yield values.flip(1 + axis) if is_flipped else values

    def slabs(self, blocks: Iterator[Tensor], fill: Tensor, most: int = SLAB) -> Iterator[tuple[slice, Tensor]]:
        """Bring probabilities or logits back to the native grid, a slab of slices of its last axis at a time.

        So only a slab of all classes is in memory, and slabs come in the order in which NIfTI files store them.
        Interpolation is linear, with a low-pass along axes where the native grid is the coarser one, unless ``back``
        says otherwise.

        Args:
            blocks: values (K, *shape), float32, cut along ``slab_axis`` and in the native direction: where this axis is
                flipped, the last block comes first, and each is reversed. They may be overwritten later.
            fill: (K,), the values of voxels outside the crop.
            most: numbers in a slab; at least one slice is made.

        Yields:
            The slab's range along the last native axis, and its values (K, *native_shape[:-1], a few slices).
        """
        *others, length = self.native_shape
        thickness = max(1, most // (len(fill) * prod(others)))
        slabs = [slice(low, min(low + thickness, length)) for low in range(0, length, thickness)]
        # The crop on the native grid: a box across the other axes, and from start to stop along the last one.
        *box, (start, stop) = [self._unflipped_crop()[self.order.index(native)] for native in range(len(self.order))]
        # What of each slab the crop covers: first counted on the native grid, then from the crop's own beginning.
        covered = [slice(max(slab.start, start), min(slab.stop, stop)) for slab in slabs]
        inside = [slice(span.start - start, span.stop - start) for span in covered if span.start < span.stop]
        values = self._uncut(blocks, inside)  # one for each slab that meets the crop
        for slab, span in zip(slabs, covered, strict=True):
            if span == slab and box == [(0, size) for size in others]:
                yield slab, next(values)
                continue
            filled = fill.view(-1, *[1] * len(self.native_shape)).repeat(1, *others, slab.stop - slab.start)
            if span.start < span.stop:
                within = slice(span.start - slab.start, span.stop - slab.start)
                filled[(slice(None), *(slice(*edges) for edges in box), within)] = next(values)
            yield slab, filled

    def _uncut(self, blocks: Iterator[Tensor], spans: Sequence[slice]) -> Iterator[Tensor]:
        """Yield values on the native grid's crop, only the ``spans`` of its last axis, in native order.

        Each span is interpolated along the last native axis first, from the few network slices that it needs (the
        indices of the interpolation say which), and then across: so no more than one slab exists on the native grid.
        """
        main, _ = self.slab_axis
        linear: Kernel = "linear"
        kernels = self.back or (linear,) * len(self.shape)
        along = [interpolation(self.shape[main], self.cut_shape[main], kernels[main], span) for span in spans]
        needed = [(int(indices.min()), int(indices.max()) + 1) for indices, _ in along]
        flipped = [axis for axis in self._flipped_axes() if axis != 1 + main]
        sizes = [size for axis, size in enumerate(self.cut_shape) if axis != main]
        across = [kernel for axis, kernel in enumerate(kernels) if axis != main]
        for x, (first, _), (indices, weights) in zip(cut_out(blocks, 1 + main, needed), needed, along, strict=True):
            x = resample_axis(x, 1 + main, (indices - first, weights)).flip(flipped)
            x = planes(x.movedim(1 + main, 0), sizes, across).movedim(0, 1 + main)  # (K, *network axes)
            yield x.permute(0, *(1 + self.order.index(native) for native in range(len(self.order))))

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


def planes(x: Tensor, sizes: Sequence[int], kernels: Sequence[Kernel]) -> Tensor:
    """Resample planes (n, K, *axes) to ``sizes``: one axis (of a 2D image) or two, with a kernel each.

    PyTorch's own kernels take a tenth of the time of two passes. They are fastest with many classes last in memory.
    """
    if list(x.shape[2:]) == list(sizes):
        return x
    if list(kernels) not in (["linear"] * 2, ["sharp"] * 2):
        for axis, (size, kernel) in enumerate(zip(sizes, kernels, strict=True), 2):
            x = resample_axis(x, axis, interpolation(x.shape[axis], size, kernel))
        return x
    layout = torch.channels_last if x.shape[1] >= MANY else torch.contiguous_format
    shrinks = any(new < old for old, new in zip(x.shape[2:], sizes, strict=True))
    return F.interpolate(
        x.contiguous(memory_format=layout),
        list(sizes),
        mode="bilinear",
        align_corners=False,
        antialias=shrinks and kernels[0] == "linear",
    )


def cut_out(blocks: Iterator[Tensor], axis: int, spans: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """Yield the slices of each span out of blocks of slices that follow each other along ``axis``.

    No span begins before the one before it. Blocks are copied, for they are overwritten when the next is asked for.
    """
    first, held = 0, next(blocks).clone()  # the slices that are held, and where they begin
    for start, stop in spans:
        while (end := first + held.shape[axis]) < stop:
            keep_from = min(start, end)  # slices before the span are needed no more
            held = torch.cat([held.narrow(axis, keep_from - first, end - keep_from), next(blocks)], axis)
            first = keep_from
        yield held.narrow(axis, start - first, stop - start)


def whole(affine: NDArray[np.float64], shape: Sequence[int]) -> Geometry:
    """Return the geometry that only orients a scan: no crop, no resampling."""
    order, flips = orient(affine, shape)
    lengths = tuple(shape[native] for native in order)
    return Geometry(tuple(shape), order, flips, tuple((0, length) for length in lengths), lengths)
