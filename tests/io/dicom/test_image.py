"""DICOM images against SimpleITK, where it reads them, and against values worked out by hand."""

import logging
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from scan_files import read_scan

from medseg.errors import MedsegError
from medseg.io.dicom.image import read
from medseg.io.files.read import read_mask
from medseg.io.grids.grid import Grid

TURNED = [0.96, 0.28, 0.0, 0.0, 0.0, -1.0]
NORMAL = np.cross(TURNED[:3], TURNED[3:])


def volume(slices=5, dtype=np.int16):
    return np.arange(slices * 12, dtype=dtype).reshape(slices, 3, 4) * dtype(3)


def by_gdcm(folder):
    """Return the voxels (columns, rows, slices) and the affine (RAS+) that SimpleITK reads."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    axes = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine = np.block([[axes, np.reshape(image.GetOrigin(), (3, 1))], [np.zeros((1, 3)), 1]])
    return sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("orientation", [[1.0, 0, 0, 0, 1, 0], TURNED])
@pytest.mark.parametrize("sign", [1, -1])
def test_slices_are_sorted_by_their_place(tmp_path, dicom_series, orientation, sign):
    normal = sign * np.cross(orientation[:3], orientation[3:])
    dicom_series(
        "Müller (1)",
        volume(),
        direction=normal,
        ImageOrientationPatient=orientation,
        RescaleIntercept=-1024,
        RescaleSlope=2,
    )
    scan = read_scan([tmp_path / "Müller (1)"])
    voxels, affine = by_gdcm(tmp_path / "Müller (1)")
    np.testing.assert_array_equal(scan.image[0], voxels)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-9)
    np.testing.assert_array_equal(scan.image[0], (volume()[::sign] * 2.0 - 1024).T)
    assert (scan.unit, scan.layout.series_uid, scan.layout.frames) == ("mm", "1.2.2", None)
    for place, path in enumerate(scan.layout.paths):
        np.testing.assert_array_equal(read_scan([path]).image[0], scan.image[0, ..., place])


def test_each_slice_has_its_own_scale(tmp_path, dicom_series):
    dicom_series("s", volume(3), Modality="MR", RescaleSlope=(1.5, 2.5, 0.25), RescaleIntercept=(0, 1, -1))
    expected = volume(3) * np.reshape([1.5, 2.5, 0.25], (3, 1, 1)) + np.reshape([0, 1, -1], (3, 1, 1))
    np.testing.assert_array_equal(read_scan([tmp_path / "s"]).image[0], expected.T)


@pytest.mark.parametrize(("dtype", "bits", "highest"), [(np.uint16, 12, 4095), (np.int16, 16, -1), (np.uint8, 8, 255)])
def test_monochrome1_is_inverted(dicom_file, dtype, bits, highest):
    pixels = np.arange(12, dtype=dtype).reshape(3, 4)
    path = dicom_file(
        "x.dcm", pixels, Modality="DX", PhotometricInterpretation="MONOCHROME1", BitsStored=bits, HighBit=bits - 1
    )
    np.testing.assert_array_equal(read_scan([path]).image[0], (highest - pixels.astype(int)).T)


@pytest.mark.parametrize(
    ("dtype", "padding", "tags"),
    [
        (np.int16, -2000, {"PixelPaddingValue": -2000}),
        (np.uint16, 63536, {"PixelPaddingValue": 63536}),
        (np.int16, -1990, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1980}),
    ],
)
def test_padding_of_ct_becomes_air(tmp_path, dicom_series, dtype, padding, tags):
    stored = volume(3, dtype) + dtype(20)
    stored[1:, 0] = padding
    dicom_series("s", stored, RescaleIntercept=-1024, RescaleSlope=1, **tags)
    expected = np.where(stored == padding, 20.0, stored) - 1024
    np.testing.assert_array_equal(read_scan([tmp_path / "s"]).image[0], expected.T)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_compressed_pixels(tmp_path, dicom_series, syntax):
    pixels = np.random.default_rng(0).integers(0, 4096, (3, 72, 64)).astype(np.uint16)
    dicom_series("s", pixels, syntax=syntax, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_scan([tmp_path / "s"]).image[0], pixels.T)


def test_jpeg_lossless_as_gdcm_writes_it(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (32, 24)).astype(np.uint16)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(tmp_path / "x.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(pixels))
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(tmp_path / "x.dcm"))
    assert b"1.2.840.10008.1.2.4.70" in (tmp_path / "x.dcm").read_bytes()[:1000]
    np.testing.assert_array_equal(read_scan([tmp_path / "x.dcm"]).image[0], pixels.T)


def test_missing_slices_are_named_by_their_places(tmp_path, dicom_series):
    dicom_series("s", volume(8))
    for number in (3, 4, 6):
        next((tmp_path / "s").glob(f"IM?{number}")).unlink()
    with pytest.raises(MedsegError, match=r"s: 3 slices are missing, at -24.00, -22.00, -18.00 mm .* 2 mm apart"):
        read_scan([tmp_path / "s"])


def test_a_misplaced_slice_is_no_sign_of_missing_ones(tmp_path, dicom_series):
    positions = [0.0, 2.0, 4.0, 6.0, 6.6, 10.0, 12.0, 14.0]
    dicom_series("s", np.zeros((8, 4, 4), np.int16), ImagePositionPatient=tuple([0.0, 0.0, each] for each in positions))
    with pytest.raises(
        MedsegError, match=r"slices do not lie evenly: .* is 0.70 voxels .* distances are 0.600 to 3.400"
    ):
        read_scan([tmp_path / "s"])


def test_uneven_slices_are_refused(tmp_path, dicom_series):
    places = (0.0, 2.0, 4.0, 6.5, 8.0)
    dicom_series("s", volume(5), position=tuple((0, 0, place) for place in places))
    with pytest.raises(MedsegError, match=r"slices do not lie evenly: IM.3 is 0.25 voxels .* 1.500 to 2.500 mm"):
        read_scan([tmp_path / "s"])


def test_places_that_are_rounded_to_a_tenth_are_even(tmp_path, dicom_series):
    places = np.round(np.arange(6) * 0.625, 1)
    dicom_series("s", volume(6), position=tuple((0, 0, place) for place in places))
    np.testing.assert_allclose(read_scan([tmp_path / "s"]).spacing, (0.5, 0.75, places[-1] / 5))


def test_a_tilted_gantry_makes_a_sheared_grid(tmp_path, dicom_series, caplog):
    caplog.set_level(logging.INFO)
    tilted = [1.0, 0, 0, 0, np.cos(0.3), -np.sin(0.3)]
    dicom_series("s", volume(4), direction=(0, 0, 1), step=3.0, ImageOrientationPatient=tilted)
    scan = read_scan([tmp_path / "s"])
    expected = (
        np.array([-10, 5, -30]) + 3 * 0.5 * np.array(tilted[:3]) + 2 * 0.75 * np.array(tilted[3:]) + [0, 0, 1 * 3.0]
    )
    np.testing.assert_allclose(Grid(scan.shape, scan.affine).to_mm(np.array([[3, 2, 1]]))[0], expected * [-1, -1, 1])
    assert scan.voxel_volume == pytest.approx(0.5 * 0.75 * 3.0 * np.cos(0.3))
    assert "slices are sheared by 17.2 degrees (gantry tilt)" in caplog.text


def test_copies_of_a_slice_are_dropped_with_a_warning(tmp_path, dicom_series, caplog):
    dicom_series("s", volume(3))
    dicom_series("s/copy", volume(3)[:2])
    for path in (tmp_path / "s/copy").iterdir():
        path.rename(tmp_path / "s" / f"{path.name}c")
    np.testing.assert_array_equal(read_scan([tmp_path / "s"]).image[0], volume(3).T)
    assert "2 slices are there twice, voxel by voxel" in caplog.text


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"EchoTime": (30, 80)}, r"in EchoTime: 30(\.0)?, 80(\.0)?\."),
        (
            {"TemporalPositionIdentifier": (1, 2), "AcquisitionTime": ("101500", "101700")},
            "in TemporalPositionIdentifier: 1, 2",
        ),
        ({"DiffusionBValue": (0, 1000)}, r"in DiffusionBValue: 0(\.0)?, 1000"),
        ({"EchoTime": (30, 30)}, "in their voxels only"),
    ],
)
def test_several_slices_at_one_place_are_told_apart_and_refused(tmp_path, dicom_series, tags, words):
    for number in range(2):
        own = {key: value[number] for key, value in tags.items()}
        dicom_series(f"s/{number}", volume(4) + np.int16(number), **own)
    for path in [*(tmp_path / "s").rglob("IM*")]:
        path.rename(tmp_path / "s" / f"{path.parent.name}{path.name}")
    with pytest.raises(MedsegError, match=rf"s: 8 slices lie at 4 places, .* at -30.00 mm .* They differ {words}"):
        read_scan([tmp_path / "s"])


# ---- multi-frame objects


def group(**sequences):
    """Return a functional group: ``group(PlanePositionSequence={"ImagePositionPatient": [0, 0, 0]})``."""
    found = Dataset()
    for sequence, content in sequences.items():
        item = Dataset()
        for keyword, value in content.items():
            setattr(item, keyword, value)
        setattr(found, sequence, [item])
    return found


@pytest.fixture
def enhanced(dicom_file):
    def write(pixels, places, shared=None, **own):
        plane = {
            "PlaneOrientationSequence": {"ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0]},
            "PixelMeasuresSequence": {"PixelSpacing": [0.75, 0.5]},
        }
        groups = [
            group(
                PlanePositionSequence={"ImagePositionPatient": [0.0, 0.0, float(place)]},
                **{
                    sequence: {key: values[number] for key, values in content.items()}
                    for sequence, content in own.items()
                },
            )
            for number, place in enumerate(places)
        ]
        return dicom_file(
            "e.dcm",
            pixels,
            SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1",
            Modality="MR",
            SharedFunctionalGroupsSequence=[group(**plane | (shared or {}))],
            PerFrameFunctionalGroupsSequence=groups,
        )

    return write


def test_frames_are_sorted_and_scaled_one_by_one(enhanced):
    pixels = volume(4, np.uint16)
    path = enhanced(
        pixels,
        [6, 0, 4, 2],
        PixelValueTransformationSequence={"RescaleSlope": [1, 2, 3, 4], "RescaleIntercept": [0, 0, 5, 0]},
    )
    scan = read_scan([path])
    expected = np.stack([pixels[1] * 2, pixels[3] * 4, pixels[2] * 3 + 5, pixels[0]])
    np.testing.assert_array_equal(scan.image[0], expected.T)
    np.testing.assert_allclose(scan.affine, np.diag([-0.5, -0.75, 2, 1]))
    assert scan.layout.frames == (2, 4, 3, 1)
    assert scan.layout.paths == (path,)


def test_scale_of_all_frames(enhanced):
    shared = {"PixelValueTransformationSequence": {"RescaleSlope": 2, "RescaleIntercept": -7}}
    np.testing.assert_array_equal(read_scan([enhanced(volume(3), [0, 1, 2], shared)]).image[0], volume(3).T * 2.0 - 7)


def test_frames_of_several_times_or_weightings(enhanced):
    path = enhanced(volume(4), [0, 2, 0, 2], MRDiffusionSequence={"DiffusionBValue": [0.0, 0.0, 800.0, 800.0]})
    with pytest.raises(MedsegError, match=r"4 slices lie at 2 places, such as e.dcm.* in DiffusionBValue: 0.0, 800.0"):
        read_scan([path])


def test_frames_without_a_place_are_refused(dicom_file):
    path = dicom_file("cine.dcm", volume(4, np.uint8), Modality="US")
    with pytest.raises(MedsegError, match=r"its 4 frames have no position in the patient.*: they are times"):
        read_scan([path])


# ---- pictures


def test_radiograph_with_masks_as_pictures(dicom_file, tmp_path):
    from PIL import Image

    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    scan = read_scan([dicom_file("x", pixels, Modality="DX", ImagerPixelSpacing=[0.2, 0.1])])
    np.testing.assert_array_equal(scan.image, pixels.T[None])
    np.testing.assert_allclose(scan.affine, np.diag([-0.1, -0.2, 1, 1]))
    assert scan.unit == "mm"
    Image.fromarray((pixels > 5).astype(np.uint8)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png", scan), (pixels > 5).T)


def test_pictures_without_a_size_are_in_pixels(dicom_file):
    scan = read_scan([dicom_file("x.dcm", np.ones((3, 4), np.uint8), Modality="OT")])
    assert scan.unit == "px"
    np.testing.assert_array_equal(scan.affine, np.eye(4))


def test_colours_are_channels(dicom_file):
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(read_scan([dicom_file("c.dcm", pixels, colours=True, Modality="XC")]).image, pixels.T)


def test_palettes_are_read_as_colours(dicom_file):
    tables = {f"{name}PaletteColorLookupTableDescriptor": [4, 0, 16] for name in ("Red", "Green", "Blue")}
    tables |= {
        f"{name}PaletteColorLookupTableData": (np.array(levels, np.uint16) << 8).tobytes()
        for name, levels in {"Red": [0, 9, 20, 30], "Green": [0, 40, 50, 60], "Blue": [0, 70, 80, 90]}.items()
    }
    pixels = np.array([[0, 1], [2, 3]], np.uint8)
    image = read_scan(
        [dicom_file("p.dcm", pixels, Modality="US", PhotometricInterpretation="PALETTE COLOR", **tables)]
    ).image
    assert image[:, 1, 0].tolist() == [9, 40, 70]
    assert image[:, 0, 1].tolist() == [20, 50, 80]


def test_a_lone_slice_has_its_place(dicom_file):
    scan = read_scan(
        [dicom_file("x.dcm", np.ones((3, 4), np.int16), position=(1, 2, 3), ImageOrientationPatient=TURNED)]
    )
    assert scan.image.shape == (1, 4, 3)
    expected = np.column_stack([0.5 * np.array(TURNED[:3]), 0.75 * np.array(TURNED[3:]), 2.0 * NORMAL, [1, 2, 3]])
    np.testing.assert_allclose(scan.affine[:3], np.diag([-1, -1, 1]) @ expected)


# ---- damage


def test_truncated_pixels_are_named(tmp_path, dicom_series):
    dicom_series("s", volume(3))
    path = next((tmp_path / "s").glob("IM?1"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        MedsegError, match=rf"s/{path.name}: its pixels cannot be decoded \(Explicit VR Little Endian\)"
    ):
        read_scan([tmp_path / "s"])


@pytest.mark.parametrize("content", [b"no DICOM at all", b"\0" * 128 + b"DICM" + b"\xff" * 40])
def test_other_files_of_the_suffix_are_named(tmp_path, content):
    (tmp_path / "x.dcm").write_bytes(content)
    with pytest.raises(MedsegError, match=r"x.dcm: no (readable )?DICOM"):
        read_scan([tmp_path / "x.dcm"])


def test_slices_that_make_no_volume_are_refused(tmp_path, dicom_series, dicom_file):
    dicom_series("s", volume(3), PixelSpacing=([1, 1], [1, 1], [2, 2]))
    with pytest.raises(MedsegError, match=r"slices differ in size: IM.* Put them into a folder each"):
        read(tmp_path / "s")
    dicom_series("t", volume(3), PixelSpacing=None)
    with pytest.raises(MedsegError, match="PixelSpacing is missing"):
        read(tmp_path / "t")


@pytest.mark.parametrize("before", ["StudyInstanceUID", "PixelData"])
def test_an_element_that_claims_gigabytes_allocates_what_the_file_holds(dicom_file, before):
    path = dicom_file("a.dcm", np.zeros((3, 4), np.int16), position=(0, 0, 0))
    content = path.read_bytes()
    tag = {"StudyInstanceUID": b"\x20\x00\x0d\x00", "PixelData": b"\xe0\x7f\x10\x00"}[before]
    place = content.index(tag)
    claim = b"\x19\x00\x10\x10OB\0\0" + (0xF0000000).to_bytes(4, "little")
    path.write_bytes(content[:place] + claim + content[place:])
    tracemalloc.start()
    try:
        with pytest.raises(MedsegError, match=r"a\.dcm"):
            read_scan([path])
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()
