"""What Pillow reads as something else, or reads in part, is read right or refused."""

import io
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from trust.corpus_pictures import END, header, lines, png

from medseg.errors import MedsegError
from medseg.io.files.read import read_mask, read_scan

GREY = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)
GOOD = header(9, 12, 8, 0), lines(GREY)


def test_a_changed_byte_in_the_pixels_of_a_png_is_refused(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "png")
    content = bytearray(stream.getvalue())
    content[content.index(b"IDAT") + 30] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(MedsegError, match=r"a.png: .* the checksum of its chunk 'IDAT' is wrong"):
        read_scan([tmp_path / "a.png"])


@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_of_fewer_rows_than_it_claims_is_refused(tmp_path, interlaced):
    (tmp_path / "a.png").write_bytes(png(header(9, 40, 8, 0, interlaced), GOOD[1], END))
    with pytest.raises(MedsegError, match=r"a.png: .* array of shape \(40, 9\)"):
        read_scan([tmp_path / "a.png"])


def test_a_mask_whose_last_rows_are_background_is_read(tmp_path):
    mask = np.zeros((12, 9), np.uint8)
    mask[2:4] = 1
    Image.fromarray(mask).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png(GOOD[0], (b"IDAT", b""), (b"IDAT", zlib.compress(mask_bytes(mask))), END))
    for name in ("a.png", "b.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), mask)


def mask_bytes(mask):
    return b"".join(b"\0" + row.tobytes() for row in mask)


def test_deep_colours_and_animations_are_refused_with_the_cure(tmp_path):
    deep = np.zeros((12, 9, 3), ">u2").reshape(12, -1)
    (tmp_path / "deep.png").write_bytes(png(header(9, 12, 16, 2), lines(deep), END))
    page = Image.fromarray(GREY)
    page.save(tmp_path / "film.png", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    with pytest.raises(MedsegError, match=r"deep.png: .*16 bits, of which 8 would be lost. Save it in 8 bits"):
        read_scan([tmp_path / "deep.png"])
    with pytest.raises(MedsegError, match=r"film.png: an animated PNG.* Save one a file"):
        read_scan([tmp_path / "film.png"])


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint16, np.int32, np.uint32])
def test_numbers_of_a_tiff_keep_their_sign_and_range(tmp_path, kind):
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    values = np.linspace(least, most, 64).reshape(8, 8).clip(least, most).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(read_scan([tmp_path / "a.tif"]).image[0], values.astype(np.float32))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_is_zero_is_inverted_in_any_depth(tmp_path, kind):
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(kind), photometric="miniswhite")
    np.testing.assert_array_equal(read_scan([tmp_path / "a.tif"]).image[0], np.iinfo(kind).max - GREY.astype(kind))


def test_a_tiff_that_is_not_read_says_of_what_kind_it_is(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.float64), photometric="minisblack")
    with pytest.raises(MedsegError, match=r"a.tif: .*1 floating point number\(s\) a pixel in 64 bits.*float32"):
        read_scan([tmp_path / "a.tif"])


def test_a_tiff_of_slices_is_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([GREY] * 3), photometric="minisblack", volumetric=True, tile=(16, 16, 16)
    )
    with pytest.raises(MedsegError, match=r"a.tif: a TIFF of 3 slices"):
        read_scan([tmp_path / "a.tif"])


def test_pictures_have_the_limit_of_all_scans(tmp_path):
    (tmp_path / "a.png").write_bytes(png(header(2**31 - 1, 2**31 - 1, 8, 0), GOOD[1], END))
    (tmp_path / "b.png").write_bytes(png(header(40_000, 40_000, 8, 0), GOOD[1], END))
    with pytest.raises(MedsegError, match=r"a.png: .*read.max_gb"):
        read_scan([tmp_path / "a.png"])
    with pytest.raises(MedsegError, match=r"b.png: .*at most"):
        read_scan([tmp_path / "b.png"])
