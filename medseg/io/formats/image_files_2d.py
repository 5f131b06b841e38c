"""What Pillow does not check or does not apply: sizes, checksums and kinds of PNG, and the sample types of TIFF."""

import struct
import zlib
from collections.abc import Iterator
from math import ceil, prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from medseg.errors import MedsegError
from medseg.io.limits import DEFLATE_RATIO, check_length, check_memory

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

BITS, WHITE_IS_ZERO, COMPRESSION, SAMPLES, DEPTH, SAMPLE_FORMAT = 258, 262, 259, 277, 32997, 339
"""Tags of TIFF. The second is PhotometricInterpretation, in which 0 means that white is zero."""
STRIPS, STRIP_LENGTHS, STRIP_ROWS, PLANES, TILES, TILE_COLUMNS, TILE_ROWS = 273, 279, 278, 284, 324, 322, 323
UNSIGNED, SIGNED = 1, 2
"""Values of SampleFormat."""

RATIOS = {"PNG": DEFLATE_RATIO, "JPEG": DEFLATE_RATIO, "MPO": DEFLATE_RATIO}
"""How far these pack at most. A block of 64 values takes a bit or more in JPEG, so that its ratio is lower."""


def check_size(image: Image.Image, path: Path) -> None:
    """Refuse an opened picture that is larger than ``read.max_gb``, or than its file can hold.

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
    """Refuse a PNG with a wrong checksum, and kinds that Pillow would change.

    Raises:
        MedsegError: it is animated, or has colours or transparency in 16 bits, of which Pillow drops 8.
        ValueError, EOFError: as in ``chunks``.
    """
    for kind, piece in chunks(stream):
        if kind == b"IHDR" and piece and piece[8] == DEEP and piece[9] in COLOUR_OR_ALPHA:
            raise MedsegError(deep(path, "PNG"))
        if kind == b"acTL":
            raise MedsegError(f"{path}: an animated PNG; which of its pictures is meant is unknown. Save one a file.")


def check_rows(stream: BinaryIO, shape: tuple[int, int]) -> None:
    """Refuse a PNG whose pixels unpack to less than its header describes, the rest of which Pillow leaves at 0.

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


def check_tiff(image: Image.Image, path: Path) -> None:
    """Refuse what Pillow would read the first or the upper part of.

    Raises:
        MedsegError: there are several pages or slices, or colours in 16 bits.
        EOFError: there are fewer strips or tiles than rows and columns need.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    pages, slices = getattr(image, "n_frames", 1), int(tags.get(DEPTH, 1))
    if pages > 1 or slices > 1:
        what = f"{pages} pages" if pages > 1 else f"{slices} slices"
        raise MedsegError(
            f"{path}: a TIFF of {what}; whether they are slices, channels or times is unknown."
            " Save one file a page, or a volume as NIfTI."
        )
    if len(bits := tags.get(BITS, (1,))) > 1 and max(bits) > 8:
        raise MedsegError(deep(path, "TIFF"))
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
    """Say that colours in more than 8 bits are not read."""
    return (
        f"{path}: a {kind} of colours or transparency in 16 bits, of which 8 would be lost. Save it in 8 bits, or each"
        " colour as a grey picture of 16 bits, a file a channel."
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
    """Say of what kind a picture is that Pillow cannot identify; "" where it is no TIFF whose tags can be read."""
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
