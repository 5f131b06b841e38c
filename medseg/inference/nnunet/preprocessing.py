"""nnU-Net's preprocessing: cropping, normalisation, resampling to the network's grid and back, weights of a window."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import MedsegError
from medseg.inference.nnunet.plans import Plan
from medseg.io.case import Scan, foreground_of
from medseg.io.limits import check_memory
from medseg.preprocessing.geometry import Geometry, orient
from medseg.preprocessing.resample import Kernel, interpolation, resample_axis

READERS = {
    "SimpleITKIO": False,
    "NibabelIO": False,
    "NaturalImage2DIO": False,
    "SimpleITKIOWithReorient": True,
    "NibabelIOWithReorient": True,
}
"""nnU-Net's classes that read images, and whether they turn them to RAS."""

SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
LEAST_DIVISOR = 1e-8
"""What nnU-Net divides by at least."""

LEAST_WEIGHT = 2.0**-24 / 10
"""The smallest weight of a window's voxel, for nnU-Net keeps weights of up to 10 in half precision."""

BETWEEN_SINGLE_SLICES = 999.0
"""Distance of the slices of a 2D image, in pixels: far."""

ANISOTROPY = 3.0
KERNELS: dict[int, Kernel] = {0: "nearest", 1: "sharp"}
"""Splines of these orders are interpolation between neighbours."""

Values = NDArray[np.float32]


@lru_cache(maxsize=8)
def weights(patch_size: tuple[int, ...]) -> Tensor:
    """Return (*patch): a Gaussian of sigma patch/8 whose peak is voxel patch // 2, half a voxel beyond the middle."""
    result = torch.ones(())
    for size in patch_size:
        distance = (torch.arange(size) - size // 2) / (size / 8)
        result = result[..., None] * torch.exp(-0.5 * distance**2)
    return result.clamp_min(LEAST_WEIGHT)


@dataclass(frozen=True)
class Scheme:
    """How one channel is normalised, in float32 as by nnU-Net.

    ``masked``: a z-score over the non-zero region alone, the rest left as it is. ``window`` are the 0.5 and 99.5
    percentiles, mean and standard deviation of the training images' foreground, which CT alone needs.
    """

    name: str
    masked: bool = False
    window: tuple[float, float, float, float] | None = None

    def __call__(self, channel: Values, region: NDArray[np.bool_]) -> Values:
        """Normalise one channel (*spatial); ``region`` (*spatial) is what is not background.

        Raises:
            MedsegError: the values are none of an 8-bit image, which the scheme needs.
        """
        if self.name == "ZScoreNormalization":
            if not self.masked:
                return (channel - channel.mean()) / max(channel.std(), LEAST_DIVISOR)
            inside = channel[region]
            result = channel.copy()
            result[region] = (inside - inside.mean()) / max(inside.std(), LEAST_DIVISOR)
            return result
        if self.window:
            low, high, mean, std = self.window
            return (np.clip(channel, low, high) - np.float32(mean)) / np.float32(max(std, LEAST_DIVISOR))
        if self.name == "RescaleTo01Normalization":
            shifted = channel - channel.min()
            return shifted / max(shifted.max(), LEAST_DIVISOR)
        if self.name == "RGBTo01Normalization":
            if channel.min() < 0 or channel.max() > 255:  # nnU-Net stops here, too
                raise MedsegError(
                    f"the image has values from {channel.min():g} to {channel.max():g}; this model of nnU-Net was"
                    " trained on 8-bit colours, 0 to 255."
                )
            return channel / np.float32(255)
        return channel


def schemes_of(plan: Plan) -> tuple[Scheme, ...]:
    """Return the plan's normalisation of each channel.

    Raises:
        MedsegError: a scheme is none of nnU-Net's own, or CT's lacks its statistics.
    """
    schemes = []
    for channel, name in enumerate(plan.settings["normalization_schemes"]):
        masked = bool(plan.settings["use_mask_for_norm"][channel])
        if name not in SCHEMES:
            raise MedsegError(
                f"{plan.path}: channel {channel} is normalised by {name}, a class of somebody's own; known are"
                f" {', '.join(SCHEMES)}."
            )
        if name != "CTNormalization":
            schemes.append(Scheme(name, masked and name == "ZScoreNormalization"))
            continue
        statistics: dict[str, Any] = plan.statistics.get(str(channel), {})
        keys = ("percentile_00_5", "percentile_99_5", "mean", "std")
        if missing := [key for key in keys if key not in statistics]:
            raise MedsegError(f"{plan.path}: CTNormalization of channel {channel} needs {', '.join(missing)}.")
        low, high, mean, std = (float(statistics[key]) for key in keys)
        schemes.append(Scheme(name, window=(low, high, mean, std)))
    return tuple(schemes)


@dataclass(frozen=True)
class Resampling:
    """How values are resampled: by splines or linearly, and across an axis that is much coarser separately.

    The grids' edges coincide, as in ``medseg.preprocessing.resample``, but nothing is low-passed when shrinking.

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
        """Return the axis that is resampled separately between grids of these spacings."""
        if self.apart is False:
            return None
        if self.apart or max(old) / min(old) > self.threshold:
            return coarsest(old)
        return coarsest(new) if max(new) / min(new) > self.threshold else None

    def kernels(self, old: Sequence[float], new: Sequence[float]) -> tuple[Kernel, ...]:
        """Return the kernel along each axis between grids of these spacings, where orders are 0 or 1."""
        coarse = self.coarse_axis(old, new)
        return tuple(KERNELS[self.order_across if axis == coarse else self.order] for axis in range(len(old)))

    def __call__(self, image: Values, shape: Sequence[int], old: Sequence[float], new: Sequence[float]) -> Values:
        """Resample (C, z, y, x) to (C, *shape), from voxels of the spacing ``old`` to ones of ``new``."""
        if self.keeps or image.shape[1:] == tuple(shape):
            return image
        if self.order in KERNELS:
            resampled = torch.from_numpy(image)
            for axis, (size, kernel) in enumerate(zip(shape, self.kernels(old, new), strict=True), 1):
                resampled = resample_axis(resampled, axis, interpolation(resampled.shape[axis], size, kernel))
            return resampled.numpy()
        coarse = self.coarse_axis(old, new)
        result = np.empty((len(image), *shape), np.float32)
        for channel, out in zip(image, result, strict=True):
            volume = channel.astype(np.float64)
            if coarse is None:
                out[...] = spline(volume, shape, self.order)
                continue
            # slice by slice, and then along the coarse axis
            in_plane = [size for axis, size in enumerate(shape) if axis != coarse]
            slices = np.stack([spline(each, in_plane, self.order) for each in np.moveaxis(volume, coarse, 0)], coarse)
            across = interpolation(slices.shape[coarse], shape[coarse], KERNELS[self.order_across])
            out[...] = resample_axis(torch.from_numpy(slices), coarse, across).numpy()
        return result


def coarsest(spacing: Sequence[float]) -> int | None:
    """Return the axis of the largest spacing; None where two share it, but for the rounding of an oblique affine."""
    axes = [axis for axis, value in enumerate(spacing) if value > max(spacing) * (1 - 1e-5)]
    return axes[0] if len(axes) == 1 else None


def spline(values: NDArray[np.float64], shape: Sequence[int], order: int) -> NDArray[np.float64]:
    """Resample to ``shape``, the border repeated, clipped to the range of ``values``.

    What scikit-image's ``resize`` does with ``mode="edge"`` and ``anti_aliasing=False``.
    """
    from scipy import ndimage  # takes longer to import than most images to process

    factors = np.divide(shape, values.shape)
    zoomed = ndimage.zoom(values, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(zoomed, values.min(), values.max())


def resampling_of(plan: Plan, what: Literal["data", "probabilities"]) -> Resampling:
    """Return how a plan resamples images ("data") or the network's outputs ("probabilities").

    Raises:
        MedsegError: by a function of somebody's own, or with orders that are not known.
    """
    name = plan.settings[f"resampling_fn_{what}"]
    options: dict[str, Any] = plan.settings.get(f"resampling_fn_{what}_kwargs") or {}
    threshold = options.get("separate_z_anisotropy_threshold", ANISOTROPY)
    resampling = None
    if name == "resample_data_or_seg_to_shape":
        apart = options.get("force_separate_z", False)
        resampling = Resampling(options.get("order", 3), options.get("order_z", 0), apart, threshold)
    elif name == "resample_torch_fornnunet":  # linear, and by the nearest across a coarse axis
        defaults = {"mode": "linear", "aniso_axis_mode": "nearest-exact"}
        if all(options.get(key, value) == value for key, value in defaults.items()):
            resampling = Resampling(1, 0, options.get("force_separate_z"), threshold)
    elif name == "no_resampling_hack":
        resampling = Resampling(1, keeps=True)
    orders = range(6) if what == "data" else KERNELS
    if resampling is None or resampling.order not in orders or resampling.order_across not in KERNELS:
        raise MedsegError(
            f"{plan.path}: resampling_fn_{what} is {name} with {options}, which is not known. Known are"
            " resample_data_or_seg_to_shape with order 0 to 5 (0 or 1 for probabilities) and order_z 0 or 1,"
            " resample_torch_fornnunet with its defaults, and no_resampling_hack."
        )
    return resampling


@dataclass(frozen=True, kw_only=True)
class NNUNetPreparation:
    """Orders the axes, crops to what is not zero, normalises and resamples, as nnU-Net's DefaultPreprocessor.

    nnU-Net's arrays have the axes (z, y, x) of SimpleITK and, for 2D images, a first axis of one slice.

    Args:
        schemes: the normalisation of each channel.
        transpose: the axes of the array in the order of the network.
        spacing: of the network's grid, in its order and mm; two for 2D networks, whose slices stay where they are.
        reorient: whether scans are first turned to RAS.
        images: how images are resampled.
        outputs: how the network's outputs are brought back.
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
    def added_channels(self) -> int:
        """Channels that the image on the network grid has beside the scan's."""
        return 0

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
        dims = len(scan.shape)
        cropped = geometry.cut(torch.from_numpy(image)).numpy()
        cropped = cropped if dims == 3 else cropped[:, None]  # (C, z, y, x)
        old = tuple(scan.spacing[axis] for axis in geometry.order)
        old = old if dims == 3 else (BETWEEN_SINGLE_SLICES * max(old), *old)
        new = (*old[: 3 - len(self.spacing)], *self.spacing)
        shape = cropped.shape[1:]
        if not self.images.keeps:
            shape = tuple(round(step / target * n) for n, step, target in zip(shape, old, new, strict=True))
        check_memory("the network's grid is an array", (len(cropped), *shape))
        region = np.ones(cropped.shape[1:], bool)
        if any(scheme.masked for scheme in self.schemes):
            from scipy import ndimage  # takes longer to import than most images to process

            region = ndimage.binary_fill_holes((cropped != 0).any(0))
        channels = [scheme(channel, region) for scheme, channel in zip(self.schemes, cropped, strict=True)]
        resampled = self.images(np.stack(channels), shape, old, new)
        on_grid = torch.from_numpy(resampled.reshape(len(cropped), *shape[-dims:]))
        return on_grid, replace(geometry, shape=tuple(shape[-dims:]), back=self.outputs.kernels(new, old)[-dims:])

    def _cropped(self, scan: Scan, mask: NDArray[np.bool_]) -> Geometry:
        """Return the geometry that orders the axes and crops to ``mask`` (*native shape), if it is not empty."""
        dims = len(scan.shape)
        native, flips = tuple(range(dims)), (False,) * dims
        if scan.unit == "mm":  # 2D images are read as (row, column)
            if self.reorient:
                native, flips = orient(scan.affine, scan.shape)
            native, flips = native[::-1], flips[::-1]
        axes: Sequence[int] = self.transpose
        if dims == 2:
            if self.transpose[0] != 0:
                raise MedsegError("this model of nnU-Net takes volumes and turns them; the scan is a single slice.")
            axes = [axis - 1 for axis in self.transpose[1:]]
        order, flips = tuple(native[axis] for axis in axes), tuple(flips[axis] for axis in axes)
        lengths = tuple(scan.shape[axis] for axis in order)
        geometry = Geometry(scan.shape, order, flips, tuple((0, length) for length in lengths), lengths)
        return geometry.cropped(torch.from_numpy(mask)[None]) if mask.any() else geometry


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
