"""Intensities: one scale for all scans, and filters against noise."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import MedsegError, nearest

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]

PART = 1 << 22
"""Voxels whose sum is taken at once."""

DEFAULT_METHOD: dict[str | None, str] = {
    "mri": "zscore",
    "ct": "ct",
    "xray": "percentile",
    "ultrasound": "unit",
    "microscopy": "zscore",
    "pet": "percentile",
    None: "zscore",
}
"""How each modality is normalised unless the config says otherwise; None: the modality is unknown."""


def normalise(
    image: Tensor, foreground: Tensor, methods: Sequence[str], window: Sequence[Sequence[float]] | None = None
) -> Tensor:
    """Scale each channel by its own method; a channel with one value throughout becomes zeros.

    Statistics are those of the channel's foreground voxels (of all its voxels where the foreground has one value only).

    Args:
        image: float32 (C, *spatial); changed in place, since a large volume should not be there twice.
        foreground: bool (*spatial).
        methods: a name per channel. "zscore": mean 0, standard deviation 1. "percentile": the 0.5 and 99.5 percentiles
            become 0 and 1, what lies beyond is clipped. "unit": minimum and maximum become 0 and 1. "ct": clip to the
            channel's window, then z-score by its statistics. "none": as it is.
        window: [low, high, mean, standard deviation] per channel, for "ct"; as in nnU-Net, the data set's.

    Returns:
        ``image`` itself.
    """
    for index, (channel, method) in enumerate(zip(image, methods, strict=True)):
        if channel.min() == channel.max():
            channel.zero_()
        elif method == "ct":
            low, high, mean, std = (window or [])[index]
            channel.clamp_(low, high).sub_(mean).div_(std)
        elif method != "none":
            values = channel.numpy()
            shift, scale, clip = SCALES[method](values, varying(values, foreground.numpy()))
            channel.sub_(shift).div_(scale)
            if clip:
                channel.clamp_(0, 1)
    return image


def varying(channel: Values, foreground: Mask) -> Mask:
    """Return the foreground, or every voxel where the foreground's values are but one number."""
    low = channel.min(where=foreground, initial=np.inf)
    return foreground if low < channel.max(where=foreground, initial=-np.inf) else np.ones_like(foreground)


def zscore(channel: Values, mask: Mask) -> tuple[float, float, bool]:
    """Return mean and standard deviation. Sums are float64: float32 sums drift over millions of values of 1e5."""
    count = np.count_nonzero(mask)
    mean = sum(float(values.sum(dtype=np.float64)) for values in chosen(channel, mask)) / count
    squares = (np.square(values - np.float32(mean)).sum(dtype=np.float64) for values in chosen(channel, mask))
    return mean, float(np.sqrt(sum(squares) / count)), False


def chosen(channel: Values, mask: Mask) -> Iterator[Values]:
    """Yield the values where ``mask`` is True, some rows at a time, which a large volume needs no copy for."""
    rows = max(1, PART // max(1, channel[0].size))
    for first in range(0, len(channel), rows):
        yield channel[first : first + rows][mask[first : first + rows]]


def percentile(channel: Values, mask: Mask) -> tuple[float, float, bool]:
    """Return the 0.5 percentile and the distance from it to the 99.5 percentile; clip."""
    low, high = np.percentile(channel[mask], [0.5, 99.5], overwrite_input=True)
    return (float(low), float(high - low), True) if low < high else unit(channel, mask)


def unit(channel: Values, mask: Mask) -> tuple[float, float, bool]:
    """Return minimum and range; clip, for voxels outside the foreground can lie below its minimum."""
    low = float(channel.min(where=mask, initial=np.inf))
    return low, float(channel.max(where=mask, initial=-np.inf)) - low, True


SCALES: dict[str, Callable[[Values, Mask], tuple[float, float, bool]]] = {
    "zscore": zscore,
    "percentile": percentile,
    "unit": unit,
}
METHODS = (*SCALES, "ct", "none")
FILTERS = ("gaussian", "median")


def denoise(image: Values, method: str, strength: float) -> Values:
    """Smooth each channel of ``image`` (C, *spatial) on its native grid.

    Args:
        image: float32, not changed.
        method: "gaussian", or "median", which keeps edges.
        strength: in voxels, > 0: the Gaussian's standard deviation, or the reach of the median's window, rounded
            (1 is 3 voxels a side, 2 is 5).
    """
    from scipy import ndimage  # takes longer to import than most images to process

    if method == "gaussian":
        return np.stack([ndimage.gaussian_filter(channel, strength) for channel in image])
    size = 2 * max(1, round(strength)) + 1
    return np.stack([ndimage.median_filter(channel, size) for channel in image])


def check_methods(methods: Sequence[str], window: Sequence[Any] | None, smoothing: str | None, strength: float) -> None:
    """Raise for unknown names, "ct" without a window and a filter without strength."""
    for method in methods:
        if method not in METHODS:
            hint = nearest(method, METHODS)
            raise MedsegError(f"preprocessing.normalize: {method!r} is not one of {', '.join(METHODS)}.{hint}")
    if "ct" in methods and (window is None or len(window) != len(methods)):
        raise MedsegError(
            f"preprocessing.normalize={list(methods)}, window={window}: 'ct' needs [low, high, mean, std] per channel."
        )
    if smoothing not in (None, *FILTERS):
        raise MedsegError(f"preprocessing.denoise: {smoothing!r} is not one of {', '.join(FILTERS)}, null.")
    if smoothing and not strength > 0:
        raise MedsegError(f"preprocessing.denoise_strength={strength}: give a number of voxels above 0.")
