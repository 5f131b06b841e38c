"""Linear maps that work axis by axis, each given by a matrix for every axis: blurring, coarsening, interpolation.

A matrix holds the treatment of the borders, may differ from row to row of a batch, and makes one multiplication of what
would be a loop over taps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def along_axes(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Apply to each spatial axis its matrix.

    Args:
        x: (n, *spatial).
        matrices: for each axis (n, new, old), or (new, old) for all rows alike.

    Returns:
        (n, *new).
    """
    for matrix in matrices:  # each is multiplied to the first axis, which then goes last: in the end all are in order
        rest = x.shape[2:]
        x = x.flatten(2).mT if len(rest) else x[:, None]  # (n, rest, old)
        x = (x @ matrix.mT).reshape(len(x), *rest, matrix.shape[-2])
    return x


def gaussian(sigma: Tensor, size: int, reach: int) -> Tensor:
    """Blur along an axis of ``size`` by ``sigma`` (n,), in voxels, cut off at ``reach``: (n, size, size).

    The border voxels are repeated outwards.
    """
    positions = torch.arange(-reach, size + reach, device=sigma.device)
    offsets = positions - torch.arange(size, device=sigma.device)[:, None]  # (size, size + 2 reach)
    weights = torch.exp(-0.5 * (offsets / sigma[:, None, None]) ** 2) * (offsets.abs() <= reach)
    weights = weights / weights.sum(2, keepdim=True)
    matrix = weights[:, :, reach : reach + size].clone()
    matrix[:, :, 0] += weights[:, :, :reach].sum(2)
    matrix[:, :, -1] += weights[:, :, reach + size :].sum(2)
    return matrix


def coarsened(scale: Tensor, size: int) -> Tensor:
    """Take a share ``scale`` (n,) of the voxels along an axis of ``size`` and interpolate back: (n, size, size).

    Down by nearest neighbour, up linearly, the edges of both grids aligned; border voxels are repeated outwards.
    """
    coarse = (scale * size).round().clamp(min=1)[:, None]  # (n, 1) voxels
    voxels = torch.arange(size, device=scale.device)
    position = ((voxels + 0.5) * coarse / size - 0.5).clamp(min=0)  # (n, size), on the coarse grid
    lower = position.floor()
    upper = torch.minimum(lower + 1, coarse - 1)
    weight = (position - lower)[:, :, None]
    first, second = (((index + 0.5) * size / coarse).floor()[:, :, None] == voxels for index in (lower, upper))
    return first * (1 - weight) + second * weight


def bspline(size: int, knots: int, distance: float) -> Tensor:
    """Interpolate between ``knots`` that lie ``distance`` voxels apart about the middle of an axis: (size, knots).

    Uniform cubic B-splines, as in Rueckert et al., "Nonrigid registration using free-form deformations" (1999).
    """
    position = (torch.arange(size) - (size - 1) / 2) / distance + (knots - 1) / 2
    away = (position[:, None] - torch.arange(knots)).abs()
    near = 2 / 3 - away**2 + away**3 / 2
    return torch.where(away < 1, near, (2 - away).clamp(min=0) ** 3 / 6)
