"""2D images: PNG, JPEG, TIFF and BMP as (rows, columns) of the pixels as viewers show them.

So an orientation in EXIF or in a TIFF's tag is applied, to images and masks alike: masks drawn in a viewer match, and
those that are written, which carry no orientation, overlay their image. ``as_stored`` takes it back.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil, prod
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.grids.grid import Grid
from medseg.io.labels import COLOUR, is_colour
from medseg.io.limits import DEFLATE_RATIO, check_length, check_memory

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""Of Pillow's, which knows many others, one of which starts a program (EPS)."""

MODES = {"1": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGBA": "RGB", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
"""Modes that are read as another one: palettes by their colours, alpha dropped."""

LOSSY = {"jpeg", "tiff_jpeg", "jpeg2000", "webp"}
"""Compressions of TIFF that change values, by Pillow's names."""


Image.MAX_IMAGE_PIXELS = None  # read.max_gb is the limit, with a message of our own

PIECE = 1 << 18  # bytes
DEEP = 16  # bits
BIG = 43  # the version of BigTIFF
COLOUR_OR_ALPHA = (2, 4, 6)
"""PNG's types of colour, of grey with alpha, and of colour with alpha."""

SAMPLES_OF = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Numbers a pixel of these types."""

ORIENTATION = 0x0112
"""The tag of EXIF and of TIFF: 1 as stored, 2 to 8 mirrored, turned, or both."""

BITS, WHITE_IS_ZERO, COMPRESSION, DESCRIPTION, SAMPLES, DEPTH, SAMPLE_FORMAT = 258, 262, 259, 270, 277, 32997, 339
"""Tags of TIFF. The second is PhotometricInterpretation, in which 0 means that white is zero."""
STRIPS, STRIP_LENGTHS, STRIP_ROWS, PLANES, TILES, TILE_COLUMNS, TILE_ROWS = 273, 279, 278, 284, 324, 322, 323
UNSIGNED, SIGNED = 1, 2
"""Values of SampleFormat."""

SWAPPED = {"I;16BS": np.int16, "I;32BS": np.int32, "F;32BF": np.float32}
"""Raw modes whose bytes Pillow swaps, though libtiff has done so when it unpacked them, and the type to swap back."""

STATED_IMAGES = re.compile(r"ImageJ=.*?^images=(\d+)", re.DOTALL | re.MULTILINE)
"""The description of ImageJ, which may write a stack as one page with all others' pixels behind it."""

RATIOS = {"PNG": DEFLATE_RATIO, "JPEG": DEFLATE_RATIO, "MPO": DEFLATE_RATIO}
"""How far these pack at most. A block of 64 values takes a bit or more in JPEG, so that its ratio is lower."""


@dataclass(frozen=True)
class PictureLayout:
    """Where a 2D image was read from, and what makes its pixels doubtful as a mask; written masks need the path alone.

    ``orientation`` is the one (1 to 8) that was applied, ``lossy`` marks a compression that changes values, and
    ``transparent`` is where (rows, columns) pixels are less than half as opaque as the most opaque one; None: nowhere.
    """

    path: Path
    orientation: int = 1
    lossy: bool = False
    transparent: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    unit: ClassVar = "px"


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], PictureLayout]:
    """Read one 2D image as pixels (1 or 3, rows, columns) of their own type, the identity affine and its layout.

    Pixels are as viewers show them; ``as_stored`` has them as they are stored. Colours have no alpha, the layout has
    where they are transparent. Grey of 8, 16 or 32 bits or float is one channel, colour of 8 bits is three.

    Raises:
        MedsegError: it is larger than ``read.max_gb``, of several pages, or of a kind that would not be read as it is.
        Exception: it is damaged, or no 2D image; see ``medseg.io.damage``.
    """
    try:
        # From a stream, not a path: Pillow maps raw TIFFs into memory before it turns them, which scrambles them.
        with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
            check_size(image, path)
            if image.format == "PNG":
                with path.open("rb") as chunks:
                    check_png(chunks, path)
            if image.format == "TIFF":
                check_tiff(image, path)
            before = _orientation(image)
            raw_mode = raw_mode_of(image)
            image.load()  # after which TIFFs are turned and have lost their tag, and a PNG's EXIF is known
            after = _orientation(image)
            transparent = _transparent(image)
            check_palette(image)
            pixels = np.asarray(image.convert(MODES[image.mode]) if image.mode in MODES else image)
            pixels = pixels.astype(SWAPPED[raw_mode]).byteswap() if raw_mode in SWAPPED else pixels
            if image.format == "PNG" and not pixels[-1].any():
                with path.open("rb") as rows:
                    check_rows(rows, image.size[::-1])
            pixels = as_tagged(pixels, image) if image.format == "TIFF" else pixels
            lossy = image.format in ("JPEG", "MPO") or image.info.get("compression") in LOSSY
    except UnidentifiedImageError as error:
        with path.open("rb") as stream:
            kind = unread_kind(stream) or "it begins as none of PNG, JPEG, TIFF and BMP, or its header is damaged"
        raise ValueError(f"This is {kind}.") from error
    if pixels.ndim == 3 and image.mode not in {"RGB", *MODES}:
        raise MedsegError(f"{path}: colours of the kind {image.mode!r} are not read. Save it as grey or RGB.")
    layout = PictureLayout(
        path,
        orientation=after if after != 1 else before,
        lossy=lossy,
        transparent=None if transparent is None else _turned(transparent, after),
    )
    return _turned(np.moveaxis(np.atleast_3d(pixels), -1, 0), after), np.eye(4), layout  # (C, h, w)


def grid(path: Path) -> tuple[Grid, int]:
    """Return the grid of an image as it is stored and the number of its channels, from the header alone."""
    with Image.open(path, formats=FORMATS) as image:
        return Grid(image.size[::-1], np.eye(4)), Image.getmodebands(MODES.get(image.mode, image.mode))


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
        raise MedsegError(f"{path}: a 2D image has two axes, this mask has {values.shape}. Use NIfTI (.nii.gz).")
    in_colour = is_colour(values)
    highest = values[~in_colour].max(initial=0)
    coloured = bool(in_colour.any())
    most = 255 if coloured or path.suffix.lower() == ".bmp" else 65535
    if values.min() < 0 or highest > most:
        raise MedsegError(
            f"{path}: a {'colour ' * coloured}{path.suffix} mask holds values from 0 to {most}, not from"
            f" {values.min()} to {highest}. Change the values of dataset.labels, or use NIfTI."
        )
    if not coloured:
        Image.fromarray(values.astype(np.min_scalar_type(highest))).save(path)
        return
    codes = np.where(in_colour, values & 0xFFFFFF, values * 0x010101)  # grey v is the colour vvv
    rgb = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)  # (rows, columns, 3)
    Image.fromarray(rgb.astype(np.uint8)).save(path)


def colour_codes(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Turn colours (3, rows, columns) into file values (rows, columns): grey where r = g = b, else ``COLOUR | rgb``."""
    red, green, blue = pixels.astype(np.int32)
    codes = COLOUR | red << 16 | green << 8 | blue
    return np.where((red == green) & (green == blue), red, codes)


def _orientation(image: Image.Image) -> int:
    """Return the orientation (1 to 8) that an opened 2D image has still to be shown in, 1 where its EXIF is damaged."""
    try:
        tag = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises nearly anything on damaged EXIF
        return 1
    return int(tag) if tag in range(1, 9) else 1


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return pixels (..., rows, columns) as an orientation wants them shown."""
    shown = pixels.swapaxes(-1, -2) if orientation >= 5 else pixels
    shown = shown[..., ::-1, :] if orientation in (3, 4, 7, 8) else shown
    return shown[..., ::-1] if orientation in (2, 3, 6, 7) else shown


def _transparent(image: Image.Image) -> NDArray[np.bool_] | None:
    """Return where (rows, columns) a 2D image is less than half as opaque as its most opaque pixel; None: nowhere."""
    if isinstance(key := image.info.get("transparency"), int) and image.mode in ("I;16", "I"):
        transparent = np.asarray(image) == key  # a grey value that stands for what is transparent
    elif image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        transparent = 2 * alpha.astype(np.int32) < max(alpha.max(), 1)
    else:
        return None
    return transparent if transparent.any() else None


# ---- what Pillow does not check or does not apply: sizes, checksums and kinds of PNG, sample types of TIFF


def check_size(image: Image.Image, path: Path) -> None:
    """Reject an opened 2D image that is larger than ``read.max_gb``, or than its file can hold.

    Raises:
        MedsegError: it is larger than ``read.max_gb``.
        EOFError: the file is too short.
    """
    columns, rows = image.size
    shape = (rows, columns, min(len(image.getbands()), 3))
    check_memory(f"{path}: its header describes an array", shape)
    is_raw = image.info.get("compression") in ("raw", 0)  # as Pillow calls it in TIFF, in BMP
    if ratio := 1 if is_raw else RATIOS.get(str(image.format)):
        check_length(shape, prod(image.size) // 8, path.stat().st_size * ratio)  # a bit each at least


def chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks of a PNG in pieces: the kind and some bytes. Checksums are compared, as Pillow does not.

    Raises:
        ValueError, EOFError: a checksum is wrong, or the file is cut.
    """
    stream.seek(8)
    kind = b""
    while kind != b"IEND":
        start = stream.read(8)
        if len(start) < 8:
            raise EOFError("the file ends before its last chunk")
        length, kind = struct.unpack(">I4s", start)
        checksum = zlib.crc32(kind)
        yield kind, b""
        while length:
            piece = stream.read(min(length, PIECE))
            if not piece:
                raise EOFError(f"the file ends in its chunk {kind.decode('latin-1')!r}")
            yield kind, piece
            checksum, length = zlib.crc32(piece, checksum), length - len(piece)
        if stream.read(4) != struct.pack(">I", checksum):
            raise ValueError(f"the checksum of its chunk {kind.decode('latin-1')!r} is wrong")


def check_png(stream: BinaryIO, path: Path) -> None:
    """Reject a PNG with a wrong checksum, and kinds that Pillow would change.

    Raises:
        MedsegError: it is animated, or has colours or transparency in 16 bits, of which Pillow drops 8.
        ValueError, EOFError: as in ``chunks``.
    """
    for kind, piece in chunks(stream):
        if kind == b"IHDR" and piece and piece[8] == DEEP and piece[9] in COLOUR_OR_ALPHA:
            raise MedsegError(deep(path, "PNG"))
        if kind == b"acTL":
            raise MedsegError(f"{path}: an animated PNG; which of its frames is meant is unknown. Save one a file.")


def check_rows(stream: BinaryIO, shape: tuple[int, int]) -> None:
    """Reject a PNG whose pixels unpack to less than its header describes, the rest of which Pillow leaves at 0.

    Raises:
        EOFError: it is so.
    """
    unpacker, present, needed = zlib.decompressobj(), 0, 0
    for kind, piece in chunks(stream):
        if kind == b"IHDR" and piece:
            columns, rows, bits, colour, _, _, is_interlaced = struct.unpack(">IIBBBBB", piece[:13])
            line = (columns * bits * SAMPLES_OF[colour] + 7) // 8
            needed = rows * line if is_interlaced else rows * (line + 1)  # a byte a row says how it was filtered
        while kind == b"IDAT" and piece:
            present += len(unpacker.decompress(piece, PIECE))
            piece = unpacker.unconsumed_tail
    check_length(shape, needed, present)


def check_palette(image: Image.Image) -> None:
    """Reject a loaded 2D image with a pixel that its palette has no colour for, which Pillow shows in black.

    Raises:
        ValueError: it is so.
    """
    if image.mode not in ("P", "PA"):
        return
    colours, highest = len(image.getpalette() or ()) // 3, int(np.asarray(image.getchannel(0)).max())
    if highest >= colours:
        raise ValueError(f"a pixel has colour {highest} of a palette of {colours}, counted from 0")


def raw_mode_of(image: Image.Image) -> str | None:
    """Return how the pixels are laid out that libtiff will unpack, by Pillow's name; None where it unpacks nothing."""
    decoder, *_, arguments = (*image.tile[0],) if image.tile else ("", ())  # type: ignore[attr-defined]
    return arguments[0] if decoder == "libtiff" else None


def check_tiff(image: Image.Image, path: Path) -> None:
    """Reject what Pillow would read the first or the upper part of.

    Raises:
        MedsegError: there are several pages or slices, more than four numbers a pixel, or colours in 16 bits.
        EOFError: there are fewer strips or tiles than rows and columns need.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    pages, slices = getattr(image, "n_frames", 1), int(tags.get(DEPTH, 1))
    stated = STATED_IMAGES.match(str(tags.get(DESCRIPTION, "")))
    pages = max(pages, int(stated[1][:9])) if stated else pages
    if pages > 1 or slices > 1:
        what = f"{pages} pages" if pages > 1 else f"{slices} slices"
        raise MedsegError(
            f"{path}: a TIFF of {what}; whether they are slices, channels or times is unknown."
            " Save one file a page, or a volume as NIfTI."
        )
    if len(bits := tags.get(BITS, (1,))) > 1 and max(bits) > 8:
        raise MedsegError(deep(path, "TIFF"))
    if len(bits) > max(SAMPLES_OF.values()):
        raise MedsegError(
            f"{path}: a TIFF of {len(bits)} numbers a pixel, of which colours are three. Save each channel as a grey"
            " image, a file a channel."
        )
    columns, rows = (
        image.size if tags.get(ORIENTATION, 1) < 5 else image.size[::-1]
    )  # Pillow has turned the size already
    planes = tags.get(SAMPLES, 1) if tags.get(PLANES, 1) == 2 else 1
    down = ceil(rows / (tags.get(TILE_ROWS) or tags.get(STRIP_ROWS) or rows))
    needed = down * (ceil(columns / tags[TILE_COLUMNS]) if TILES in tags else 1) * planes
    if (present := len(tags.get(TILES) or tags.get(STRIPS, ()))) < needed:
        raise EOFError(f"{rows} rows and {columns} columns need {needed} strips or tiles; it has {present}")
    if planes == 1 and image.info.get("compression") == "raw" and (present := sum(tags.get(STRIP_LENGTHS, ()))):
        check_length((rows, columns), rows * ((columns * sum(bits) + 7) // 8), present)


def deep(path: Path, kind: str) -> str:
    """Return the message that colours in more than 8 bits are not read."""
    return (
        f"{path}: a {kind} of colours or transparency in 16 bits, of which 8 would be lost. Save it in 8 bits, or each"
        " colour as a grey image of 16 bits, a file a channel."
    )


def as_tagged(pixels: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Return the pixels of a loaded TIFF as its tags mean them, where Pillow has them in another type or inverted."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, sample_format = tags.get(BITS, (1,))[0], tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0]
    if pixels.dtype == np.uint8 and sample_format == SIGNED:
        pixels = pixels.view(np.int8)
    if pixels.dtype == np.int32 and bits == 32 and sample_format == UNSIGNED:
        pixels = pixels.view(np.uint32)
    if bits == DEEP and tags.get(WHITE_IS_ZERO) == 0 and sample_format == UNSIGNED:  # those of 8 bits are inverted
        pixels = 65535 - pixels
    return pixels


def unread_kind(stream: BinaryIO) -> str:
    """Return what kind of 2D image Pillow could not identify; "" where it is no TIFF whose tags can be read."""
    try:
        stream.seek(0)
        start = stream.read(8)
        if start[:4] == b"MM\0+":
            return "a big-endian BigTIFF. Save it as TIFF"
        tags = TiffImagePlugin.ImageFileDirectory_v2(start + (stream.read(8) if start[2] == BIG else b""))
        stream.seek(tags.next)
        tags.load(stream)
    except Exception:  # Pillow raises nearly anything on what is no TIFF
        return ""
    bits, samples = tags.get(BITS, (1,)), tags.get(SAMPLES, 1)
    kind = {UNSIGNED: "unsigned", SIGNED: "signed", 3: "floating point"}.get(tags.get(SAMPLE_FORMAT, (1,))[0], "other")
    return (
        f"a TIFF of {samples} {kind} number(s) a pixel in {'/'.join(map(str, bits))} bits, PhotometricInterpretation"
        f" {tags.get(WHITE_IS_ZERO)}, Compression {tags.get(COMPRESSION)}. Save it as grey in 8 or 16 bits or float32,"
        " in which black is zero, or as colours in 8 bits"
    )
