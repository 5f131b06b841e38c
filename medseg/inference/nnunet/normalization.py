"""nnU-Net's normalisation of a channel, in float32 as there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.inference.nnunet.plans import Plan

SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
LEAST = 1e-8
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
            return (channel - channel.mean()) / max(channel.std(), LEAST)
        inside = channel[region]
        result = channel.copy()
        result[region] = (inside - inside.mean()) / max(inside.std(), LEAST)
        return result
    if scheme.window:
        low, high, mean, std = scheme.window
        return (np.clip(channel, low, high) - np.float32(mean)) / np.float32(max(std, LEAST))
    if scheme.name == "RescaleTo01Normalization":
        shifted = channel - channel.min()
        return shifted / max(shifted.max(), LEAST)
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
