"""Pictures: PNG, JPEG, TIFF and BMP as (rows, columns) of the pixels as viewers show them.

So an orientation in EXIF or in a TIFF's tag is applied, to images and masks alike: masks drawn in a viewer match, and
those that are written, which carry no orientation, overlay their image. ``as_stored`` takes it back.
"""

import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.formats.image_files_2d import (
    ORIENTATION,
    as_tagged,
    check_png,
    check_rows,
    check_size,
    check_tiff,
    unread_kind,
)
from medseg.io.labels import COLOUR, is_colour

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are truncated, damaged or something else."""

MODES = {"1": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGBA": "RGB", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
"""Modes that are read as another one: palettes by their colours, alpha dropped."""

LOSSY = {"jpeg", "tiff_jpeg", "jpeg2000", "webp"}
"""Compressions of TIFF that change values, by Pillow's names."""


@dataclass(frozen=True)
class PictureLayout:
    """Where a picture was read from, and what makes its pixels doubtful as a mask; written masks need the path alone.

    ``orientation`` is the one (1 to 8) that was applied, ``lossy`` tells of a compression that changes values, and
    ``transparent`` is where (rows, columns) pixels are less than half as opaque as the most opaque one; None: nowhere.
    """

    path: Path
    orientation: int = 1
    lossy: bool = False
    transparent: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    unit: ClassVar = "px"


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], PictureLayout]:
    """Read one picture as pixels (1 or 3, rows, columns) of their own type, the identity affine and its layout.

    Pixels are as viewers show them; ``as_stored`` has them as they are stored. Colours have no alpha, the layout tells
    where they are transparent. Grey of 8, 16 or 32 bits or float is one channel, colour of 8 bits is three.

    Raises:
        MedsegError: the file is damaged, no picture, larger than ``read.max_gb``, of several pages, or of a kind that
            would not be read as it is.
    """
    try:
        # From a stream, not a path: Pillow maps raw TIFFs into memory before it turns them, which scrambles them.
        with path.open("rb") as stream, Image.open(stream, formats=("PNG", "JPEG", "TIFF", "BMP")) as image:
            check_size(image, path)
            if image.format == "PNG":
                with path.open("rb") as chunks:
                    check_png(chunks, path)
            if image.format == "TIFF":
                check_tiff(image, path)
            before = _orientation(image)
            image.load()  # after which TIFFs are turned and have lost their tag, and a PNG's EXIF is known
            after = _orientation(image)
            transparent = _transparent(image)
            pixels = np.asarray(image.convert(MODES[image.mode]) if image.mode in MODES else image)
            if image.format == "PNG" and not pixels[-1].any():
                with path.open("rb") as rows:
                    check_rows(rows, image.size[::-1])
            pixels = as_tagged(pixels, image) if image.format == "TIFF" else pixels
            lossy = image.format in ("JPEG", "MPO") or image.info.get("compression") in LOSSY
    except UnidentifiedImageError as error:
        with path.open("rb") as stream:
            kind = unread_kind(stream) or "it begins as none of PNG, JPEG, TIFF and BMP, or its header is damaged"
        raise MedsegError(
            f"{path}: no readable picture; damaged, truncated or something else? This is {kind}."
        ) from error
    except DAMAGE as error:
        raise MedsegError(f"{path}: no readable picture; damaged, truncated or something else? {error}") from error
    if pixels.ndim == 3 and image.mode not in {"RGB", *MODES}:
        raise MedsegError(f"{path}: colours of the kind {image.mode!r} are not read. Save it as grey or RGB.")
    layout = PictureLayout(
        path,
        orientation=after if after != 1 else before,
        lossy=lossy,
        transparent=None if transparent is None else _turned(transparent, after),
    )
    return _turned(np.moveaxis(np.atleast_3d(pixels), -1, 0), after), np.eye(4), layout  # (C, h, w)


def as_stored(pixels: NDArray[Any], layout: PictureLayout) -> tuple[NDArray[Any], PictureLayout]:
    """Return pixels (C, rows, columns) and layout of ``read`` without the orientation that was applied."""
    tag = {6: 8, 8: 6}.get(layout.orientation, layout.orientation)  # the others are their own inverse
    transparent = None if layout.transparent is None else _turned(layout.transparent, tag)
    return _turned(pixels, tag), replace(layout, orientation=1, transparent=transparent)


def write(path: Path, values: NDArray[np.integer], like: Scan) -> None:
    """Write ``values`` (rows, columns) as 8-bit grey, as 16-bit grey if one is above 255, as RGB if one is a colour.

    Raises:
        MedsegError: they have other axes, or the format cannot hold them.
    """
    if values.ndim != 2:
        raise MedsegError(f"{path}: a picture has two axes, this mask has {values.shape}. Use NIfTI (.nii.gz).")
    in_colour = is_colour(values)
    highest = values[~in_colour].max(initial=0)
    coloured = bool(in_colour.any())
    most = 255 if coloured or path.suffix.lower() == ".bmp" else 65535
    if values.min() < 0 or highest > most:
        raise MedsegError(
            f"{path}: a {'colour ' * coloured}{path.suffix} mask holds values from 0 to {most}, not from"
            f" {values.min()} to {highest}. Change the values of dataset.labels, or use NIfTI."
        )
    Image.fromarray(_rgb(values) if coloured else values.astype(np.min_scalar_type(highest))).save(path)


def colour_codes(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Turn colours (3, rows, columns) into file values (rows, columns): grey where r = g = b, else ``COLOUR | rgb``."""
    red, green, blue = pixels.astype(np.int32)
    codes = COLOUR | red << 16 | green << 8 | blue
    return np.where((red == green) & (green == blue), red, codes)


def _rgb(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    codes = np.where(is_colour(values), values & 0xFFFFFF, values * 0x010101)  # grey v is the colour vvv
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)  # (h, w, 3)


def _orientation(image: Image.Image) -> int:
    """Return the orientation (1 to 8) that an opened picture has still to be shown in, 1 where its EXIF is damaged."""
    try:
        tag = image.getexif().get(ORIENTATION, 1)
    except DAMAGE:
        return 1
    return int(tag) if tag in range(1, 9) else 1


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return pixels (..., rows, columns) as an orientation wants them shown."""
    shown = pixels.swapaxes(-1, -2) if orientation >= 5 else pixels
    shown = shown[..., ::-1, :] if orientation in (3, 4, 7, 8) else shown
    return shown[..., ::-1] if orientation in (2, 3, 6, 7) else shown


def _transparent(image: Image.Image) -> NDArray[np.bool_] | None:
    """Return where (rows, columns) a picture is less than half as opaque as its most opaque pixel; None: nowhere."""
    if isinstance(key := image.info.get("transparency"), int) and image.mode in ("I;16", "I"):
        found = np.asarray(image) == key  # a grey value that stands for what is transparent
    elif image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        found = 2 * alpha.astype(np.int32) < max(alpha.max(), 1)
    else:
        return None
    return found if found.any() else None
