"""Pictures, compared with scikit-image and with the arrays that were written."""

import io
import re
import zlib

import numpy as np
import pytest
import skimage.io
import tifffile
from PIL import Image
from scan_files import read_scan
from trust.corpus_pictures import END, header, lines, png

from medseg.errors import MedsegError
from medseg.io.files.read import read_mask
from medseg.io.files.write_masks import write_mask
from medseg.io.labels import COLOUR

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 7), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 7), dtype=np.uint16)
FLOAT = RNG.normal(size=(6, 7)).astype(np.float32)
RGB = RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8)


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", GREY),
        ("a.bmp", GREY),
        ("a.TIF", GREY),
        ("a.png", DEEP),
        ("a.tiff", DEEP),
        ("a.tif", DEEP.astype(np.int32)),
        ("a.tif", FLOAT),
        ("a.png", RGB),
        ("a.bmp", RGB),
        ("a.tif", RGB),
    ],
)
def test_pixels_are_rows_and_columns(tmp_path, name, pixels):
    path = save(tmp_path / name, pixels)
    scan = read_scan([path])
    expected = skimage.io.imread(path)
    np.testing.assert_array_equal(expected, pixels)
    np.testing.assert_array_equal(scan.image, np.moveaxis(np.atleast_3d(pixels), -1, 0))
    assert scan.unit == "px"
    np.testing.assert_array_equal(scan.affine, np.eye(4))


def test_jpeg_is_what_others_read(tmp_path):
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8) * 5
    path = save(tmp_path / "a.jpg", smooth)
    np.testing.assert_array_equal(read_scan([path]).image[0], skimage.io.imread(path))


def test_alpha_is_dropped_and_palettes_have_their_colours(tmp_path):
    save(tmp_path / "rgba.png", np.dstack([RGB, GREY]))
    save(tmp_path / "la.png", np.dstack([GREY, GREY[::-1]]))
    few = (RGB // 128) * 255
    Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE, colors=8).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_scan([tmp_path / "rgba.png"]).image, np.moveaxis(RGB, -1, 0))
    np.testing.assert_array_equal(read_scan([tmp_path / "la.png"]).image, GREY[None])
    np.testing.assert_array_equal(read_scan([tmp_path / "p.png"]).image, np.moveaxis(few, -1, 0))


def test_black_and_white_is_0_and_255(tmp_path):
    path = save(tmp_path / "a.png", GREY > 100)
    with Image.open(path) as stored:
        assert stored.mode == "1"
    np.testing.assert_array_equal(read_mask(path), np.where(GREY > 100, 255, 0))


def tagged(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


SHOWN = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: np.swapaxes(stored, 0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.swapaxes(np.rot90(stored, 2), 0, 1),
    8: np.rot90,
}
"""What viewers show of pixels (rows, columns, ...) that are stored with an orientation, as the EXIF standard has it."""


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize(
    ("name", "pixels", "options"),
    [
        ("a.png", GREY, {}),
        ("a.png", RGB, {}),
        ("a.png", DEEP, {}),
        ("a.tif", GREY, {}),
        ("a.tif", RGB, {"compression": "tiff_deflate"}),
        ("a.tif", DEEP, {"compression": "tiff_deflate"}),
        ("a.tif", FLOAT, {}),
        ("a.jpg", np.repeat(np.repeat(GREY, 8, 0), 8, 1), {"quality": 100}),
    ],
)
def test_images_and_masks_are_read_as_viewers_show_them(tmp_path, name, pixels, options, orientation):
    path = tmp_path / name
    Image.fromarray(pixels).save(path, exif=tagged(orientation), **options)
    plain = tmp_path / f"plain-{name}"
    Image.fromarray(pixels).save(plain, **options)
    stored = np.atleast_3d(skimage.io.imread(plain))
    np.testing.assert_array_equal(np.moveaxis(read_scan([path]).image, 0, -1), SHOWN[orientation](stored))
    np.testing.assert_array_equal(np.moveaxis(read_scan([path], orientation="ignore").image, 0, -1), stored)
    if stored.dtype != np.float32 and stored.shape[-1] == 1:
        np.testing.assert_array_equal(read_mask(path), SHOWN[orientation](stored[..., 0]))
        np.testing.assert_array_equal(read_mask(path, orientation="ignore"), stored[..., 0])


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("exif", [tagged(0).tobytes(), tagged(9).tobytes(), b"Exif\0\0nonsense"])
def test_damaged_orientations_count_as_none(tmp_path, name, exif):
    Image.fromarray(GREY).save(tmp_path / name, exif=exif)
    assert read_scan([tmp_path / name]).shape == GREY.shape


@pytest.mark.parametrize(("image", "mask"), [(6, 1), (1, 6)])
def test_a_mask_of_the_stored_pixels_is_refused_with_the_setting_that_reads_it(tmp_path, image, mask):
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=tagged(image))
    Image.fromarray(GREY).save(tmp_path / "m.png", exif=tagged(mask))
    with pytest.raises(MedsegError, match=r"m\.png: its shape .* turned as .*\(6\).*dataset\.orientation=ignore"):
        read_mask(tmp_path / "m.png", read_scan([tmp_path / "a.jpg"]))
    scan = read_scan([tmp_path / "a.jpg"], orientation="ignore")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", scan, orientation="ignore"), GREY)


CLASSES = np.array([[0, 1, 2], [2, 1, 0]])
COLOURS = np.array([[255, 0, 0], [255, 0, 0], [0, 255, 0]], dtype=np.uint8)
"""Of the classes; the background has the colour of class 1, hidden by transparency."""


@pytest.mark.parametrize("strongest", [255, 100])
def test_transparent_pixels_of_masks_are_background(tmp_path, strongest):
    alpha = np.array([0, strongest, strongest], dtype=np.uint8)[CLASSES]
    path = save(tmp_path / "m.png", np.dstack([COLOURS[CLASSES], alpha]))
    red, green = COLOUR | 0xFF0000, COLOUR | 0x00FF00
    np.testing.assert_array_equal(read_mask(path), np.array([0, red, green])[CLASSES])
    np.testing.assert_array_equal(read_mask(path, background=7), np.array([7, red, green])[CLASSES])


def test_half_transparent_edges_are_of_the_class_from_half_on(tmp_path):
    alpha = np.array([[0, 60, 127, 128, 200, 255]], dtype=np.uint8)
    path = save(tmp_path / "m.png", np.dstack([np.full_like(alpha, 9), alpha]))
    assert read_mask(path).tolist() == [[0, 0, 0, 9, 9, 9]]


def test_a_mask_that_is_transparent_all_over_is_background(tmp_path):
    path = save(tmp_path / "m.png", np.full((4, 5, 4), (255, 0, 0, 0), dtype=np.uint8))
    assert not read_mask(path).any()


@pytest.mark.parametrize("mode", ["P", "L", "I;16"])
def test_transparent_values_of_masks_are_background(tmp_path, mode):
    values = np.array([[3, 1, 2], [2, 1, 3]], dtype=np.uint16 if mode == "I;16" else np.uint8)
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    picture.save(tmp_path / "m.png", transparency=3)
    with Image.open(tmp_path / "m.png") as stored:
        assert stored.mode == mode
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 1, 2], [2, 1, 0]]


def test_several_pages_are_refused(tmp_path):
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(MedsegError, match=r"a.tif: a TIFF of 3 pages"):
        read_scan([tmp_path / "a.tif"])


def test_other_colour_spaces_are_refused(tmp_path):
    Image.fromarray(RGB).convert("LAB").save(tmp_path / "a.tif")
    with pytest.raises(MedsegError, match=r"a.tif: colours of the kind 'LAB'"):
        read_scan([tmp_path / "a.tif"])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
@pytest.mark.parametrize("content", ["text", "half"])
def test_damaged_files_are_named(tmp_path, name, content):
    path = save(tmp_path / name, RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    whole = path.read_bytes()
    path.write_bytes(b"hello world" * 9 if content == "text" else whole[: len(whole) // 2])
    with pytest.raises(MedsegError, match=f"{name}: no readable 2D image"):
        read_scan([path])


def test_picture_of_another_format_is_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(MedsegError, match=r"a.png: no readable 2D image"):
        read_scan([tmp_path / "a.png"])


@pytest.mark.parametrize(
    ("name", "values", "dtype"),
    [
        ("m.png", [0, 255], np.uint8),
        ("m.tif", [0, 4], np.uint8),
        ("m.bmp", [0, 255], np.uint8),
        ("m.png", [0, 256], np.uint16),
        ("m.tiff", [7, 65535], np.uint16),
    ],
)
def test_grey_masks_keep_their_values(tmp_path, name, values, dtype):
    scan = read_scan([save(tmp_path / "a.png", GREY)])
    expected = np.resize(values, (6, 7)).astype(np.int32)
    write_mask(tmp_path / name, expected, scan)
    written = skimage.io.imread(tmp_path / name)
    assert written.dtype == dtype
    np.testing.assert_array_equal(written, expected)
    np.testing.assert_array_equal(read_mask(tmp_path / name, scan), expected)


@pytest.mark.parametrize("name", ["m.png", "m.tif", "m.bmp"])
def test_colours_go_round(tmp_path, name):
    pixels = np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 7]], [[9, 9, 9], [255, 255, 255], [1, 2, 3]]], dtype=np.uint8)
    scan = read_scan([save(tmp_path / name, pixels)])
    values = read_mask(tmp_path / name, scan)
    assert values.dtype == np.int32
    assert values.tolist() == [[0, COLOUR | 0xFF0000, COLOUR | 7], [9, 255, COLOUR | 0x010203]]
    write_mask(tmp_path / f"again-{name}", values, scan)
    np.testing.assert_array_equal(skimage.io.imread(tmp_path / f"again-{name}"), pixels)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("m.bmp", [0, 256]),
        ("m.png", [0, 65536]),
        ("m.png", [-1, 0]),
        ("m.png", [256, COLOUR | 255]),
        ("m.png", [0, COLOUR | 0x070707]),
        ("m.png", [0, 2 * COLOUR | 255]),
    ],
)
def test_values_that_a_picture_cannot_hold_are_refused(tmp_path, name, values):
    scan = read_scan([save(tmp_path / "a.png", GREY)])
    with pytest.raises(MedsegError, match=f"^{re.escape(str(tmp_path / name))}: a .*mask holds values from 0 to "):
        write_mask(tmp_path / name, np.resize(values, (6, 7)), scan)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_real_colour_coded_masks_are_two_grey_values(real_data):
    folder = real_data / "cardiac_slices/Labels"
    path = min(folder.rglob("*.png"))
    values = read_mask(path)
    assert set(np.unique(values)) <= {0, 255}
    np.testing.assert_array_equal(values, skimage.io.imread(path)[..., 0])


def test_float_masks_are_labels_where_they_are_whole(tmp_path):
    labels = np.resize([0, 1, 4], (6, 7))
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.tif", labels.astype(np.float32))), labels)
    with pytest.raises(MedsegError, match=r"m.tif: 14 voxels hold no label, for example 0.5"):
        read_mask(save(tmp_path / "m.tif", labels.astype(np.float32) / 2))


SHADES = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)
GOOD = header(9, 12, 8, 0), lines(SHADES)


def test_a_changed_byte_in_the_pixels_of_a_png_is_refused(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(SHADES).save(stream, "png")
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
    page = Image.fromarray(SHADES)
    page.save(tmp_path / "film.png", save_all=True, append_images=[Image.fromarray(255 - SHADES)])
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
    tifffile.imwrite(tmp_path / "a.tif", SHADES.astype(kind), photometric="miniswhite")
    np.testing.assert_array_equal(read_scan([tmp_path / "a.tif"]).image[0], np.iinfo(kind).max - SHADES.astype(kind))


def test_a_tiff_that_is_not_read_says_of_what_kind_it_is(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", SHADES.astype(np.float64), photometric="minisblack")
    with pytest.raises(MedsegError, match=r"a.tif: .*1 floating point number\(s\) a pixel in 64 bits.*float32"):
        read_scan([tmp_path / "a.tif"])


def test_a_tiff_of_slices_is_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([SHADES] * 3), photometric="minisblack", volumetric=True, tile=(16, 16, 16)
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
