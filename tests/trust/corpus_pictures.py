"""Odd and damaged pictures, as ``corpus`` has them: PNG, JPEG, BMP and TIFF.

What is expected is known by construction, or comes from SimpleITK (libpng, libjpeg and libtiff) or tifffile, of which
medseg reads no picture.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import tifffile
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from trust.corpus import Sample, written

RNG = np.random.default_rng(11)
GREY = RNG.integers(0, 256, (20, 26), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (20, 26), dtype=np.uint16)
RGB = RNG.integers(0, 256, (20, 26, 3), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(32) * 3, np.arange(40) * 2)[..., None] + np.array([0, 30, 60])
"""Colours (32, 40, 3) without edges, which lossy packing leaves nearly as they are."""

TURNS = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: np.swapaxes(stored, 0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(np.swapaxes(stored, 0, 1), 2),
    8: lambda stored: np.rot90(stored, 1),
}
"""What the eight orientations of EXIF make of the stored rows and columns."""


def channels(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return (rows, columns[, C]) as (C, rows, columns)."""
    return np.moveaxis(np.atleast_3d(pixels), -1, 0)


def saved(pixels: NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as Pillow writes it."""
    stream = BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(stream, kind, **options)
    return stream.getvalue()


def by_itk(path: Path) -> NDArray[Any]:
    """Return the channels (C, rows, columns) that ITK reads, alpha dropped."""
    pixels = np.atleast_3d(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))
    return channels(pixels[..., : 1 if pixels.shape[-1] < 3 else 3])


# ---- PNG


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of these chunks, with right checksums."""
    result = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        result += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return result


def header(columns: int, rows: int, depth: int, colour: int, interlaced: int = 0) -> tuple[bytes, bytes]:
    """Return the first chunk of a PNG."""
    return b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, interlaced)


def lines(stored: NDArray[Any]) -> tuple[bytes, bytes]:
    """Return the chunk of the pixels: rows of bytes, unfiltered."""
    return b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in stored))


END = (b"IEND", b"")


def pngs(folder: Path) -> Iterator[Sample]:
    """Kinds of PNG: depths, palettes, transparency, orientation; flipped bytes, cuts, bombs and animations."""
    rng = np.random.default_rng(1)
    rows, columns = GREY.shape
    few = GREY % 4
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 9, 200], [7, 7, 7]], np.uint8)
    indexed = Image.fromarray(few, "L")
    indexed.putpalette(palette.tobytes())
    yield written(folder, "palette.png", saved(indexed, "png"), channels(palette[few]))
    yield written(folder, "palette_bits.png", saved(indexed, "png", bits=2), channels(palette[few]))
    yield written(folder, "palette_clear.png", saved(indexed, "png", transparency=1), channels(palette[few]))
    yield written(
        folder, "palette_alpha.png", saved(indexed, "png", transparency=b"\0\x80\xff"), channels(palette[few])
    )
    yield written(folder, "bits1.png", saved(GREY > 99, "png"), channels(np.where(GREY > 99, 255, 0)))
    for bits in (2, 4):  # a byte holds 4 or 2 pixels
        values = GREY[:, :24] % 2**bits
        per_byte = 8 // bits
        steps = np.arange(per_byte)[::-1] * bits
        packed = (values.reshape(rows, -1, per_byte) << steps).sum(-1).astype(np.uint8)
        content = png(header(24, rows, bits, 0), lines(packed), END)
        yield written(folder, f"bits{bits}.png", content, channels(values.astype(int) * 255 // (2**bits - 1)))
    yield written(folder, "bits16.png", saved(DEEP, "png"), channels(DEEP))
    yield written(folder, "grey_alpha.png", saved(np.dstack([GREY, GREY.T.reshape(GREY.shape)]), "png"), channels(GREY))
    yield written(folder, "rgba.png", saved(np.dstack([RGB, GREY]), "png"), channels(RGB))
    yield written(folder, "grey_clear.png", saved(GREY, "png", transparency=7), channels(GREY))
    yield written(folder, "bits16_clear.png", saved(DEEP, "png", transparency=7), channels(DEEP))
    yield written(folder, "optimised.png", saved(GREY, "png", optimize=True, compress_level=9), channels(GREY))
    for colour, samples in {2: 3, 4: 2, 6: 4}.items():
        deep = rng.integers(0, 65536, (rows, columns, samples)).astype(">u2").reshape(rows, -1)
        content = png(header(columns, rows, 16, colour), lines(deep), END)
        yield written(folder, f"deep_colour{colour}.png", content, cause="16 bits")
    for orientation, turn in TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield written(folder, f"turned{orientation}.png", saved(GREY, "png", exif=exif), channels(turn(GREY)))
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 1000, zip=True)
    yield written(folder, "text.png", saved(GREY, "png", pnginfo=text), channels(GREY))
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    yield written(
        folder, "animated.png", saved(pages[0], "png", save_all=True, append_images=pages[1:]), cause="animated"
    )
    good = header(columns, rows, 8, 0), lines(GREY)
    bomb = zlib.compress(b"\0" * (1 << 28), 9)
    yield written(folder, "text_bomb.png", png(good[0], (b"zTXt", b"a\0\0" + bomb), good[1], END), "either")
    yield written(folder, "profile_bomb.png", png(good[0], (b"iCCP", b"a\0\0" + bomb), good[1], END), "either")
    yield written(folder, "pixel_bomb.png", png(good[0], (b"IDAT", bomb), END), "either")
    huge = header(2**31 - 1, 2**31 - 1, 8, 2)
    yield written(folder, "huge.png", png(huge, good[1], END), cause="read.max_gb")
    yield written(folder, "claims.png", png(header(40_000, 40_000, 8, 0), good[1], END), cause="at most")
    for name, changed in {
        "size0": header(0, rows, 8, 0),
        "depth3": header(columns, rows, 3, 0),
        "colour9": header(columns, rows, 8, 9),
        "rows_more": header(columns, rows + 9, 8, 0),
        "columns_more": header(columns + 9, rows, 8, 0),
    }.items():
        yield written(folder, f"{name}.png", png(changed, good[1], END))
    yield written(folder, "no_pixels.png", png(good[0], END))
    yield written(folder, "no_header.png", png(good[1], END))
    short = b"\xff\0\0\0\xff\0"
    yield written(
        folder, "short_palette.png", png(header(columns, rows, 8, 3), (b"PLTE", short), good[1], END), cause="palette"
    )
    yield written(folder, "no_palette.png", png(header(columns, rows, 8, 3), good[1], END))
    whole = png(*good, END)
    yield written(folder, "behind.png", whole + b"\0" * 100, channels(GREY))
    yield written(
        folder, "interlaced.png", png(header(1, 1, 8, 0, 1), lines(GREY[:1, :1]), END), channels(GREY[:1, :1])
    )
    for place in np.linspace(9, len(whole) - 1, 40).astype(int):
        flipped = whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]
        yield written(folder, f"flip{place}.png", flipped)


# ---- JPEG and BMP


def jpegs(folder: Path) -> Iterator[Sample]:
    """Kinds of JPEG: grey, colours, CMYK and YCCK, progressive, sampled, turned; sizes that cannot be."""
    smooth = SMOOTH.astype(np.uint8)
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "grey": (Image.fromarray(smooth[..., 0]), {}),
        "rgb": (Image.fromarray(smooth), {}),
        "progressive": (Image.fromarray(smooth), {"progressive": True}),
        "restarts": (Image.fromarray(smooth), {"restart_marker_blocks": 2}),
        **{f"sampled{number}": (Image.fromarray(smooth), {"subsampling": number}) for number in (0, 1, 2)},
        "keep_rgb": (Image.fromarray(smooth), {"keep_rgb": True}),
        "resolution": (Image.fromarray(smooth), {"dpi": (1, 1)}),
    }
    for name, (image, options) in kinds.items():
        sample = written(folder, f"{name}.jpg", saved(image, "jpeg", quality=95, **options))
        yield Sample(sample.name, sample.path, by_itk(sample.path), tolerance=3)
    # The inks of CMYK multiply; Pillow writes them inverted, as Adobe does.
    cmyk = saved(Image.fromarray(smooth).convert("CMYK"), "jpeg", quality=100)
    yield Sample("cmyk.jpg", written(folder, "cmyk.jpg", cmyk).path, channels(smooth), tolerance=4)
    adobe = cmyk.index(b"Adobe") + 11  # the byte that says whether colours are CMYK (0) or YCCK (2)
    ycck = cmyk[:adobe] + b"\2" + cmyk[adobe + 1 :]
    luma, blue, red = np.moveaxis(smooth.astype(np.float64), -1, 0)  # what is stored, taken for YCbCr
    blue, red = blue - 128, red - 128
    shown = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    # YCbCr stands for 255 - CMY (libjpeg.txt), which Adobe stores inverted, so that a high value is little ink
    sample = written(folder, "ycck.jpg", ycck, 255 - np.clip(np.stack(shown), 0, 255))
    yield replace(sample, tolerance=8)
    for orientation, turn in TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = saved(smooth, "jpeg", quality=95, exif=exif)
        expected = channels(turn(smooth))
        yield Sample(
            f"turned{orientation}", written(folder, f"turned{orientation}.jpg", content).path, expected, tolerance=8
        )
    good = saved(smooth, "jpeg")
    frame = good.index(b"\xff\xc0") + 5  # rows and columns
    for name, rows, columns in (("huge", 65535, 65535), ("rows0", 0, 40), ("rows_more", 3200, 4000)):
        content = good[:frame] + struct.pack(">HH", rows, columns) + good[frame + 4 :]
        yield written(folder, f"{name}.jpg", content)
    yield written(folder, "precision12.jpg", good[: frame - 1] + b"\x0c" + good[frame:])
    yield written(folder, "components9.jpg", good[: frame + 4] + b"\x09" + good[frame + 5 :])
    yield written(folder, "lossless.jpg", good[: frame - 4] + b"\xc3" + good[frame - 3 :])
    exif = good[:2] + b"\xff\xe1" + struct.pack(">H", 5000) + b"Exif\0\0" + b"\xff" * 4992 + good[2:]
    yield written(folder, "exif_damaged.jpg", exif, "either")


def bmp(stored: bytes, bits: int, rows: int, columns: int, packing: int = 0, extra: bytes = b"") -> bytes:
    """Return a BMP of stored rows; ``extra`` are its masks or its palette."""
    colours = len(extra) // 4 if bits <= 8 else 0
    info = struct.pack("<IiiHHIIiiII", 40, columns, rows, 1, bits, packing, len(stored), 1, 1, colours, 0)
    start = 14 + len(info) + len(extra)
    return struct.pack("<2sIHHI", b"BM", start + len(stored), 0, 0, start) + info + extra + stored


def bmps(folder: Path) -> Iterator[Sample]:
    """Kinds of BMP: bits, palettes, run lengths, both orders of rows; sizes and offsets that cannot be."""
    rows, columns = 20, 24
    grey, colours = GREY[:, :columns], RGB[:, :columns]
    palette = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    entries = np.dstack([palette[..., ::-1][None], np.zeros((1, 256, 1), np.uint8)]).tobytes()
    for bits in (1, 4, 8):
        values = grey & 2**bits - 1
        steps = np.arange(8 // bits)[::-1] * bits
        packed = (values.reshape(rows, -1, 8 // bits) << steps).sum(-1).astype(np.uint8)
        packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))
        content = bmp(packed[::-1].tobytes(), bits, rows, columns, extra=entries[: 4 * 2**bits])
        yield written(folder, f"palette{bits}.bmp", content, channels(palette[values]))
    short = bmp(grey[::-1].tobytes(), 8, rows, columns, extra=entries[:8])
    yield written(folder, "palette_short.bmp", short, cause="palette")
    stored = np.ascontiguousarray(colours[..., ::-1])  # blue first
    yield written(folder, "bits24.bmp", bmp(stored[::-1].tobytes(), 24, rows, columns), channels(colours))
    yield written(folder, "rows_down.bmp", bmp(stored.tobytes(), 24, -rows, columns), channels(colours))
    four = np.dstack([stored, grey])
    yield written(folder, "bits32.bmp", bmp(four[::-1].tobytes(), 32, rows, columns), channels(colours))
    fives = colours.astype(np.uint16) >> 3
    words = (fives[..., 0] << 10 | fives[..., 1] << 5 | fives[..., 2]).astype("<u2")
    expected = channels(fives * 255 // 31)
    content = bmp(words[::-1].tobytes(), 16, rows, columns)
    yield Sample("bits16", written(folder, "bits16.bmp", content).path, expected, tolerance=1)
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in grey[::-1]) + b"\0\1"
    packed = bmp(runs, 8, rows, columns, 1, entries)
    yield written(folder, "runs.bmp", packed, channels(palette[grey]))
    yield written(folder, "runs_cut.bmp", packed[:-300])
    yield written(folder, "runs_beyond.bmp", bmp(b"\xff\1" * 400, 8, rows, columns, 1, entries), "either")
    good = bmp(stored[::-1].tobytes(), 24, rows, columns)
    for name, place, value in (
        ("huge", 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1)),
        ("claims", 18, struct.pack("<ii", 40_000, 40_000)),
        ("columns0", 18, struct.pack("<i", 0)),
        ("columns_minus", 18, struct.pack("<i", -24)),
        ("rows_least", 22, struct.pack("<i", -(2**31))),
        ("bits7", 28, struct.pack("<H", 7)),
        ("packing9", 30, struct.pack("<I", 9)),
        ("offset_beyond", 10, struct.pack("<I", 10**9)),
        ("header_odd", 14, struct.pack("<I", 41)),
    ):
        yield written(folder, f"{name}.bmp", good[:place] + value + good[place + len(value) :])


# ---- TIFF


def tiff(pixels: NDArray[Any], big: bool = False, order: str = "<", **options: Any) -> bytes:
    """Return a TIFF as tifffile writes it."""
    stream = BytesIO()
    with tifffile.TiffWriter(stream, bigtiff=big, byteorder=order) as writer:
        writer.write(pixels, **({"photometric": "minisblack"} | options))
    return stream.getvalue()


def tiffs(folder: Path) -> Iterator[Sample]:
    """Kinds of TIFF: sample types in both byte orders, strips, tiles, planes, packing, predictors, colours, pages."""
    rng = np.random.default_rng(3)
    for order in "<>":
        for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "u8", "i8", "c8"):
            low, high = (-1000, 1000) if kind[0] in "fc" else (np.iinfo(kind).min, np.iinfo(kind).max)
            values = rng.uniform(low, high, GREY.shape).astype(kind)
            name = f"{'big' if order == '>' else 'little'}_{kind}"
            is_read = kind in ("u1", "i1", "u2", "i2", "i4", "f4") or name == "little_u4"
            # images are float32
            expected = channels(values.astype(np.float32)) if is_read else "refused"
            cause = "" if is_read else "bits"
            yield written(folder, f"{name}.tif", tiff(values, order=order), expected, cause)
            if is_read:
                packed = tiff(values, order=order, compression="zlib")
                yield written(folder, f"{name}_packed.tif", packed, expected)
    forms: dict[str, dict[str, Any]] = {
        "strips": {"rowsperstrip": 3},
        "tiles": {"tile": (16, 16)},
        "deflate": {"compression": "zlib"},
        "deflate_tiles": {"compression": "zlib", "tile": (16, 16)},
        "predictor": {"compression": "zlib", "predictor": True},
        "lzma": {"compression": "lzma"},
        "bigtiff": {"big": True},
        "bigtiff_big": {"big": True, "order": ">"},
        "thumbnail": {"subifds": 0, "description": "x" * 5000},
    }
    for name, form in forms.items():
        if name == "bigtiff_big":  # which Pillow does not know
            yield written(folder, f"{name}.tif", tiff(GREY, **form), cause="BigTIFF")
            continue
        yield written(folder, f"{name}_grey.tif", tiff(GREY, **form), channels(GREY))
        yield written(folder, f"{name}_deep.tif", tiff(DEEP, **form), channels(DEEP))
        yield written(folder, f"{name}_rgb.tif", tiff(RGB, photometric="rgb", **form), channels(RGB))
        planes = tiff(channels(RGB), photometric="rgb", planarconfig="separate", **form)
        yield written(folder, f"{name}_planes.tif", planes, channels(RGB))
    for packing in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"):
        for predictor in (1, 2) if packing != "packbits" else (1,):
            content = saved(DEEP, "tiff", compression=packing, tiffinfo={317: predictor})
            yield written(folder, f"{packing}{predictor}.tif", content, channels(DEEP))
    floats = DEEP.astype(np.float32) / 7
    yield written(
        folder,
        "float_predictor.tif",
        saved(floats, "tiff", compression="tiff_lzw", tiffinfo={317: 3}),
        channels(floats),
    )
    for packing in ("group3", "group4"):
        content = saved(GREY > 99, "tiff", compression=packing)
        yield written(folder, f"{packing}.tif", content, channels(np.where(GREY > 99, 255, 0)))
    jpeg = saved(SMOOTH.astype(np.uint8)[..., 0], "tiff", compression="jpeg", quality=95)
    yield Sample("jpeg", written(folder, "jpeg.tif", jpeg).path, channels(SMOOTH[..., 0]), tolerance=4)
    colours = rng.integers(0, 256, (3, 256)).astype(np.uint16)
    content = tiff(GREY, photometric="palette", colormap=colours * 257)
    yield written(folder, "palette.tif", content, colours[:, GREY])
    yield written(folder, "white8.tif", tiff(GREY, photometric="miniswhite"), channels(255 - GREY))
    yield written(folder, "white16.tif", tiff(DEEP, photometric="miniswhite"), channels(65535 - DEEP))
    yield written(folder, "white16_big.tif", tiff(DEEP, order=">", photometric="miniswhite"), cause="bits")
    yield written(
        folder, "white1.tif", tiff(GREY > 99, photometric="miniswhite"), channels(np.where(GREY > 99, 0, 255))
    )
    rgba = np.dstack([RGB, GREY])
    yield written(folder, "rgba.tif", tiff(rgba, photometric="rgb", extrasamples=["unassalpha"]), channels(RGB))
    yield written(folder, "rgbx.tif", tiff(rgba, photometric="rgb", extrasamples=["unspecified"]), channels(RGB))
    yield written(folder, "grey_alpha.tif", tiff(np.dstack([GREY, GREY]), extrasamples=["unassalpha"]), channels(GREY))
    deep_colours = rng.integers(0, 65536, (20, 26, 3), dtype=np.uint16)
    yield written(folder, "deep_rgb.tif", tiff(deep_colours, photometric="rgb"), cause="16 bits")
    yield written(folder, "float_rgb.tif", tiff(RGB.astype(np.float32), photometric="rgb"), cause="bits")
    yield written(folder, "five.tif", tiff(np.dstack([RGB, GREY, GREY]), planarconfig="contig"), cause="bits")
    yield written(folder, "lab.tif", saved(Image.fromarray(RGB).convert("LAB"), "tiff"), cause="LAB")
    yield written(folder, "pages.tif", tiff(np.stack([GREY] * 3)), cause="3 pages")
    stack = tiff(GREY, description="ImageJ=1.54f\nimages=3\nslices=3\n")  # the others' pixels would follow
    yield written(folder, "pages_stated.tif", stack, cause="3 pages")
    six = tiff(np.dstack([RGB, RGB]), photometric="rgb")
    yield written(folder, "six.tif", six, cause="6 numbers")
    yield written(
        folder, "slices.tif", tiff(np.stack([GREY] * 3), volumetric=True, tile=(16, 16, 16)), cause="3 slices"
    )
    for orientation, turn in TURNS.items():
        for name, pixels in {"grey": GREY, "deep": DEEP, "rgb": RGB}.items():
            kind = "rgb" if name == "rgb" else "minisblack"
            content = tiff(pixels, photometric=kind, extratags=[(274, "H", 1, orientation)])
            yield written(folder, f"{name}_turned{orientation}.tif", content, channels(turn(pixels)))
    for name, packing in {"raw": None, "deflate": "zlib", "tiles": "zlib"}.items():
        content = tiff(DEEP, compression=packing, **({"tile": (16, 16)} if name == "tiles" else {"rowsperstrip": 5}))
        for length in np.linspace(len(content) // 2, len(content) - 9, 6).astype(int):
            yield written(folder, f"{name}_cut{length}.tif", content[:length])
    packed = saved(GREY, "tiff", compression="tiff_adobe_deflate")
    begin = 8 if packed[8] == 0x78 else packed.index(b"\x78")
    for place in range(begin, begin + 400, 25):
        yield written(folder, f"flip{place}.tif", packed[:place] + bytes([packed[place] ^ 0x10]) + packed[place + 1 :])
    good = tiff(GREY)
    sized = tiff(np.zeros((7, 9), np.uint8))
    for name, rows, columns in (
        ("huge", 2**31 - 1, 2**31 - 1),
        ("claims", 40_000, 40_000),
        ("rows0", 0, 9),
        ("more", 9, 9),
    ):
        yield written(folder, f"{name}.tif", _with_sizes(sized, rows, columns))
    loop = struct.unpack("<I", good[4:8])[0]
    yield written(folder, "loop.tif", _with_next(good, loop), "either")
    yield written(folder, "beyond.tif", good[:4] + struct.pack("<I", 10**9) + good[8:])


def _with_sizes(content: bytes, rows: int, columns: int) -> bytes:
    """Return a little-endian TIFF whose tags claim another size; each tag takes 12 bytes."""
    result, (start,) = bytearray(content), struct.unpack("<I", content[4:8])
    for place in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", content, start)[0], 12):
        tag = struct.unpack_from("<H", content, place)[0]
        if tag in (256, 257):
            struct.pack_into("<HIi", result, place + 2, 4, 1, columns if tag == 256 else rows)
    return bytes(result)


def _with_next(content: bytes, following: int) -> bytes:
    """Return a little-endian TIFF whose first page is followed by the one at this offset."""
    result, (start,) = bytearray(content), struct.unpack("<I", content[4:8])
    struct.pack_into("<I", result, start + 2 + 12 * struct.unpack_from("<H", content, start)[0], following)
    return bytes(result)


FAMILIES = (pngs, jpegs, bmps, tiffs)
