"""nnU-Net's preprocessing: cropping, normalisation, resampling to the network's grid and back, weights of a window.

It is resampled by splines or linearly, and across an axis that is much coarser than the others separately. The grids'
edges coincide, as in ``medseg.preprocessing.resample``, but nothing is low-passed when shrinking.
"""

from collections.abc import Callable, Sequence
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
from medseg.preprocessing.geometry import Geometry, bounding_box, orient
from medseg.preprocessing.resample import Kernel, resample_axis, taps

SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
LEAST_DIVISOR = 1e-8
"""What nnU-Net divides by at least."""

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Scheme:
    """How one channel is normalised.

    ``masked``: a z-score over the non-zero region alone, the rest left as it is. ``window`` are the 0.5 and 99.5
    percentiles, mean and standard deviation of the training images' foreground, which CT alone needs.
    """

    name: str
    masked: bool = False
    window: tuple[float, float, float, float] | None = None


def schemes_of(plan: Plan) -> tuple[Scheme, ...]:
    """Return the plan's scheme for each channel.

    Raises:
        MedsegError: a scheme is none of nnU-Net's own, or CT's lacks its statistics.
    """
    names, masks = plan.settings["normalization_schemes"], plan.settings["use_mask_for_norm"]
    return tuple(scheme(plan, place, name, bool(masks[place])) for place, name in enumerate(names))


def scheme(plan: Plan, channel: int, name: str, masked: bool) -> Scheme:
    """Return the scheme of one channel."""
    if name not in SCHEMES:
        raise MedsegError(
            f"{plan.path}: channel {channel} is normalised by {name}, a class of somebody's own; known are"
            f" {', '.join(SCHEMES)}."
        )
    if name != "CTNormalization":
        return Scheme(name, masked and name == "ZScoreNormalization")
    found: dict[str, Any] = plan.statistics.get(str(channel), {})
    keys = ("percentile_00_5", "percentile_99_5", "mean", "std")
    if missing := [key for key in keys if key not in found]:
        raise MedsegError(f"{plan.path}: CTNormalization of channel {channel} needs {', '.join(missing)}.")
    low, high, mean, std = (float(found[key]) for key in keys)
    return Scheme(name, window=(low, high, mean, std))


def normalised(image: Values, region: NDArray[np.bool_], schemes: Sequence[Scheme]) -> Values:
    """Return (C, *spatial), each channel by its scheme; ``region`` (*spatial) is what is not background."""
    return np.stack([normalised_channel(c, region, s) for c, s in zip(image, schemes, strict=True)])


def normalised_channel(channel: Values, region: NDArray[np.bool_], scheme: Scheme) -> Values:
    """Return one channel (*spatial) by its scheme."""
    if scheme.name == "ZScoreNormalization":
        if not scheme.masked:
            return (channel - channel.mean()) / max(channel.std(), LEAST_DIVISOR)
        inside = channel[region]
        result = channel.copy()
        result[region] = (inside - inside.mean()) / max(inside.std(), LEAST_DIVISOR)
        return result
    if scheme.window:
        low, high, mean, std = scheme.window
        return (np.clip(channel, low, high) - np.float32(mean)) / np.float32(max(std, LEAST_DIVISOR))
    if scheme.name == "RescaleTo01Normalization":
        shifted = channel - channel.min()
        return shifted / max(shifted.max(), LEAST_DIVISOR)
    if scheme.name == "RGBTo01Normalization":
        refuse_other_than_bytes(channel)
        return channel / np.float32(255)
    return channel


def refuse_other_than_bytes(channel: Values) -> None:
    """Refuse values that no 8-bit picture has, as nnU-Net does."""
    if channel.min() < 0 or channel.max() > 255:
        raise MedsegError(
            f"the image has values from {channel.min():g} to {channel.max():g}; this model of nnU-Net was trained on"
            " 8-bit colours, 0 to 255."
        )


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


LEAST_WEIGHT = 2.0**-24 / 10
"""The smallest weight, for nnU-Net keeps weights of up to 10 in half precision."""


@lru_cache(maxsize=8)
def weights(patch_size: tuple[int, ...]) -> Tensor:
    """Return (*patch): a Gaussian of sigma patch/8 whose peak is voxel patch // 2, half a voxel beyond the middle."""
    result = torch.ones(())
    for size in patch_size:
        distance = (torch.arange(size) - size // 2) / (size / 8)
        result = result[..., None] * torch.exp(-0.5 * distance**2)
    return result.clamp_min(LEAST_WEIGHT)


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
