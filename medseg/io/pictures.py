"""Pictures: PNG, JPEG, TIFF and BMP as (rows, columns) of the pixels as they are stored.

An EXIF orientation is not applied: it is a wish of the viewer, and masks, which match the stored pixels, carry none.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medseg.errors import MedsegError
from medseg.io.case import Scan

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

COLOUR = 1 << 24
"""Bit that marks a mask's value as a colour: ``COLOUR | 0xRRGGBB``. Grey pixels have their plain grey value."""

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


@dataclass(frozen=True)
class PictureLayout:
    """Where a picture was read from. Its masks need no more."""

    path: Path
    unit: ClassVar = "px"


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], PictureLayout]:
    """Read one picture as pixels (1 or 3, rows, columns) of their own type, the identity affine and its layout.

    Grey of 8, 16 or 32 bits or float is one channel, colour is three. Pillow reads 16-bit colour as 8-bit.

    Raises:
        MedsegError: the file is damaged, no picture, of several pages or of a kind that is neither grey nor colour.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP")) as image:
            _refuse_pages(image, path)
            pixels = np.asarray(image.convert(MODES[image.mode]) if image.mode in MODES else image)
    except DAMAGE as error:
        raise MedsegError(f"{path}: no readable picture; damaged, truncated or something else? {error}") from error
    if pixels.ndim == 3 and image.mode not in {"RGB", *MODES}:
        raise MedsegError(f"{path}: colours of the kind {image.mode!r} are not read. Save it as grey or RGB.")
    return np.moveaxis(np.atleast_3d(pixels), -1, 0), np.eye(4), PictureLayout(path)  # (C, h, w)


def write(path: Path, values: NDArray[np.integer], like: Scan) -> None:
    """Write ``values`` (rows, columns) as 8-bit grey, as 16-bit grey if one is above 255, as RGB if one is a colour."""
    highest = values[values < COLOUR].max(initial=0)
    coloured = bool((values >= COLOUR).any())
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
    codes = np.where(values >= COLOUR, values & 0xFFFFFF, values * 0x010101)  # grey v is the colour vvv
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)  # (h, w, 3)


def _refuse_pages(image: Image.Image, path: Path) -> None:
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    if pages > 1:
        raise MedsegError(
            f"{path}: a TIFF of {pages} pages; whether they are slices, channels or times is unknown."
            " Save one file a page, or a volume as NIfTI."
        )
