"""Rotation, scaling, elastic deformation, mirroring and crop of image and label together, by one interpolation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.augmentation.filters import along_axes, bspline
from medseg.augmentation.random import RandomNumbers
from medseg.config.arguments import check_argument, check_declared, check_range
from medseg.config.schema import Setting

_THIN = 3
"""A 3D patch more than this many times thinner along its shortest axis than its longest is a stack of slices."""

_UNFOLDED = 0.4
"""Share of their distance by which control points of cubic B-splines may move and nothing folds over: 1 / 2.48 in 3D
(Choi and Lee, "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", 2000)."""


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """Rotate, scale and deform some samples about their centre, and mirror all of them at random.

    Image and label may be larger than the result by a margin, from which tissue is turned in. Beyond what is given, the
    image is 0 and the label background, as in nnU-Net: a patch then looks like one that reaches past the edge of its
    scan. Samples that are neither drawn nor mirrored keep their bits; mirroring alone is exact. The image is
    interpolated linearly, the label by nearest neighbour.

    Args:
        rotation: largest angle in degrees, either way, 0 to 180; None, as nnU-Net: 30 in 3D, about all three axes. Thin
            3D patches (more than three times thinner than wide) turn only within their slices. These, as 2D patches,
            turn by 15 where they are more than 1.5 times longer than wide, else by 180 where both axes are mirrored
            (the images share no common position), else by 30.
        rotation_probability: of a sample to be rotated.
        scale: [low, high] of the magnification, the same along every axis; above 1 objects grow, and a half is as
            likely as a double. Thin 3D patches are scaled only within their slices.
        scale_probability: of a sample to be scaled.
        elastic_magnitude: [low, high] of the largest displacement of a control point along each axis, as a share of
            the distance between control points. Up to 0.4, where nothing can fold over.
        elastic_scale: distance between control points, as a share of the patch's longest axis. Cubic B-splines
            between them make the field smooth. Thin 3D patches are deformed within their slices, all alike.
        elastic_probability: of a sample to be deformed.
        mirror_axes: spatial axes that are each mirrored in half of the samples; None: none.
        spacing: voxel size along each axis, so that angles are true on anisotropic voxels; None: all alike.

    Raises:
        MedsegError: an argument is out of its range, or an axis is not one of the patch's.
    """

    rotation: Annotated[float | None, Setting("largest rotation, in degrees", "[0, 180]", "nnU-Net's rule")] = None
    rotation_probability: Annotated[float, Setting("share of the samples that are rotated", "[0, 1]")] = 0.2
    scale: Annotated[Sequence[float], Setting("[low, high] of the magnification", "(0, inf)")] = (0.7, 1.4)
    scale_probability: Annotated[float, Setting("share of the samples that are scaled", "[0, 1]")] = 0.2
    elastic_magnitude: Annotated[
        Sequence[float], Setting("[low, high] displacement, as a share of elastic_scale", f"[0, {_UNFOLDED}]")
    ] = (0.0, 0.25)
    elastic_scale: Annotated[float, Setting("distance of control points, as a share of the longest axis", "(0, 1]")] = (
        0.25
    )
    elastic_probability: Annotated[float, Setting("share of the samples that are deformed", "[0, 1]")] = 0.0
    mirror_axes: Sequence[int] | None = None
    spacing: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the ranges of the arguments."""
        check_declared("augment", self)
        check_range("augment", self, "scale")
        check_range("augment", self, "elastic_magnitude")
        axes, spacing = list(self.mirror_axes or ()), list(self.spacing or ())
        are_axes = {*axes} <= {0, 1, 2} and len({*axes}) == len(axes)
        check_argument("augment", self, "mirror_axes", axes, are_axes, "each of 0, 1, 2 once")
        check_argument("augment", self, "spacing", spacing, all(length > 0 for length in spacing), "lengths above 0")

    def __call__(
        self, image: Tensor, label: Tensor, random: RandomNumbers, margin: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Transform a batch.

        Args:
            image: (B, C, *spatial), floating.
            label: (B, 1, *spatial) of any integer type.
            random: the random numbers of B samples.
            margin: voxels on either side of each axis by which both are larger than the result; None: none.

        Returns:
            Image and label of the same types, (B, C, *spatial without margin) and (B, 1, *spatial without margin).
        """
        margin = list(margin or [0] * (image.ndim - 2))
        shape = [size - 2 * beside for size, beside in zip(image.shape[2:], margin, strict=True)]
        centre = [slice(beside, beside + size) for beside, size in zip(margin, shape, strict=True)]
        inner = (slice(None), slice(None), *centre)
        new_image, new_label = image[inner].contiguous(), label[inner].contiguous()
        with torch.autocast(image.device.type, enabled=False), torch.autocast("cpu", enabled=False):
            # Half-precision coordinates would be off by voxels.
            axes, dims = list(self.mirror_axes or ()), len(shape)
            fits = all(axis < dims for axis in axes)
            check_argument("augment", self, "mirror_axes", axes, fits, f"axes below {dims}, as the patch is {dims}D")
            allowed = torch.zeros(dims, dtype=torch.bool)
            allowed[axes] = True
            mirrored = random.chosen(0.5, dims) & allowed  # (B, d)

            angle, planes = self._largest_angle(shape), len(list(combinations(in_plane(shape), 2)))
            is_turned, is_scaled = random.chosen(self.rotation_probability), random.chosen(self.scale_probability)
            angles = random.uniform((-angle, angle), planes) * is_turned[:, None]
            magnification = random.log_uniform(self.scale).where(is_scaled, torch.ones(()))
            affines = self._affines(shape, angles, magnification)
            affines = affines * torch.where(mirrored, -1.0, 1.0)[:, None, :]  # mirroring is a factor of the columns

            is_bent, displacements = self._draw_displacements(random, shape)
            is_moved = is_turned | is_scaled | is_bent  # all others are at most mirrored, which needs no interpolation
            indices = is_moved.nonzero().squeeze(1)
            if len(indices):
                bent = is_bent[indices].nonzero().squeeze(1)
                field = self._field(displacements[indices][bent].to(image.device, non_blocking=True), shape)
                grid = _grid(affines[indices], field, bent, shape, image.shape[2:])
                indices = indices.to(image.device, non_blocking=True)
                moved = F.grid_sample(image[indices].float(), grid, mode="bilinear", align_corners=False)
                labels = F.grid_sample(label[indices].float(), grid, mode="nearest", align_corners=False)
                new_image.index_copy_(0, indices, moved.to(image.dtype))
                new_label.index_copy_(0, indices, labels.to(label.dtype))
        for sample, flags in enumerate((mirrored & ~is_moved[:, None]).tolist()):
            if flipped := [axis + 1 for axis, flag in enumerate(flags) if flag]:
                new_image[sample] = new_image[sample].flip(flipped)
                new_label[sample] = new_label[sample].flip(flipped)
        return new_image, new_label

    def reach(self, patch_size: Sequence[int]) -> list[int]:
        """Return the margin, on either side of each axis, beyond which no draw reads for a patch of this size."""
        shape = list(patch_size)
        planes = len(list(combinations(in_plane(shape), 2)))
        angle = self._largest_angle(shape) if self.rotation_probability else 0.0
        turns = torch.linspace(-angle, angle, 31)
        angles = torch.cartesian_prod(*[turns] * planes).reshape(-1, planes) if planes else torch.zeros(1, 0)
        magnification = self.scale[0] if self.scale_probability else 1.0
        affines = self._affines(shape, angles, torch.full((len(angles),), magnification))
        half = (torch.tensor(shape) - 1) / 2
        bend = torch.zeros(len(shape))
        if self.elastic_probability:
            for axis in in_plane(shape):
                bend[axis] = self.elastic_magnitude[1] * self._distances(shape)[axis]
        furthest = (affines.abs() @ (half + bend)).amax(0)
        return [max(0, ceil(beyond - 1e-3)) for beyond in (furthest - half).tolist()]

    def _affines(self, shape: Sequence[int], angles: Tensor, magnification: Tensor) -> Tensor:
        """From a voxel of the result to the voxel that lands on it, both from the centre: (n, d, d).

        ``angles`` (n, planes) in degrees, ``magnification`` (n,).
        """
        dims, axes = len(shape), in_plane(shape)
        factors = torch.ones(len(angles), dims)
        factors[:, axes] = 1 / magnification[:, None]
        affines = torch.diag_embed(factors)
        for column, (first, second) in enumerate(combinations(axes, 2)):
            radians = angles[:, column].deg2rad()
            rotations = torch.eye(dims).repeat(len(angles), 1, 1)  # of the first axis towards the second
            rotations[:, first, first] = rotations[:, second, second] = radians.cos()
            rotations[:, second, first] = radians.sin()
            rotations[:, first, second] = -radians.sin()
            affines = rotations @ affines
        spacing = torch.tensor(self._lengths(dims))
        return affines * spacing / spacing[:, None]  # millimetres -> voxels

    def _largest_angle(self, shape: Sequence[int]) -> float:
        """The bound of the rotation for a patch of this shape, in degrees."""
        if self.rotation is not None:
            return float(self.rotation)
        axes = in_plane(shape)
        if len(axes) == 3:
            return 30.0
        sizes = [shape[axis] for axis in axes]
        if max(sizes) > 1.5 * min(sizes):
            return 15.0
        return 180.0 if {*axes} <= {*(self.mirror_axes or ())} else 30.0

    def _lengths(self, dims: int) -> list[float]:
        """The voxel size along each axis."""
        spacing = [float(length) for length in self.spacing or [1.0] * dims]
        check_argument(
            "augment", self, "spacing", spacing, len(spacing) == dims, f"{dims} lengths, as the patch is {dims}D"
        )
        return spacing

    def _distances(self, shape: Sequence[int]) -> list[float]:
        """The distance between control points along each axis, in voxels; the same in millimetres."""
        spacing = self._lengths(len(shape))
        longest = max(size * length for size, length in zip(shape, spacing, strict=True))
        return [self.elastic_scale * longest / length for length in spacing]

    def _knots(self, shape: Sequence[int]) -> list[int]:
        """The number of control points along each axis; a single one across the slices of a thin patch."""
        axes, distances = in_plane(shape), self._distances(shape)
        return [
            ceil((size - 1) / distance) + 3 if axis in axes else 1
            for axis, (size, distance) in enumerate(zip(shape, distances, strict=True))
        ]

    def _draw_displacements(self, random: RandomNumbers, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Which samples are deformed, bool (B,), and by how many voxels each control point moves: (B, d, *knots)."""
        dims = len(shape)
        is_bent = random.chosen(self.elastic_probability)
        if not self.elastic_probability:
            return is_bent, torch.zeros(len(random), dims, *[1] * dims)
        largest = random.uniform(self.elastic_magnitude, 1) * torch.tensor(self._distances(shape))  # (B, d)
        largest[:, [axis for axis in range(dims) if axis not in in_plane(shape)]] = 0
        return is_bent, random.uniform((-1, 1), dims, *self._knots(shape)) * largest.reshape(-1, dims, *[1] * dims)

    def _field(self, displacements: Tensor, shape: Sequence[int]) -> Tensor:
        """Displacements of the control points (n, d, *knots) -> of the voxels (n, d, *shape)."""
        if not len(displacements):
            return displacements
        sizes = zip(shape, self._knots(shape), self._distances(shape), strict=True)
        matrices = [torch.ones(size, 1) if n == 1 else bspline(size, n, distance) for size, n, distance in sizes]
        matrices = [matrix.to(displacements.device, non_blocking=True) for matrix in matrices]
        field = along_axes(displacements.flatten(0, 1), matrices)
        return field.reshape(*displacements.shape[:2], *shape)


def in_plane(shape: Sequence[int]) -> list[int]:
    """Return the axes along which a patch is augmented: all, or of a thin 3D patch those of its slices."""
    shortest = min(range(len(shape)), key=lambda axis: shape[axis])
    is_thin = len(shape) == 3 and shape[shortest] * _THIN < max(shape)
    return [axis for axis in range(len(shape)) if not (is_thin and axis == shortest)]


def _grid(affines: Tensor, field: Tensor, bent: Tensor, shape: Sequence[int], input_shape: Sequence[int]) -> Tensor:
    """Where each voxel of the result is read, as grid_sample counts: each axis from -1 to 1, the last axis first.

    Args:
        affines: (n, d, d), from the result's voxels to those of the input, on the CPU.
        field: (m, d, *shape) voxels by which those of the samples ``bent`` (m,) are displaced beforehand.
        bent: which of the n samples they are.
        shape: of the result.
        input_shape: the shape of what is read.

    Returns:
        (n, *shape, d).
    """
    size, full = torch.tensor(shape), torch.tensor(input_shape)
    theta = F.pad((affines * size / full[:, None]).flip(1, 2), (0, 1))  # (n, d, d + 1)
    theta = theta.to(field.device, torch.float32, non_blocking=True)
    grid = F.affine_grid(theta, [len(theta), 1, *shape], align_corners=False)
    if len(bent):
        steps = (affines[bent] * 2 / full[:, None]).flip(1).mT  # (m, d, d): voxels, first axis first -> grid
        moved = field.flatten(2).mT @ steps.to(field.device, non_blocking=True)  # (m, voxels, d)
        grid.index_add_(0, bent.to(field.device, non_blocking=True), moved.reshape(len(bent), *shape, len(shape)))
    return grid
