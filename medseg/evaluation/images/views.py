"""Cases as the slice viewer of a page takes them: volumes cut and thinned until a few hundred kB hold them, as images.

The slices of a volume lie in one image, row by row like words on a page: browsers decode images, which compress well.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medseg.evaluation.images.overlays import Indices, largest_component, towards_lpi, usual_window
from medseg.evaluation.pages.page import QUALITY, Picture
from medseg.io.case import Scan
from medseg.io.grids.grid import bounding_box
from medseg.io.segments.terminology import Colour, colour

BYTES = 360_000
"""Of a case with all its channels at most, so that three make 1.5 MB of a page."""
VOXELS = 1 << 21
"""Of a case with all its channels at most: 128³ of a single one."""
CHANNELS = 4
"""Of scans with more channels these are the first."""


@dataclass(frozen=True)
class Channel:
    """The slices of a channel, whose grey values 0 and 255 stand for ``low`` and ``high``; the ``window`` is shown."""

    name: str
    slices: Picture
    low: float
    high: float
    window: tuple[float, float]


@dataclass(frozen=True)
class View:
    """A case as the viewer takes it.

    ``shape`` counts voxels across, down and into a slice: to the patient's left, posterior and inferior where
    ``is_volume``; a 2D image is one slice as it is. ``spacing`` is in mm or px, ``start`` the voxel to begin at.
    ``columns`` slices lie side by side in an image. In ``masks`` red is the class index predicted, green the true one;
    ``classes`` has names and colours by index. ``note`` says how the volume was cut and thinned.
    """

    case: str
    is_volume: bool
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    start: tuple[int, ...]
    columns: int
    channels: Sequence[Channel]
    masks: Picture
    classes: dict[int, tuple[str, Colour]]
    note: str


def view_of(
    case: str,
    scan: Scan,
    indices: Indices,
    names: Sequence[str],
    reference: Indices,
    annotated: NDArray[np.bool_],
) -> View:
    """Pack a case, called ``case``, into at most ``BYTES``; for the other arguments see ``overlays.overlay``."""
    is_volume = scan.unit == "mm"
    true = np.where(np.isin(reference, np.flatnonzero(annotated)), reference, 0).astype(np.uint8)
    if is_volume:
        (*image, indices, true), spacing = towards_lpi([*scan.image, indices, true], scan.affine)
    else:  # rows run down; three channels are colours
        image = [np.moveaxis(scan.image, 0, -1)] if len(scan.image) == 3 else list(scan.image)
        *image, indices, true = (each.swapaxes(0, 1)[:, :, None] for each in (*image, indices, true))
        spacing = (1.0, 1.0, 1.0)
    foreground = (indices > 0) | (true > 0)
    centre = largest_component(true if true.any() else indices)
    n_channels, image = len(image), image[:CHANNELS]
    limit = VOXELS / len(image)
    while True:
        box, steps = shown_part(foreground, spacing, limit)
        masks = np.stack([thinned(each[box], steps, np.max) for each in (indices, true, np.zeros_like(true))], axis=-1)
        shape = masks.shape[:3]
        columns = max(1, round(math.sqrt(shape[2] * shape[1] / shape[0])))  # so that the image is about a square
        channels = []
        for number, whole in enumerate(image, 1):
            volume = thinned(whole[box].astype(np.float32), steps, np.mean)
            window = usual_window(volume.ravel(), volume[masks[..., :2].any(axis=-1)].ravel(), scan.unit)
            # Grey values are few: they are for twice the window, within which it can be moved and widened
            beyond = (window[1] - window[0]) / 2
            low, high = max(float(volume.min()), window[0] - beyond), min(float(volume.max()), window[1] + beyond)
            grey = np.clip(255 * (volume - low) / max(high - low, 1e-6), 0, 255).round().astype(np.uint8)
            name = f"channel {number} of {n_channels}" if n_channels > 1 else ""
            slices = compressed(grey, columns, quality=QUALITY)
            channels.append(Channel(name, slices, low, high, window))
        packed = compressed(masks, columns, lossless=True)
        if sum(len(picture.content) for picture in (packed, *(each.slices for each in channels))) <= BYTES:
            break
        limit *= 0.7
    found = np.unique(masks)
    return View(
        case=case,
        is_volume=is_volume,
        shape=shape,
        spacing=tuple(length * step for length, step in zip(spacing, steps, strict=True)),
        start=tuple(
            min(max(0, (at - span.start) // step), n - 1)
            for at, span, step, n in zip(centre, box, steps, shape, strict=True)
        ),
        columns=columns,
        channels=channels,
        masks=packed,
        classes={int(index): (names[index], colour(int(index))) for index in found[found > 0]},
        note=how_shown(foreground.shape, box, steps),
    )


def shown_part(
    foreground: NDArray[np.bool_], spacing: Sequence[float], limit: float
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """Return which box of a volume is shown, and how many voxels along each axis become one, for a limit of voxels.

    Voxels become one, along the finest axis each time, until the box of the foreground takes half of the limit. Round
    it is shown as much as there is room for.
    """
    shape = foreground.shape
    inner = bounding_box(foreground) if foreground.any() else tuple(slice(n // 2, n // 2 + 1) for n in shape)
    steps = [1] * len(shape)

    def voxels(box: Sequence[slice]) -> int:
        return math.prod((span.stop - span.start) // step for span, step in zip(box, steps, strict=True))

    def enlarged(percent: int) -> tuple[slice, ...]:
        return tuple(
            slice(span.start * (100 - percent) // 100, span.stop + (n - span.stop) * percent // 100)
            for span, n in zip(inner, shape, strict=True)
        )

    while voxels(inner) > limit / 2 and voxels(enlarged(100)) > limit:
        axes = [axis for axis, span in enumerate(inner) if span.stop - span.start > steps[axis]]
        steps[min(axes, key=lambda axis: spacing[axis] * steps[axis])] += 1
    box = next(box for box in map(enlarged, range(100, -1, -1)) if voxels(box) <= limit)
    return box, tuple(steps)


def thinned(volume: NDArray[Any], steps: Sequence[int], reduced: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    """Return a volume whose blocks of ``steps`` voxels are reduced to one: images to the mean, masks to the maximum.

    Of masks the maximum, so that structures of a voxel stay. What is less than a block at the end of an axis is left
    out.
    """
    for axis, step in enumerate(steps):
        n = volume.shape[axis] // step
        whole = volume[(slice(None),) * axis + (slice(n * step),)]
        volume = reduced(whole.reshape(*whole.shape[:axis], n, step, *whole.shape[axis + 1 :]), axis=axis + 1)
    return volume


def compressed(volume: NDArray[np.uint8], columns: int, **options: Any) -> Picture:
    """Return the slices of a volume (across, down, deep), or with colours (…, 3), as one image of so many columns."""
    across, down, deep, *colours = volume.shape
    rows = math.ceil(deep / columns)
    slices = np.zeros((rows * columns, down, across, *colours), np.uint8)
    slices[:deep] = volume.swapaxes(0, 2)
    joint = slices.reshape(rows, columns, down, across, *colours).swapaxes(1, 2)
    content = io.BytesIO()
    image = Image.fromarray(joint.reshape(rows * down, columns * across, *colours))
    image.save(content, "webp", **options)
    return Picture(content.getvalue(), "webp", image.width, image.height)


def how_shown(shape: Sequence[int], box: Sequence[slice], steps: Sequence[int]) -> str:
    """Say in a sentence what was cut and thinned; nothing where all is there."""
    lengths = [span.stop - span.start for span in box]
    parts = []
    if lengths != list(shape):
        parts.append(f"cut to {written(lengths)} of {written(shape)} voxels round the masks")
    if max(steps) > 1:
        parts.append(f"each voxel shown stands for {written(steps)}")
    return f"To keep the page small: {'; '.join(parts)}." if parts else ""


def written(lengths: Sequence[int]) -> str:
    """Write lengths along the axes."""
    return " × ".join(map(str, lengths))
