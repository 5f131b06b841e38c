"""Images of validation cases for the trackers: the same few every time, and the worst of each validation."""

import time
import unicodedata
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from medseg.evaluation.images.overlays import CANVAS, FONT_SIZE, GAP, WHITE, overlay
from medseg.evaluation.metrics.overlap import dice
from medseg.evaluation.statistics.means import mean_of_defined
from medseg.evaluation.statistics.sampling import evenly
from medseg.io.case import Scan
from medseg.io.labels import LabelMap
from medseg.preprocessing.cache import load
from medseg.preprocessing.geometry import Geometry
from medseg.system.printable import on_a_line
from medseg.training.callbacks.progress import Progress
from medseg.training.module import gather
from medseg.training.trackers.tracker import Trackers

SHOWN = 3
"""Cases that are drawn every time."""
DRAWN = 50
"""Validations of a run that are drawn at most, evenly over its progress: some 20 MB in all."""
SHARE = 0.01
"""Share of a run's time that drawing may take; the first and the last validation are always drawn."""
SIDE = 256
"""Longest side of a slice, in pixels."""

Indices = NDArray[np.uint8]


@dataclass
class Worst:
    """The worst case so far: its index among the validation cases, its Dice, and its drawing where one is due."""

    index: int
    score: float
    drawing: Image.Image | None = None


class CaseImages(Callback):
    """Draws prediction and reference over the scans of validation cases, as the network sees these.

    ``names`` are the ids of the validation cases in order. Each process draws its own cases, the first one writes.
    """

    def __init__(self, names: Sequence[str], label_map: LabelMap, progress: Progress) -> None:
        self.names, self.label_map, self.progress = list(names), label_map, progress
        self.chosen: list[int] = []
        self.drawn = -1  # of DRAWN parts of the run the latest that was drawn in
        self.is_due = False
        self.seconds = 0.0  # spent on drawing
        self.drawings: dict[int, Image.Image] = {}
        self.worst: Worst | None = None
        self.worst_mask: Indices = np.zeros(0, np.uint8)
        self.latest: tuple[int, Future[Indices]] | None = None  # a case that has not been looked at

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Settle whether this validation is drawn, and of the first one which cases are."""
        part = int(DRAWN * self.progress.current)
        is_cheap = self.seconds <= SHARE * self.progress.seconds or part == DRAWN
        is_due = trackers_of(trainer).take_images and part > self.drawn and is_cheap
        self.is_due = trainer.strategy.broadcast(is_due)  # the first process decides for all
        self.drawn = part if self.is_due else self.drawn
        self.drawings, self.worst, self.latest = {}, None, None
        if not self.chosen:
            validated: Sequence[int] = trainer.datamodule.validated  # type: ignore[attr-defined]
            files = [files_of(trainer)[index] for index in validated]
            self.chosen = [validated[index] for index in choose(files, SHOWN)]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the case before, which has been measured by now."""
        self.look(trainer, module)
        self.latest = (batch["index"], outputs["predicted"])

    def look(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw the latest case if it is a chosen one; keep its mask if it is worse than all before."""
        if self.latest is None:
            return
        index, predicted = self.latest[0], self.latest[1].result()
        self.latest = None
        score = mean_of_defined(dice(module.case_counts[index]))  # type: ignore[index,arg-type]
        if self.is_due and index in self.chosen:
            self.drawings[index] = self.draw(trainer, index, predicted, score)
        if not isnan(score) and (self.worst is None or score < self.worst.score):
            self.worst, self.worst_mask = Worst(index, score), predicted

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Gather the drawings of all processes and write them."""
        self.look(trainer, module)
        if self.is_due and self.worst:
            index, score = self.worst.index, self.worst.score
            self.worst.drawing = self.drawings.get(index) or self.draw(trainer, index, self.worst_mask, score)
        drawings, worst = gather(self.drawings), gather({trainer.global_rank: self.worst})
        began = time.perf_counter()
        if trainer.is_global_zero:
            self.write(trainer, drawings, min(filter(None, worst.values()), key=lambda each: each.score, default=None))
        self.seconds += time.perf_counter() - began

    def draw(self, trainer: Trainer, index: int, predicted: Indices, score: float) -> Image.Image:
        """Draw a case with its name and its mean Dice."""
        began = time.perf_counter()
        drawing = drawn(load(files_of(trainer)[index]), predicted, self.label_map)
        self.seconds += time.perf_counter() - began
        written = "no Dice: nothing there, nothing found" if isnan(score) else f"Dice {score:.4f}"
        return captioned(drawing, f"{self.names[index]}: {written}")

    def write(self, trainer: Trainer, drawings: dict[int, Image.Image], worst: Worst | None) -> None:
        """Hand drawings and the worst case's name to the trackers."""
        images = {f"cases/{on_a_line(self.names[index])}": drawing for index, drawing in sorted(drawings.items())}
        if worst and worst.drawing:
            images["worst case"] = worst.drawing
        for tag, image in images.items():
            trackers_of(trainer).image(tag, np.asarray(image), trainer.global_step)
        if worst:
            text = f"{on_a_line(self.names[worst.index])}: Dice {worst.score:.4f} (epoch {trainer.current_epoch + 1})"
            trackers_of(trainer).text("worst case", text, trainer.global_step)


def trackers_of(trainer: Trainer) -> Trackers:
    """Return what stands for all trackers of a run, be they none."""
    trackers: Trackers = trainer.logger  # type: ignore[assignment]
    return trackers


def files_of(trainer: Trainer) -> Sequence[Path]:
    """Return the preprocessed validation cases."""
    files: Sequence[Path] = trainer.datamodule.val_files  # type: ignore[attr-defined]
    return files


def choose(files: Sequence[Path], number: int) -> list[int]:
    """Pick indices evenly among the cases with foreground, or among all where none has any."""
    full = [index for index, file in enumerate(files) if any(map(len, load(file)["locations"]))]
    among = full or list(range(len(files)))
    return [among[index] for index in evenly(len(among), number)]


def drawn(case: dict[str, Any], predicted: Indices, label_map: LabelMap) -> Image.Image:
    """Draw a preprocessed case (see ``medseg.preprocessing.cache.load``) with its predicted classes (*native grid)."""
    reference, annotated = case["truth"].numpy(), case["annotated"].numpy()
    return overlay(scan_of(case), predicted, label_map.names, reference, annotated, SIDE)


def scan_of(case: dict[str, Any]) -> Scan:
    """Return what the network sees of a case on the native grid: a volume's first channel, or a 2D image's colours."""
    geometry = Geometry.from_dict(case["geometry"])
    image = case["image"].float()
    shown = image if case["unit"] == "px" and len(image) == 3 else image[:1]
    return Scan(native(shown, geometry), upright(geometry, case["spacing"], case["unit"]), case["unit"])


def native(image: Tensor, geometry: Geometry) -> NDArray[np.float32]:
    """Bring an image (C, *network grid) to (C, *native grid); what was cropped away is as dark as its darkest voxel."""
    volume = np.empty((len(image), *geometry.native_shape), np.float32)
    for span, slab in geometry.slabs(geometry.in_one_block(image), fill=torch.amin(image.flatten(1), 1)):
        volume[..., span] = slab.numpy()
    return volume


def upright(geometry: Geometry, spacing: Sequence[float], unit: str) -> NDArray[np.float64]:
    """Return an affine that has native axes run along the world's, as the cache tells; a slice is taken as axial."""
    if unit == "px":
        return np.eye(4)
    affine = np.eye(4)
    affine[: len(geometry.order), : len(geometry.order)] = 0
    for world, (axis, flip) in enumerate(zip(geometry.order, geometry.flips, strict=True)):
        affine[world, axis] = -spacing[axis] if flip else spacing[axis]
    return affine


def captioned(drawing: Image.Image, text: str) -> Image.Image:
    """Write a line, in the letters of Pillow's own font, above a drawing."""
    plain = unicodedata.normalize("NFKD", on_a_line(text)).encode("ascii", "ignore").decode()
    font: Any = ImageFont.load_default(FONT_SIZE)
    band = FONT_SIZE + 2 * GAP
    canvas = Image.new("RGB", (drawing.width, drawing.height + band), CANVAS)
    canvas.paste(drawing, (0, band))
    ImageDraw.Draw(canvas).text((GAP, band / 2), plain, WHITE, font, "lm")
    return canvas
