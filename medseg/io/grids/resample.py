"""Bringing images and labels from one grid onto another in scanner coordinates."""

from itertools import product
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from medseg.io.grids.grid import Grid, as_volume, bounding_box, index_map, inside, same_grid, simpleitk, voxel_map

Spans = tuple[slice, ...]


def resample_image(image: NDArray[np.float32], source: Grid, target: Grid) -> NDArray[np.float32]:
    """Bring the channels (C, *source.shape) onto another grid (C, *target.shape) in scanner coordinates.

    Interpolation is linear: it stays within the values of its neighbours, so that a background of one value, which
    normalisation knows by being a channel's minimum, is that value still; a cubic kernel would put ripples into it. A
    voxel at least 1.5 source voxels long is a mean over its length, as a coarser scan's is, or else detail that it
    cannot hold would come back as noise. Outside the source is the channel's minimum, again for background.

    Where grids differ in the order and direction of axes only, voxels are copied as they are.
    """
    shape, source, target = target.shape, as_volume(source), as_volume(target)
    turned, source = turn(np.moveaxis(image, 0, -1).reshape(*source.shape, len(image)), source, target)
    channels = np.moveaxis(turned, -1, 0)  # (C, *source.shape), its axes as close to the target's as can be
    if same_grid(source, target):
        return np.ascontiguousarray(channels).reshape(-1, *shape)
    outside = ~inside(source, target)
    result = np.empty((len(image), *target.shape), dtype=np.float32)
    for resampled, channel in zip(result, channels, strict=True):
        resampled[...] = sample(channel, index_map(source, target), target.shape)
        resampled[outside] = channel.min()
    return result.reshape(-1, *shape)


def resample_labels(labels: NDArray[np.int32], source: Grid, target: Grid, background: int = 0) -> NDArray[np.int32]:
    """Bring labels (*source.shape) onto another grid in scanner coordinates: (*target.shape).

    A voxel takes the value with the largest share of it, the shares being interpolated as ``resample_image`` does. So
    borders stay smooth where the source is coarse, while nearest neighbours make steps of them. Values are resampled
    one after the other and each where it occurs only, so that many cost little more than one.

    Outside the source, and where no other value has the largest share, voxels are ``background``.
    """
    shape, (source, target) = target.shape, map(as_volume, (source, target))
    labels, source = turn(labels.reshape(source.shape), source, target)
    if same_grid(source, target):
        return np.ascontiguousarray(labels).reshape(shape)
    result = np.full(target.shape, background, dtype=np.int32)
    total, largest = np.zeros(target.shape, dtype=np.float32), np.zeros(target.shape, dtype=np.float32)
    for value in np.unique(labels[labels != background]):
        reached, its = share(labels == value, source, target)
        total[reached] += its
        larger = its > largest[reached]
        result[reached][larger] = value
        largest[reached][larger] = its[larger]
    result[(largest <= 1 - total) | ~inside(source, target)] = background
    return result.reshape(shape)


def turn(array: NDArray[Any], source: Grid, target: Grid) -> tuple[NDArray[Any], Grid]:
    """Permute and flip the axes of (*source.shape, …) to run as close to those of ``target`` as they can."""
    orientation = io_orientation(index_map(target, source))
    turned = apply_orientation(array, orientation)
    return turned, Grid(turned.shape[:3], source.affine @ inv_ornt_aff(orientation, source.shape))


def sample(array: NDArray[np.float32], to_source: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return linear samples (*shape) of ``array`` at ``to_source`` of each index, as means over long voxels.

    Beyond its edges the array goes on with its outermost values.
    """
    matrix, origin = to_source[:3, :3], to_source[:3, 3]
    # where in a voxel samples lie, in source voxels from its centre: (samples, 3)
    offsets = np.array([*product(*map(points, np.linalg.norm(matrix, axis=0)))]) @ matrix.T
    margin = 1 + np.ceil(np.abs(offsets).max(axis=0)).astype(int)
    lowest = array.min()
    padded = np.pad(array, margin[:, None], mode="edge")
    padded -= lowest  # so that background is 0, whose weighted sums are not rounded
    sitk = simpleitk()
    image = sitk.GetImageFromArray(padded)  # ITK's axes are these in reverse
    del padded  # of which that is a copy
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([*map(int, reversed(shape))])
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    resampler.SetNumberOfThreads(1)  # cases are read in several threads already
    result = np.zeros(shape, dtype=np.float32)
    for offset in offsets:
        directions, start = snapped(matrix, 1e-6), snapped(origin + offset, 1e-4) + margin
        transform = sitk.AffineTransform(directions[::-1, ::-1].ravel().tolist(), start[::-1].tolist())
        resampler.SetTransform(transform)
        result += sitk.GetArrayFromImage(resampler.Execute(image))
    result /= len(offsets)
    result += lowest
    return result


def snapped(values: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Return values, those that are whole but for ``tolerance`` rounded.

    Headers hold positions in single precision: without this a voxel of the background beside a bright one would get a
    millionth of it where grids coincide, and be foreground.
    """
    whole = np.rint(values)
    return np.where(np.abs(values - whole) < tolerance, whole, values)


def points(length: float) -> NDArray[np.float64]:
    """Return where a voxel of this length in source voxels is sampled along it: its extent is from -0.5 to 0.5."""
    count = max(1, round(length))
    return (np.arange(count) + 0.5) / count - 0.5


def share(mask: NDArray[np.bool_], source: Grid, target: Grid) -> tuple[Spans, NDArray[np.float32]]:
    """Return the part of ``target`` that a mask (*source.shape) reaches, and which share of the voxels there is in it.

    The mask is cut out before it is sampled, or else many small structures would take long.
    """
    near = bounding_box(mask, margin=1)
    start, stop = np.array([(span.start, span.stop) for span in near]).T
    reached = reach(Grid(tuple(stop - start), index_map(target, source) @ voxel_map(np.ones(3), start)), target.shape)
    first = np.array([span.start for span in reached])
    to_source = voxel_map(np.ones(3), -start) @ index_map(source, target) @ voxel_map(np.ones(3), first)
    return reached, sample(mask[near].astype(np.float32), to_source, tuple(span.stop - span.start for span in reached))


def reach(grid: Grid, shape: tuple[int, ...]) -> Spans:
    """Return the spans of an array of this shape whose voxels touch a grid that is described in its indices."""
    low, high = grid.box
    first = np.clip(np.floor(low).astype(int), 0, shape)
    last = np.clip(np.ceil(high).astype(int) + 1, first, shape)
    return tuple(slice(int(start), int(stop)) for start, stop in zip(first, last, strict=True))
