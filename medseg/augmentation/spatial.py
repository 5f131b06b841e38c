"""Rotation, scaling and mirroring of image and label together, by one interpolation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.augmentation.draws import check, check_probability, check_range, chosen, log_uniform, uniform

_THIN = 3
"""A 3D patch more than this many times shorter along an axis than along its longest is handled as a stack of slices."""


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """Rotate and scale some samples about their centre, and mirror all of them at random.

    Outside the patch the image becomes 0 and the label background, as in nnU-Net: a rotated patch then looks like one
    that reaches past the edge of its scan. Repeating the border instead would show tissue that the label denies.
    Samples neither drawn nor mirrored keep their bits; mirroring alone is exact.

    Args:
        rotation: largest angle in degrees, either way, 0 to 180. A 3D patch turns about its three axes; if it is more
            than three times as wide as thick, only within its slices, which are then also scaled only in-plane.
        scale: [low, high] of the magnification, the same along every axis; above 1 objects grow.
        probability: of a sample to be rotated and scaled.
        mirror_axes: spatial axes that are each mirrored in half of the samples; None: none.
        spacing: voxel size along each axis, so that angles are true on anisotropic voxels; None: all alike.

    Raises:
        MedsegError: an argument is out of its range, or an axis is not one of the patch's.
    """

    rotation: float = 30.0
    scale: Sequence[float] = (0.7, 1.4)
    probability: float = 0.5
    mirror_axes: Sequence[int] | None = None
    spacing: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_probability(self, self.probability)
        check(self, "rotation", self.rotation, 0 <= self.rotation <= 180, "degrees from 0 to 180")
        check_range(self, "scale", self.scale)
        axes = list(self.mirror_axes or ())
        check(self, "mirror_axes", axes, {*axes} <= {0, 1, 2} and len({*axes}) == len(axes), "each of 0, 1, 2 once")
        spacing = list(self.spacing or ())
        check(self, "spacing", spacing, all(length > 0 for length in spacing), "lengths above 0")

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """image (B, C, *spatial), label (B, 1, *spatial) of any integer type -> the same shapes and types."""
        batch, shape = len(image), image.shape[2:]
        indices = chosen(batch, self.probability, generator)
        mirrored = self._draw_mirrored(batch, len(shape), generator)
        with torch.autocast(image.device.type, enabled=False):  # half-precision coordinates would be off by voxels
            affines = self._draw_affines(batch, shape, generator)
            affines = affines * torch.where(mirrored, -1.0, 1.0)[:, None, :]  # mirroring is a factor of the columns
            image, label = _mirror(image, label, mirrored.index_fill(0, indices, False))
            return _resample(image, label, indices, affines[indices])

    def _draw_mirrored(self, batch: int, dims: int, generator: torch.Generator) -> Tensor:
        """Which axes of which sample are mirrored: bool (B, dims)."""
        allowed = torch.zeros(dims, dtype=torch.bool)
        axes = list(self.mirror_axes or ())
        fits = all(axis < dims for axis in axes)
        check(self, "mirror_axes", axes, fits, f"axes below {dims}, as the patch is {dims}D")
        allowed[axes] = True
        return (torch.rand(batch, dims, generator=generator) < 0.5) & allowed

    def _draw_affines(self, batch: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """From a voxel of the result to the voxel of the patch that lands on it, both from the centre: (B, d, d)."""
        dims = len(shape)
        free = [axis for axis, size in enumerate(shape) if dims == 2 or size * _THIN >= max(shape)]
        spacing = torch.tensor(list(self.spacing or [1.0] * dims))
        check(self, "spacing", spacing.tolist(), len(spacing) == dims, f"{dims} lengths, as the patch is {dims}D")
        magnification = torch.ones(batch, dims)
        magnification[:, free] = log_uniform(self.scale, (batch, 1), generator)
        affines = torch.diag_embed(1 / magnification)
        for plane in combinations(free, 2):
            angles = uniform((-self.rotation, self.rotation), (batch,), generator).deg2rad()
            affines = _rotations(angles, plane, dims) @ affines
        return affines * spacing / spacing[:, None]  # millimetres -> voxels


def _rotations(angles: Tensor, plane: tuple[int, int], dims: int) -> Tensor:
    """Angles (B,) in radians -> the rotations (B, dims, dims) of a plane's first axis towards its second."""
    first, second = plane
    matrices = torch.eye(dims).repeat(len(angles), 1, 1)
    matrices[:, first, first] = matrices[:, second, second] = angles.cos()
    matrices[:, second, first] = angles.sin()
    matrices[:, first, second] = -angles.sin()
    return matrices


def _mirror(image: Tensor, label: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
    """Flip the axes of each sample that ``mirrored`` (B, dims) names."""
    if not mirrored.any():
        return image, label
    image, label = image.clone(), label.clone()
    for sample, flags in enumerate(mirrored.tolist()):
        if axes := [axis + 1 for axis, flag in enumerate(flags) if flag]:
            image[sample] = image[sample].flip(axes)
            label[sample] = label[sample].flip(axes)
    return image, label


def _resample(image: Tensor, label: Tensor, indices: Tensor, affines: Tensor) -> tuple[Tensor, Tensor]:
    """Move the samples at ``indices`` (n,) by ``affines`` (n, d, d): the image linearly, the label to the nearest."""
    if not len(indices):
        return image, label
    size = torch.tensor(image.shape[2:])
    # grid_sample counts each axis from -1 to 1 whatever its length, and the last axis first.
    theta = F.pad((affines * size / size[:, None]).flip(1, 2), (0, 1))  # (n, d, d + 1)
    indices = indices.to(image.device, non_blocking=True)
    theta = theta.to(image.device, torch.float32, non_blocking=True)
    grid = F.affine_grid(theta, [len(theta), 1, *image.shape[2:]], align_corners=False)  # (n, *spatial, d)
    moved = F.grid_sample(image[indices].float(), grid, mode="bilinear", align_corners=False)
    labels = F.grid_sample(label[indices].float(), grid, mode="nearest", align_corners=False)
    return image.index_copy(0, indices, moved.to(image.dtype)), label.index_copy(0, indices, labels.to(label.dtype))
