"""Image summaries of a pre-training: validation patches as they are, as the network sees them, and reconstructed."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image

from medseg.system.files import replacing
from medseg.training.callbacks.progress import Progress
from medseg.training.images import DRAWN, trackers_of
from medseg.training.pretraining.module import Shown

MOST = 4
"""Patches shown, a row each."""
SIDE = 128
"""Pixels of a shown slice's shorter side at least."""
GAP = 4
RANGE = (0.5, 99.5)
"""Percentiles of a patch that are black and white."""


class ReconstructionImages(Callback):
    """Draws validations, ``DRAWN`` of a run at most, for the trackers, and the latest one into a file."""

    def __init__(self, path: Path, slice_axis: int | None, progress: Progress) -> None:
        self.path, self.slice_axis, self.progress = path, slice_axis, progress
        self.drawn = -1  # the latest part of the run that was drawn in

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw what the first process has reconstructed."""
        shown: Shown | None = module.shown  # type: ignore[assignment]
        part = int(DRAWN * self.progress.current)
        if shown is None or not trainer.is_global_zero or part <= self.drawn:
            return
        self.drawn = part
        drawing = drawn(shown, self.slice_axis)
        with replacing(self.path) as temporary:
            Image.fromarray(drawing).save(temporary, format="PNG")
        trackers_of(trainer).image("val/reconstruction", drawing, trainer.global_step)


def drawn(shown: Shown, slice_axis: int | None) -> NDArray[np.uint8]:
    """Return a grey image with a row a patch: as it is, as it was seen, and with the hidden part reconstructed.

    Of volumes it is the middle slice, across the last axis or ``slice_axis``, of the first channel.
    """
    rows = []
    for row in range(min(MOST, len(shown.image))):
        image, seen, output = (whole[row, 0].float().cpu().numpy() for whole in (shown.image, shown.seen, shown.output))
        mended = np.where(shown.hidden[row, 0].cpu().numpy(), output, image)
        low, high = np.percentile(image, RANGE)
        slices = [middle_slice(volume, slice_axis) for volume in (image, seen, mended)]
        rows.append(side_by_side([grey(enlarged(each), low, high) for each in slices], axis=1))
    return side_by_side(rows, axis=0)


def middle_slice(volume: NDArray[Any], slice_axis: int | None) -> NDArray[Any]:
    """Return the middle slice of a volume, patient's front up; a 2D image as it is."""
    if volume.ndim == 2:
        return volume
    axis = volume.ndim - 1 if slice_axis is None else slice_axis
    return np.rot90(volume.take(volume.shape[axis] // 2, axis))


def enlarged(image: NDArray[Any]) -> NDArray[Any]:
    """Repeat pixels of a small slice."""
    times = max(1, -(-SIDE // min(image.shape)))
    return image.repeat(times, 0).repeat(times, 1)


def grey(image: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return an image in grey, ``low`` black and ``high`` white."""
    scaled: NDArray[np.uint8] = (255 * np.clip((image - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
    return scaled


def side_by_side(images: list[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    """Lay images of one size out along an axis, with gaps."""
    padding = [(0, GAP if along == axis else 0) for along in range(2)]
    spaced = [np.pad(image, padding, constant_values=255) for image in images[:-1]]
    return np.concatenate([*spaced, images[-1]], axis=axis)
