"""Pictures of a scan with its classes in colour, as a radiologist is used to see them."""

import io
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medseg.io.case import Scan
from medseg.io.grids.grid import bounding_box
from medseg.io.labels import IGNORE, LabelMap
from medseg.io.segments.terminology import Colour, colour
from medseg.preprocessing.fingerprint.fingerprint import class_sizes

Indices = NDArray[np.uint8]

MIN_HEIGHT = 512
"""Small scans are enlarged to it. Lengths here and below are in pixels of the result."""
MAX_SIDE = 1536
NOTEBOOK_SIDE = 400
ALPHA = (0.35, 0.55)
"""How opaque the fill is over black and over white, where a colour that is as thin would be pale."""
DIM = 0.4
"""How much is left of the light of the pixels round a contour, which set it off a bright image."""
LINE = 2
DASH = 5
GAP = 8
FONT_SIZE = 15
THINNED = 1 << 23
"""Voxels among which the largest component is looked for; of larger boxes every n-th voxel along each axis is."""
WINDOWS = {"lung": (-1350.0, 150.0), "soft tissue": (-160.0, 240.0), "bone": (-500.0, 1300.0)}
"""Hounsfield units shown black and white, of the usual windows."""
MINI_HEIGHT, MINI_WIDTH = 200, 640
"""Largest height and width of a small picture."""
RING = 7
"""How far a ring is from what it is drawn around."""
WHITE = (255, 255, 255)
CANVAS = (28, 28, 28)


@dataclass(frozen=True)
class Panel:
    """One slice the way it is shown, with the rows running down."""

    pixels: NDArray[np.float32]  # (H, W) or (H, W, 3)
    indices: Indices  # (H, W)
    reference: Indices  # (H, W), empty where there is none
    extent: tuple[float, float]  # height and width in mm or px
    sides: str = ""  # letters of the left, right, top and bottom side


def overlay(
    scan: Scan,
    indices: Indices,
    names: Sequence[str],
    reference: Indices | None = None,
    annotated: NDArray[np.bool_] | None = None,
    side: int = MAX_SIDE,
) -> Image.Image:
    """Draw the classes over the scan: filled, with a contour line each, and a legend with their sizes.

    ``indices`` and ``reference`` are uint8 (*spatial) on the scan's grid, ``names`` all class names, the background
    first. The ground truth is drawn as a contour of white and black dashes, as far as it is known: ``annotated`` (K,)
    says which classes were looked for (None: all), and ``IGNORE`` is no ground truth. A 2D image is shown whole. Of a
    volume the axial, coronal and sagittal slice with the most of the largest connected component of the foreground, of
    the ground truth where there is one, is shown in radiological convention (the patient's right on the left, anterior
    or superior up), whatever the order of the axes in the file; oblique axes are shown along the nearest one. No slice
    is longer than ``side`` pixels.
    """
    annotated = np.ones(len(names), np.bool_) if annotated is None else annotated
    true = np.zeros_like(indices)
    if reference is not None:
        true = np.where(np.isin(reference, np.flatnonzero(annotated)), reference, 0).astype(np.uint8)
    panels = _panels(scan, indices, true)
    window = _window(panels, scan.unit)
    # pixels of the result for each mm or px, one for all panels: the finest voxel gets one if ``side`` allows
    scale = max(1 / min(scan.spacing), MIN_HEIGHT / max(panel.extent[0] for panel in panels))
    scale = min(scale, side / max(max(panel.extent) for panel in panels))
    legend = _legend(scan, class_sizes(indices), None if reference is None else class_sizes(true), names, annotated)
    return _compose([_draw(panel, window, scale) for panel in panels], legend)


def miniature(scan: Scan, indices: Indices, marked: NDArray[np.bool_] | None = None) -> Image.Image:
    """Draw the classes over the scan as ``overlay`` does, but small, without a legend.

    ``marked`` (*spatial) are voxels to be seen: the slices go through their largest component, and they are ringed.
    """
    from scipy.ndimage import find_objects, label

    marks = np.zeros_like(indices) if marked is None else marked.view(np.uint8)
    panels = _panels(scan, indices, marks)
    width = sum(panel.extent[1] for panel in panels)
    scale = min(MINI_HEIGHT / max(panel.extent[0] for panel in panels), MINI_WIDTH / width)
    window = _window(panels, scan.unit)
    images = [_draw(replace(panel, reference=np.zeros_like(panel.reference)), window, scale) for panel in panels]
    for image, panel in zip(images, panels, strict=True):
        down, across = (length / panel.reference.shape[axis] for axis, length in enumerate(image.size[::-1]))
        draw = ImageDraw.Draw(image)
        for rows, columns in find_objects(label(panel.reference, np.ones((3, 3)))[0]):  # each component of the marks
            box = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
            ring = [*(edge - RING for edge in box[:2]), *(edge + RING for edge in box[2:])]
            draw.ellipse(ring, outline=WHITE, width=2)
    canvas = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), CANVAS)
    x = 0
    for image in images:
        canvas.paste(image, (x, (canvas.height - image.height) // 2))
        x += image.width
    return canvas


def notebook_png(scan: Scan, indices: Indices, label_map: LabelMap) -> bytes:
    """Return an ``overlay`` as a PNG file, of a size for a notebook; ``IGNORE`` is not drawn."""
    file, known = io.BytesIO(), np.where(indices == IGNORE, 0, indices).astype(np.uint8)
    overlay(scan, known, label_map.names, side=NOTEBOOK_SIDE).save(file, "png")
    return file.getvalue()


def colours(label_map: LabelMap) -> dict[str, Colour]:
    """Return the colour of each class, or of each region that of the class that it is painted with."""
    painted = label_map.region_indices or range(1, len(label_map.names))
    return {name: colour(index) for name, index in zip(label_map.reported, painted, strict=True)}


def _panels(scan: Scan, indices: Indices, reference: Indices) -> list[Panel]:
    """The 2D image as a whole, or the slices of a volume through the largest component; of a single slice, itself."""
    if scan.unit == "px":  # three channels are colours, else the first one is shown
        pixels = np.moveaxis(scan.image, 0, -1) if len(scan.image) == 3 else scan.image[0]
        return [Panel(pixels, indices, reference, (float(scan.shape[0]), float(scan.shape[1])))]
    volumes, spacing = towards_lpi([scan.image[0], indices, reference], scan.affine)
    shape = volumes[0].shape
    # through the ground truth where there is any: a wild prediction must not choose the view
    centre = largest_component(volumes[2] if volumes[2].any() else volumes[1])
    panels = []
    for axis, sides in ((2, "RLAP"), (1, "RLSI"), (0, "APSI")):
        columns, rows = (other for other in range(3) if other != axis)
        if shape[axis] > 1 and 1 in shape:
            continue
        extent = (shape[rows] * spacing[rows], shape[columns] * spacing[columns])
        # (rows, columns) each
        pixels, predicted, true = (np.ascontiguousarray(volume.take(centre[axis], axis).T) for volume in volumes)
        panels.append(Panel(pixels, predicted, true, extent, sides))
    return panels


def largest_component(indices: Indices) -> tuple[int, ...]:
    """Return of each axis of a volume the slice with the most of the largest component; the middle of an empty one."""
    from scipy.ndimage import label

    foreground = indices > 0
    if not foreground.any():
        return tuple(length // 2 for length in indices.shape)
    box = bounding_box(foreground)
    step = math.ceil((foreground[box].size / THINNED) ** (1 / 3))
    components, number = label(foreground[box][::step, ::step, ::step], np.ones((3, 3, 3)))
    if number > 1:
        largest = components == np.bincount(components.ravel())[1:].argmax() + 1
    else:
        step, largest = 1, foreground[box]
    amounts = (np.count_nonzero(largest, axis=tuple({0, 1, 2} - {axis})) for axis in range(3))
    return tuple(span.start + step * int(amount.argmax()) for span, amount in zip(box, amounts, strict=True))


def towards_lpi(
    volumes: Sequence[NDArray[Any]], affine: NDArray[np.float64]
) -> tuple[list[NDArray[Any]], tuple[float, ...]]:
    """Return the volumes with axes that run to the left, to posterior and to inferior, and these axes' spacing in mm.

    A slice of such a volume, its first axis across and its second one down, is in radiological convention.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing  # (world axis R A S, voxel axis)
    order = max(permutations(range(3)), key=lambda axes: float(np.abs(direction[range(3), axes]).sum()))
    backwards = tuple(slice(None, None, -1 if towards > 0 else 1) for towards in direction[range(3), order])
    deep = (volume.reshape(*volume.shape, *[1] * (3 - volume.ndim)) for volume in volumes)  # a 2D slice has depth 1
    return [volume.transpose(order)[backwards] for volume in deep], tuple(float(spacing[axis]) for axis in order)


def _window(panels: Sequence[Panel], unit: str) -> tuple[float, float]:
    values = np.concatenate([panel.pixels.ravel() for panel in panels])
    finding = np.concatenate([panel.pixels[(panel.indices > 0) | (panel.reference > 0)] for panel in panels])
    return usual_window(values, finding, unit)


def usual_window(values: NDArray[np.float32], finding: NDArray[np.float32], unit: str) -> tuple[float, float]:
    """Return the intensities that are shown black and white.

    0 and 255 of a well exposed 8 bit picture; of a CT, recognised by air below -500 HU, the usual window of the tissue
    that the finding is of; else two percentiles. ``values`` are those of a scan, ``finding`` those within its masks.
    """
    low, high = (float(p) for p in np.percentile(values, (0.5, 99.5)))
    if unit == "px" and values.min() >= 0 and values.max() <= 255 and not np.any(values % 1) and high > 127:
        return 0.0, 255.0
    if unit == "mm" and -500 > values.min() >= -10_000 and high > -500:
        hounsfield = float(np.median(finding)) if finding.size else 0.0
        return WINDOWS["lung" if hounsfield < -400 else "bone" if hounsfield > 250 else "soft tissue"]
    return low, high


def _draw(panel: Panel, window: tuple[float, float], scale: float) -> Image.Image:
    """Fill and contour of the classes over the slice, a dashed contour of the ground truth, letters at the sides."""
    height, width = (max(1, round(length * scale)) for length in panel.extent)
    low, high = window
    grey = np.clip((panel.pixels - low) / max(high - low, 1e-6), 0, 1)
    slice_ = Image.fromarray((255 * grey).astype(np.uint8)).convert("RGB")
    pixels = np.asarray(slice_.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)  # (H, W, 3)
    masks = (Image.fromarray(mask) for mask in (panel.indices, panel.reference))
    indices, reference = (np.asarray(mask.resize((width, height), Image.Resampling.NEAREST)) for mask in masks)

    colours = np.array([(0, 0, 0), *(colour(index) for index in range(1, int(indices.max()) + 1))], np.float32)[indices]
    opacity = ALPHA[0] + (ALPHA[1] - ALPHA[0]) * pixels.mean(-1, keepdims=True) / 255
    filled = np.where(indices[..., None] > 0, (1 - opacity) * pixels + opacity * colours, pixels)
    contour, true_contour = _contour(indices), _contour(reference)
    filled = np.where(contour[..., None], colours, filled)
    filled = np.where(_rim(indices)[..., None], DIM * filled, filled)
    row, column = np.indices(reference.shape)
    dashes = (3 * row + 2 * column) // (3 * DASH) % 2 == 0  # a slope that borders rarely follow
    gaps = true_contour & ~dashes & ~contour  # dark, as white dashes are not seen on white
    filled = np.where(gaps[..., None], CANVAS, filled)
    image = Image.fromarray(np.where((true_contour & dashes)[..., None], WHITE, filled).astype(np.uint8))

    _letter(image, panel.sides)
    return image


def _letter(image: Image.Image, sides: str) -> None:
    """Write the letters of the left, right, top and bottom side into the image."""
    width, height = image.size
    corners = (
        (3, height / 2, "lm"),
        (width - 3, height / 2, "rm"),
        (width / 2, 3, "mt"),
        (width / 2, height - 3, "mb"),
    )
    draw = ImageDraw.Draw(image)
    for letter, (x, y, anchor) in zip(sides, corners, strict=False):
        draw.text((x, y), letter, WHITE, _font(), anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _contour(indices: Indices) -> NDArray[np.bool_]:
    """The pixels of a class within ``LINE`` of another one or of the background; the frame cuts classes open."""
    padded = np.pad(indices, LINE, mode="edge")
    height, width = indices.shape
    shifts = [(LINE + dy, LINE + dx) for d in range(1, LINE + 1) for dy, dx in ((d, 0), (-d, 0), (0, d), (0, -d))]
    other = np.any([padded[y : y + height, x : x + width] != indices for y, x in shifts], axis=0)
    return other & (indices > 0)


def _rim(indices: Indices) -> NDArray[np.bool_]:
    """The pixels of the background that touch a class."""
    is_in = np.pad(indices > 0, 1)
    return (is_in[:-2, 1:-1] | is_in[2:, 1:-1] | is_in[1:-1, :-2] | is_in[1:-1, 2:]) & (indices == 0)


def _legend(
    scan: Scan,
    predicted_voxels: NDArray[np.int64],
    true_voxels: NDArray[np.int64] | None,
    names: Sequence[str],
    annotated: NDArray[np.bool_],
) -> list[tuple[Colour, str]]:
    """A coloured entry for each class that occurs, from the voxels per class index; the largest come first."""
    entries = []
    for index in range(1, len(names)):
        predicted, expected = (
            0 if n is None or index >= len(n) else int(n[index]) for n in (predicted_voxels, true_voxels)
        )
        if predicted or expected:
            known = _size(scan, expected) if annotated[index] else "not annotated"
            against = "" if true_voxels is None else f" (reference {known})"
            # Pillow's own font has ASCII letters only; a class with none of them is called by its number
            letters = unicodedata.normalize("NFKD", names[index]).encode("ascii", "ignore").decode().strip()
            text = f"{letters or f'class {index}'}: {_size(scan, predicted)}{against}"
            entries.append((max(predicted, expected), colour(index), text))
    shown = [(fill, text) for _, fill, text in sorted(entries, key=lambda entry: -entry[0])]
    if true_voxels is not None and true_voxels[1:].any():
        shown.append((WHITE, "dashed: reference"))
    return shown or [(WHITE, "no foreground")]


def _size(scan: Scan, voxels: int) -> str:
    if scan.unit == "px":
        return f"{voxels:,} px"
    volume = voxels * abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000
    return f"{volume:,.3f} ml" if volume < 1 else f"{volume:,.1f} ml"


def _compose(panels: Sequence[Image.Image], legend: Sequence[tuple[Colour, str]]) -> Image.Image:
    """The panels side by side, the legend in lines below."""
    width = sum(panel.width for panel in panels) + GAP * (len(panels) + 1)
    width = max(width, 3 * GAP + FONT_SIZE + max(round(_font().getlength(text)) for _, text in legend) + GAP)
    height = max(panel.height for panel in panels)
    corners = _flow([text for _, text in legend], width)
    canvas = Image.new("RGB", (width, height + 3 * GAP + corners[-1][1] + FONT_SIZE), CANVAS)
    x = GAP
    for panel in panels:
        canvas.paste(panel, (x, GAP + (height - panel.height) // 2))
        x += panel.width + GAP
    draw = ImageDraw.Draw(canvas)
    for (fill, text), (x, y) in zip(legend, corners, strict=True):
        top = height + 2 * GAP + y
        draw.rectangle((x, top, x + FONT_SIZE - 1, top + FONT_SIZE - 1), fill)
        draw.text((x + FONT_SIZE + GAP, top + FONT_SIZE / 2), text, WHITE, _font(), "lm")
    return canvas


def _flow(texts: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Where each legend entry begins: one after the other on a single line, or in the columns of several."""
    lengths = [FONT_SIZE + 3 * GAP + round(_font().getlength(text)) for text in texts]
    if GAP + sum(lengths) <= width:
        return [(GAP + sum(lengths[:entry]), 0) for entry in range(len(texts))]
    columns = max(1, (width - GAP) // max(lengths))
    cells = (divmod(entry, columns) for entry in range(len(texts)))
    return [(GAP + column * ((width - GAP) // columns), row * (FONT_SIZE + GAP)) for row, column in cells]


def _font() -> Any:
    return ImageFont.load_default(FONT_SIZE)
