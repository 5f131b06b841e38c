"""DICOM SEG: written objects as highdicom and pydicom see them, awkward ones, and those of other programs."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scan_files import read_scan

from medseg.errors import MedsegError
from medseg.inference.predictor import Mask
from medseg.io.case import Case, LabelFile, Scan
from medseg.io.datasets.annotations import classes_of_segments, read_labels
from medseg.io.datasets.dataset import label_map
from medseg.io.dicom import image as dicom
from medseg.io.dicom import seg as dicom_seg
from medseg.io.dicom.references import source_of
from medseg.io.files.read import read_case
from medseg.io.files.write_masks import write_classes
from medseg.io.labels import LabelMap
from medseg.io.segments.terminology import describe

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

CLASSES = LabelMap({"background": 0, "Leber": 3, "tumour": 7, "absent": 9})
CODES = {"Leber": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}}
OBLIQUE = (0.9541666, -0.2080757, 0.2151061, 0.2785886, 0.880128, -0.3843997)


def mask(shape=(9, 7, 5)):
    indices = np.random.default_rng(1).integers(0, 3, shape, dtype=np.uint8)
    indices[:, :, 1] = 0  # no frame is written for it
    return indices


def case(path, **options):
    return Case("a", "a", (), (LabelFile(path),), **options)


def written(path, series, indices=None):
    write_classes(path, mask(series.shape) if indices is None else indices, CLASSES, series, "dicom_seg", CODES)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"orientation": OBLIQUE}, {"tilt": 0.7}, {"spacing": (0.5, 2.0), "step": 9.0}], ids=str
)
def test_a_written_mask_is_read_back(tmp_path, made_series, options):
    series = made_series((9, 7, 5), **options)
    path = written(tmp_path / "a.dcm", series)
    np.testing.assert_array_equal(read_labels(case(path), CLASSES, series), mask())
    assert classes_of_segments(case(path)) == ["Leber", "tumour", "absent"]


def test_others_see_classes_codes_colours_and_the_series(tmp_path, made_series):
    series = made_series((9, 7, 5), orientation=OBLIQUE)
    seg = highdicom.seg.segread(written(tmp_path / "a.dcm", series))
    sources = [pydicom.dcmread(path) for path in series.layout.paths]
    uids = [source.SOPInstanceUID for source in sources]
    pixels = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels, mask().transpose(2, 1, 0))
    assert (seg.SegmentationType, seg.SegmentsOverlap, seg.Modality) == ("BINARY", "NO", "SEG")
    assert (seg.PatientID, str(seg.PatientName), seg.StudyInstanceUID) == ("7", "Müller^J", "1.4")
    assert seg.FrameOfReferenceUID == "1.9"
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.5"
    liver, tumour, absent = seg.SegmentSequence
    assert (liver.SegmentLabel, tumour.SegmentLabel, absent.SegmentLabel) == ("Leber", "tumour", "absent")
    kind = liver.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("10200004", "SCT", "Liver")
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "tumour"
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99MEDSEG"
    assert liver.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Tissue"
    assert (liver.SegmentAlgorithmType, liver.SegmentAlgorithmName) == ("AUTOMATIC", "medseg")
    from skimage.color import rgb2lab

    lightness, a, b = rgb2lab(np.array([0xE6, 0x9F, 0x00]) / 255)
    scaled = [lightness / 100 * 65535, (a + 128) / 255 * 65535, (b + 128) / 255 * 65535]
    np.testing.assert_allclose(liver.RecommendedDisplayCIELabValue, scaled, atol=400)
    volume = seg.get_volume(combine_segments=True, allow_missing_positions=True)
    to_ras = np.diag([-1.0, -1, 1, 1])
    first = volume.affine @ [0, 0, 0, 1]  # (slice, row, column)
    ends = [to_ras @ series.affine @ [0, 0, k, 1] for k in (0, 4)]
    assert min(np.linalg.norm(first - end) for end in ends) < 1e-4


def test_the_same_mask_is_the_same_file_and_another_is_not(tmp_path, made_series, monkeypatch):
    series = made_series((9, 7, 5))
    first = written(tmp_path / "a.dcm", series).read_bytes()
    assert written(tmp_path / "b.dcm", series).read_bytes() == first
    other = pydicom.dcmread(written(tmp_path / "c.dcm", series, 2 - mask()))
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    assert other.SOPInstanceUID != seg.SOPInstanceUID
    assert (seg.ContentDate, seg.InstanceCreationDate, seg.ContentTime) == ("20240131", "20240131", "1200")


def test_a_predicted_mask_saves_itself_so(tmp_path, made_series):
    series = made_series((9, 7, 5))
    predicted = Mask(series, mask(), CLASSES)
    predicted.save(tmp_path / "saved.dcm", format="dicom_seg", codes=CODES)
    assert (tmp_path / "saved.dcm").read_bytes() == written(tmp_path / "a.dcm", series).read_bytes()
    predicted.save(tmp_path / "nameless.dcm", format="dicom_seg", privacy="strip")
    assert pydicom.dcmread(tmp_path / "nameless.dcm").PatientID == ""
    with pytest.raises(MedsegError, match="privacy='stripped': give keep or strip"):
        predicted.save(tmp_path / "misspelt.dcm", format="dicom_seg", privacy="stripped")
    assert not (tmp_path / "misspelt.dcm").exists()


def test_an_empty_mask_and_a_single_slice(tmp_path, made_series):
    series = made_series((9, 7, 5))
    empty = np.zeros((9, 7, 5), np.uint8)
    assert not read_labels(case(written(tmp_path / "a.dcm", series, empty)), CLASSES, series).any()
    shutil.rmtree(tmp_path / "series")
    flat = made_series((9, 7, 1))
    indices = mask()[:, :, 0]
    path = written(tmp_path / "b.dcm", flat, indices)
    np.testing.assert_array_equal(read_labels(case(path), CLASSES, flat), indices)


def test_frames_in_any_order_overlapping_on_a_turned_part_of_the_grid(tmp_path, made_series, caplog):
    series = made_series((9, 7, 5), orientation=OBLIQUE)
    seg = pydicom.dcmread(written(tmp_path / "a.dcm", series))
    frames = list(seg.pixel_array)
    groups = list(seg.PerFrameFunctionalGroupsSequence)
    frames[0] |= frames[len(frames) // 2]  # segment 1 now overlaps with 2, the first slices of which these are
    order = np.random.default_rng(0).permutation(len(frames))
    seg.PerFrameFunctionalGroupsSequence = [groups[place] for place in order]
    from pydicom.pixels import pack_bits

    seg.PixelData = pack_bits(np.stack([frames[place] for place in order]))
    seg.save_as(tmp_path / "b.dcm")
    expected = mask()
    np.testing.assert_array_equal(read_labels(case(tmp_path / "b.dcm"), CLASSES, series), expected)
    assert "'tumour' in" in caplog.text
    flip = np.array([[-1, 0, 0, 8], [0, 1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1.0]])
    nifti = Scan(series.image, series.affine @ flip)  # as a converter turns it
    np.testing.assert_array_equal(read_labels(case(tmp_path / "b.dcm"), CLASSES, nifti), expected[::-1, :, ::-1])


def test_fractional_and_label_maps(tmp_path, made_series):
    series = made_series((9, 7, 5))
    source = source_of(series, "dicom_seg")
    images = dicom_seg.stand_ins(source)
    fractions = np.random.default_rng(0).uniform(size=(5, 7, 9, 1))
    fractions[np.abs(fractions - 0.5) < 0.01] = 0.6
    described = [dicom_seg.description(each) for each in describe(CLASSES)]
    common = {
        "source_images": images,
        "series_instance_uid": "1.7",
        "series_number": 1,
        "sop_instance_uid": "1.8",
        "instance_number": 1,
        "manufacturer": "x",
        "manufacturer_model_name": "x",
        "software_versions": "x",
        "device_serial_number": "x",
    }
    seg = highdicom.seg.Segmentation(
        pixel_array=fractions,
        segmentation_type="FRACTIONAL",
        segment_descriptions=described[:1],
        **common,
    )
    seg.save_as(tmp_path / "fractional.dcm")
    read = read_labels(case(tmp_path / "fractional.dcm"), CLASSES, series)
    np.testing.assert_array_equal(read, (fractions[..., 0] > 0.5).transpose(2, 1, 0))
    labels = mask().transpose(2, 1, 0)
    seg = highdicom.seg.Segmentation(
        pixel_array=labels, segmentation_type="LABELMAP", segment_descriptions=described, **common
    )
    seg.save_as(tmp_path / "labels.dcm")
    np.testing.assert_array_equal(read_labels(case(tmp_path / "labels.dcm"), CLASSES, series), mask())
    packed = pydicom.dcmread(tmp_path / "labels.dcm")
    packed.compress(pydicom.uid.RLELossless)
    packed.save_as(tmp_path / "packed.dcm")
    np.testing.assert_array_equal(read_labels(case(tmp_path / "packed.dcm"), CLASSES, series), mask())
    packed.PixelData = pydicom.encaps.encapsulate([b"damaged"] * int(packed.NumberOfFrames))
    packed.save_as(tmp_path / "packed.dcm")
    with pytest.raises(MedsegError, match=r"packed.dcm: its pixels cannot be decoded \(RLE Lossless\)"):
        read_labels(case(tmp_path / "packed.dcm"), CLASSES, series)


def test_a_segmentation_of_another_series_or_none_is_refused(tmp_path, made_series):
    series = made_series((9, 7, 5))
    path = written(tmp_path / "a.dcm", series)
    seg = pydicom.dcmread(path)
    seg.FrameOfReferenceUID, seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.99", "1.98"
    seg.save_as(tmp_path / "b.dcm")
    with pytest.raises(MedsegError, match=r"b\.dcm: it was made on another series .* it refers to 1\.98"):
        read_labels(case(tmp_path / "b.dcm"), CLASSES, series)
    with pytest.raises(MedsegError, match=r"format=dicom_seg refers to a DICOM series, which .* is not"):
        write_classes(tmp_path / "c.dcm", mask(), CLASSES, Scan(series.image, series.affine), "dicom_seg")
    moved = replace(series, affine=series.affine @ np.diag([1, 1, 0.5, 1]))
    with pytest.raises(MedsegError, match=r"brought onto another grid"):
        write_classes(tmp_path / "c.dcm", mask(), CLASSES, moved, "dicom_seg")
    assert not (tmp_path / "c.dcm").exists()


def test_uneven_frames_are_refused(tmp_path, made_series):
    series = made_series((9, 7, 5))
    seg = pydicom.dcmread(written(tmp_path / "a.dcm", series))
    seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[2] += 0.8
    seg.save_as(tmp_path / "b.dcm")
    with pytest.raises(MedsegError, match=r"its frames lie unevenly"):
        read_labels(case(tmp_path / "b.dcm"), CLASSES, series)


def test_frames_that_no_item_describes_are_refused(tmp_path, made_series):
    series = made_series((9, 7, 5))
    seg = pydicom.dcmread(written(tmp_path / "a.dcm", series))
    seg.NumberOfFrames = 2**31 - 1
    seg.save_as(tmp_path / "b.dcm")
    with pytest.raises(MedsegError, match=r"b\.dcm: it describes \d+ of 2147483647 frames"):
        read_labels(case(tmp_path / "b.dcm"), CLASSES, series)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_cut_segmentation_is_refused(tmp_path, made_series, share):
    series = made_series((9, 7, 5))
    content = written(tmp_path / "a.dcm", series).read_bytes()
    (tmp_path / "b.dcm").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MedsegError, match=r"b\.dcm"):
        read_labels(case(tmp_path / "b.dcm"), CLASSES, series)


def test_without_the_packages_the_extra_is_named(tmp_path, made_series, monkeypatch):
    series = made_series((9, 7, 5))
    path = written(tmp_path / "a.dcm", series)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(MedsegError, match=r"pip install 'medseg\[dicom\]'"):
        written(tmp_path / "b.dcm", series)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(MedsegError, match=r"pip install 'medseg\[dicom\]'"):
        dicom.dataset_of(path)


def grid_of_highdicom(path):
    """The label map (columns, rows, slices) and affine to RAS of a segmentation, as highdicom has them."""
    volume = highdicom.seg.segread(path).get_volume(
        combine_segments=True, skip_overlap_checks=True, allow_missing_positions=True
    )
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.affine[:, [2, 1, 0, 3]]
    return volume.array.transpose(2, 1, 0), affine


@pytest.mark.parametrize(
    "name", ["ct_binary", "ct_binary_fractional", "ct_binary_overlap", "ct_binary_single_frame", "ct_true_fractional"]
)
def test_real_segmentations_agree_with_highdicom(real_data, name):
    path = real_data / "readers" / "dicom_seg" / f"seg_image_{name}.dcm"
    if "true_fractional" in name:
        seg = pydicom.dcmread(path)
        binary, affine = grid_of_highdicom(path.with_name("seg_image_ct_binary.dcm"))
        truth = np.zeros_like(binary)
        for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
            position = [*np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float) * [-1, -1, 1], 1]
            truth[:, :, round((np.linalg.inv(affine) @ position)[2])] = pixels.T >= 128
    else:
        truth, affine = grid_of_highdicom(path)
    names = dicom_seg.names(path)
    like = Scan(np.zeros((1, *truth.shape), np.float32), affine)
    label_map = LabelMap({"background": 0} | {each: index for index, each in enumerate([*names, "none"], 1)})
    read = read_labels(case(path), label_map, like)
    assert truth.any()
    np.testing.assert_array_equal(read > 0, truth > 0)
    if len(names) == 1:
        np.testing.assert_array_equal(read, truth)


def test_every_other_real_file_is_refused_or_no_segmentation(real_data):
    from medseg.io.files.read_segments import read_segments, reader_of

    like = Scan(np.zeros((1, 16, 16), np.float32), np.eye(4), unit="px")
    reasons = {}
    for path in sorted((real_data / "readers" / "dicom_seg").glob("*.dcm")):
        if reader_of(path) is None:
            assert not path.name.startswith("seg_")
            continue
        try:
            segments = list(read_segments(path, like).segments)
            reasons[path.stem] = [segment.mask.sum() for segment in segments]
        except MedsegError as error:
            reasons[path.stem] = str(error)
    slides = [reason for name, reason in reasons.items() if "_sm_" in name]
    assert len(slides) == 6
    assert all("whole-slide" in reason for reason in slides)
    truth = pydicom.dcmread(real_data / "readers" / "dicom_seg" / "seg_image_cr_binary.dcm").pixel_array
    assert reasons["seg_image_cr_binary"] == [truth.sum()]


def test_a_folder_of_series_with_segmentations_as_labels(opened, tmp_path, made_series):
    series = made_series((9, 7, 5), orientation=OBLIQUE)
    (tmp_path / "images").mkdir()
    (tmp_path / "series").rename(tmp_path / "images" / "p1")
    series = read_scan([tmp_path / "images" / "p1"])
    written(tmp_path / "masks" / "p1.dcm", series)
    segments = {"t*": "lesion", "absent": None}
    dataset = opened("folder", tmp_path, segments=segments)
    classes = label_map(dataset)
    assert classes.labels == {"background": 0, "Leber": 1, "lesion": 2}
    (found,) = dataset.cases
    np.testing.assert_array_equal(read_labels(found, classes, read_case(found)), mask())
    declared = opened("folder", tmp_path, segments=segments, labels={"background": 0, "lesion": 5, "leber": 6})
    read = read_labels(declared.cases[0], label_map(declared), series)
    np.testing.assert_array_equal(read, np.array([0, 2, 1])[mask()])


def test_multi_frame_images_are_referred_to_frame_by_frame(tmp_path, made_series):
    series = made_series((9, 7, 5), orientation=OBLIQUE)
    slices = [pydicom.dcmread(path) for path in series.layout.paths]
    image = slices[0]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(image, keyword)
    image.SOPClassUID, image.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.2.1", 5
    item = pydicom.Dataset
    shared, measures, plane = item(), item(), item()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.6], 2.5
    plane.ImageOrientationPatient = list(OBLIQUE)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    image.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for place in (3, 0, 4, 1, 2):  # frames in no order
        frame, position = item(), item()
        position.ImagePositionPatient = pydicom.dcmread(series.layout.paths[place]).ImagePositionPatient
        frame.PlanePositionSequence = [position]
        groups.append(frame)
    image.PerFrameFunctionalGroupsSequence = groups
    image.PixelData = np.zeros((5, 7, 9), "<i2").tobytes()
    image.save_as(tmp_path / "multi.dcm", enforce_file_format=True)
    scan = read_scan([tmp_path / "multi.dcm"])
    np.testing.assert_allclose(scan.affine, series.affine, atol=1e-6)
    path = written(tmp_path / "seg.dcm", scan)
    np.testing.assert_array_equal(read_labels(case(path), CLASSES, scan), mask())
    seg = pydicom.dcmread(path)
    for number, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        where = groups[source.ReferencedFrameNumber - 1].PlanePositionSequence[0].ImagePositionPatient
        assert frame.PlanePositionSequence[0].ImagePositionPatient == where, number
    write_classes(tmp_path / "rt.dcm", mask(), CLASSES, scan, "rtstruct")
    np.testing.assert_array_equal(read_labels(case(tmp_path / "rt.dcm"), CLASSES, scan), mask())


def test_multi_frame_images_with_all_groups_by_frame_and_a_frame_twice(tmp_path, dicom_file):
    groups, places = [], (3, 0, 2, 2, 1)
    for place in places:
        frame, measures, plane, position = (pydicom.Dataset() for _ in range(4))
        measures.PixelSpacing, position.ImagePositionPatient = [0.8, 0.6], [0, 0, 2.5 * place]
        plane.ImageOrientationPatient = [1, 1e-6 * (place % 2), 0, 0, 1, 0]
        frame.PixelMeasuresSequence, frame.PlaneOrientationSequence = [measures], [plane]
        frame.PlanePositionSequence = [position]
        groups.append(frame)
    image = dicom_file(
        "multi.dcm",
        np.zeros((len(places), 7, 9), np.int16),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        PerFrameFunctionalGroupsSequence=groups,
    )
    scan = read_scan([image])
    for form in ("dicom_seg", "rtstruct"):
        path = tmp_path / f"{form}.dcm"
        write_classes(path, mask((9, 7, 4)), CLASSES, scan, form)
        np.testing.assert_array_equal(read_labels(case(path), CLASSES, scan), mask((9, 7, 4)))
    seg = highdicom.seg.segread(tmp_path / "dicom_seg.dcm")
    for frame in seg.PerFrameFunctionalGroupsSequence:
        number = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        position = groups[number - 1].PlanePositionSequence[0].ImagePositionPatient
        assert frame.PlanePositionSequence[0].ImagePositionPatient == position
    assert len(seg.SourceImageSequence) == 1
    assert float(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness) == 2.5


@pytest.mark.parametrize("placed", [True, False])
def test_radiographs_with_the_spacing_of_the_detector_or_without_a_position(tmp_path, dicom_file, placed):
    tags = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]} if placed else {}
    tags[("PixelSpacing", "ImagerPixelSpacing")[placed]] = [0.8, 0.6]
    scan = read_scan([dicom_file("a.dcm", np.zeros((7, 9), np.int16), SOPClassUID="1.2.840.10008.5.1.4.1.1.1", **tags)])
    indices = mask()[:, :, 0]
    path = written(tmp_path / "seg.dcm", scan, indices)
    np.testing.assert_array_equal(read_labels(case(path), CLASSES, scan), indices)
    seg = highdicom.seg.segread(path)
    assert list(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) == [0.8, 0.6]
    assert seg.SourceImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.1"


@pytest.mark.parametrize("form", ["dicom_seg", "rtstruct"])
def test_images_without_a_uid_and_whatever_a_library_refuses_are_explained(tmp_path, dicom_file, monkeypatch, form):
    image = dicom_file("a.dcm", np.zeros((7, 9), np.int16), (0, 0, 0))
    dataset = pydicom.dcmread(image)
    del dataset.SOPInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=False)
    indices = mask()[:, :, 0]
    with pytest.raises(MedsegError, match=r"b\.dcm: it has no SOPInstanceUID, so that no DICOM object can refer to it"):
        write_classes(tmp_path / "seg.dcm", indices, CLASSES, read_scan([tmp_path / "b.dcm"]), form)

    def refuse(*_, **__):
        raise KeyError("Rows")

    monkeypatch.setattr(pydicom.Dataset, "save_as", refuse)
    with pytest.raises(MedsegError, match=rf"a\.dcm: format={form} cannot hold its mask: KeyError: 'Rows'\. Take"):
        write_classes(tmp_path / "seg.dcm", indices, CLASSES, read_scan([image]), form)
    assert not (tmp_path / "seg.dcm").exists()


def test_class_names_that_dicom_cannot_hold(tmp_path, made_series):
    series, name = made_series((9, 7, 5)), "left\\right\n" + "x" * 80
    for form in ("dicom_seg", "rtstruct"):
        path = tmp_path / f"{form}.dcm"
        write_classes(path, (mask() > 0).astype(np.uint8), LabelMap({"background": 0, name: 1}), series, form)
        assert classes_of_segments(case(path)) == ["left_right_" + "x" * 53]
