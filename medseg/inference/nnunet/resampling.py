"""nnU-Net's resampling: splines or linear, and apart across an axis that is much coarser than the others.

The grids' edges coincide, as in ``medseg.preprocessing.resample``, but nothing is low-passed when shrinking.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import MedsegError
from medseg.inference.nnunet.plans import Plan
from medseg.preprocessing.resample import Kernel, resample_axis, taps

ANISOTROPY = 3.0
KERNELS: dict[int, Kernel] = {0: "nearest", 1: "sharp"}
"""Splines of these orders are interpolation between neighbours."""


@dataclass(frozen=True)
class Resampling:
    """How values are resampled.

    Args:
        order: of the splines; across the coarse axis ``order_across``.
        apart: whether the coarsest axis is resampled by itself; None: where it is ``threshold`` times as coarse as the
            finest.
        threshold: from which an axis is much coarser.
        keeps: nothing is resampled, whatever the spacing.
    """

    order: int = 3
    order_across: int = 0
    apart: bool | None = False
    threshold: float = ANISOTROPY
    keeps: bool = False

    def coarse_axis(self, old: Sequence[float], new: Sequence[float]) -> int | None:
        """Return the axis that is resampled apart between grids of these spacings."""
        if self.apart is False:
            return None
        if self.apart or max(old) / min(old) > self.threshold:
            return coarsest(old)
        return coarsest(new) if max(new) / min(new) > self.threshold else None

    def kernels(self, old: Sequence[float], new: Sequence[float]) -> tuple[Kernel, ...]:
        """Return the kernel along each axis between grids of these spacings, where orders are 0 or 1."""
        coarse = self.coarse_axis(old, new)
        return tuple(KERNELS[self.order_across if axis == coarse else self.order] for axis in range(len(old)))

    def __call__(
        self, image: NDArray[np.float32], shape: Sequence[int], old: Sequence[float], new: Sequence[float]
    ) -> NDArray[np.float32]:
        """Resample (C, z, y, x) to (C, *shape), from voxels of the spacing ``old`` to ones of ``new``."""
        if self.keeps or image.shape[1:] == tuple(shape):
            return image
        if self.order in KERNELS:
            return separably(torch.from_numpy(image), shape, self.kernels(old, new)).numpy()
        coarse = self.coarse_axis(old, new)
        result = np.empty((len(image), *shape), np.float32)
        for channel, out in zip(image, result, strict=True):
            out[...] = self._by_splines(channel.astype(np.float64), shape, coarse)
        return result

    def _by_splines(self, volume: NDArray[np.float64], shape: Sequence[int], coarse: int | None) -> NDArray[np.float64]:
        """Resample (z, y, x): slice by slice where an axis is coarse, and then along that axis."""
        if coarse is None:
            return spline(volume, shape, self.order)
        in_plane = [size for axis, size in enumerate(shape) if axis != coarse]
        slices = np.stack([spline(part, in_plane, self.order) for part in np.moveaxis(volume, coarse, 0)], coarse)
        weights = taps(slices.shape[coarse], shape[coarse], KERNELS[self.order_across])
        return resample_axis(torch.from_numpy(slices), coarse, weights).numpy()


def coarsest(spacing: Sequence[float]) -> int | None:
    """Return the axis of the largest spacing; None where two share it, but for the rounding of an oblique affine."""
    axes = [axis for axis, value in enumerate(spacing) if value > max(spacing) * (1 - 1e-5)]
    return axes[0] if len(axes) == 1 else None


def separably(x: Tensor, shape: Sequence[int], kernels: Sequence[Kernel]) -> Tensor:
    """Resample (C, *spatial) to (C, *shape), an axis after the other."""
    for axis, (size, kernel) in enumerate(zip(shape, kernels, strict=True), 1):
        x = resample_axis(x, axis, taps(x.shape[axis], size, kernel))
    return x


def spline(values: NDArray[np.float64], shape: Sequence[int], order: int) -> NDArray[np.float64]:
    """Resample to ``shape``, the border repeated, clipped to the range of ``values``.

    What scikit-image's ``resize`` does with ``mode="edge"`` and ``anti_aliasing=False``.
    """
    from scipy import ndimage  # takes longer to import than most images to process

    factors = np.divide(shape, values.shape)
    found = ndimage.zoom(values, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(found, values.min(), values.max())


def resampling_of(plan: Plan, what: Literal["data", "probabilities"]) -> Resampling:
    """Return how a plan wants images ("data") or the network's outputs ("probabilities") resampled.

    Raises:
        MedsegError: by a function of somebody's own, or with orders that are not known.
    """
    name = plan.settings[f"resampling_fn_{what}"]
    given: dict[str, Any] = plan.settings.get(f"resampling_fn_{what}_kwargs") or {}
    found = RESAMPLINGS.get(name, unknown)(given)
    allowed = range(6) if what == "data" else KERNELS
    if found.order not in allowed or found.order_across not in KERNELS:
        raise MedsegError(
            f"{plan.path}: resampling_fn_{what} is {name} with {given}, which is not known. Known are"
            " resample_data_or_seg_to_shape with order 0 to 5 (0 or 1 for probabilities) and order_z 0 or 1,"
            " resample_torch_fornnunet with its defaults, and no_resampling_hack."
        )
    return found


def by_splines(given: dict[str, Any]) -> Resampling:
    """Read the arguments of nnU-Net's default function."""
    apart, threshold = given.get("force_separate_z", False), given.get("separate_z_anisotropy_threshold", ANISOTROPY)
    return Resampling(given.get("order", 3), given.get("order_z", 0), apart, threshold)


def by_torch(given: dict[str, Any]) -> Resampling:
    """Read the arguments of nnU-Net's faster function, which is linear, and by the nearest across a coarse axis."""
    usual = {"mode": "linear", "aniso_axis_mode": "nearest-exact"}
    if any(given.get(key, value) != value for key, value in usual.items()):
        return unknown(given)
    return Resampling(1, 0, given.get("force_separate_z"), given.get("separate_z_anisotropy_threshold", ANISOTROPY))


def not_at_all(given: dict[str, Any]) -> Resampling:
    """Leave every grid as it is."""
    return Resampling(1, keeps=True)


def unknown(given: dict[str, Any]) -> Resampling:
    """Return what no check lets pass."""
    return Resampling(order=-1)


RESAMPLINGS: dict[str, Callable[[dict[str, Any]], Resampling]] = {
    "resample_data_or_seg_to_shape": by_splines,
    "resample_torch_fornnunet": by_torch,
    "no_resampling_hack": not_at_all,
}
