"""Series of old scanners and anonymisers: every one that is read is also written as DICOM SEG and RTSTRUCT."""

import csv
import os
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
from scan_files import read_scan
from thresholding import TARGET, write_checkpoint

from medseg.cli import command_line
from medseg.io.case import Case, LabelFile
from medseg.io.datasets.annotations import read_labels
from medseg.io.labels import LabelMap

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

BODY = np.zeros((8, 20, 24), bool)  # slices, rows, columns
BODY[2:6, 5:14, 6:17] = True
BODY[2, 5, 6] = False
STEP = 2.5


def setting(**values):
    return lambda dataset, _: [setattr(dataset, *item) for item in values.items()]


def as_bytes(**values):
    """Write what pydicom would not, even unchecked."""

    def edit(dataset, _):
        for keyword, value in values.items():
            tag = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword))
            vr = pydicom.datadict.dictionary_VR(tag)
            dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)

    return edit


def without(*keywords):
    return lambda dataset, _: [delattr(dataset, keyword) for keyword in keywords if keyword in dataset]


def noise(place, count, size):
    return np.random.default_rng(place).uniform(-size, size, count)


VARIANTS = {
    "plain": setting(),
    # geometry
    "tilt in the sixth decimal": lambda d, k: setattr(d, "ImageOrientationPatient", [1, 1e-6 * (k % 2), 0, 0, 1, 0]),
    "cosines of three decimals": setting(ImageOrientationPatient=[0.954, -0.208, 0.215, 0.279, 0.88, -0.384]),
    "vectors longer than one": setting(ImageOrientationPatient=[1.00001, 0, 0, 0, 1.00001, 0]),
    "noise in the orientation": lambda d, k: setattr(
        d, "ImageOrientationPatient", [*np.eye(3)[:2].ravel() + noise(k, 6, 1e-4)]
    ),
    "rounded positions": lambda d, k: setattr(
        d, "ImagePositionPatient", [*np.array([0, 0, STEP * k]) + noise(k, 3, 1e-4)]
    ),
    "uneven by a twentieth": lambda d, k: setattr(d, "ImagePositionPatient", [0, 0, STEP * k + 0.12 * (k % 7 == 3)]),
    "pixel spacing in the fourth decimal": lambda d, k: setattr(d, "PixelSpacing", [1.2 + 1e-4 * k, 1.0]),
    "no thickness": without("SliceThickness"),
    "empty thickness": setting(SliceThickness=""),
    "thickness 0, negative spacing": setting(SliceThickness="0", SpacingBetweenSlices="-2.5"),
    "wrong spacing": setting(SliceThickness="", SpacingBetweenSlices="7"),
    "no number as thickness": as_bytes(SliceThickness=b"about 2 "),
    # patient and study
    "free forms": setting(
        PatientBirthDate="1960-01-02",
        PatientSex="Male",
        StudyDate="2020.01.02",
        StudyTime="12:30:15.1234567",
        SeriesDate="01/02/2020",
        SeriesTime="noon",
        PatientName="a^b=c=d=e",
    ),
    "no meaning": setting(
        PatientBirthDate="1960",
        PatientSex="2",
        StudyDate="0000",
        StudyTime="99:99",
        StudyID="S" * 40,
        PatientID="7" * 80,
        PatientName="N" * 80,
        AccessionNumber="A" * 40,
    ),
    "nothing": without(
        *(
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "PatientSex",
            "StudyDate",
            "StudyTime",
            "StudyID",
            "ImageType",
        ),
        *("AccessionNumber", "SeriesNumber", "FrameOfReferenceUID", "StudyInstanceUID", "SliceThickness", "Modality"),
    ),
    "no series": without("SeriesInstanceUID", "FrameOfReferenceUID"),
    "several frames of reference": lambda d, k: setattr(d, "FrameOfReferenceUID", f"1.9.{k}"),
    "UIDs with blanks": setting(StudyInstanceUID="1.2.3 ", SeriesInstanceUID="1.2.4  ", FrameOfReferenceUID=" 1.2.5"),
    "odd UIDs": lambda d, k: [setattr(d, each, f"1.02.{k}") for each in ("SOPInstanceUID", "StudyInstanceUID")],
    "a class of its vendor": setting(SOPClassUID="1.3.12.2.1107.5.9.1"),
    "an image of ultrasound": setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1", Modality="US"),
    "no number of the series": as_bytes(SeriesNumber=b"three ", InstanceNumber=b"first "),
    "lossy, without ratio": setting(LossyImageCompression="01", LossyImageCompressionMethod="whatever it was"),
}


def write_series(folder, edit):
    """Write a series of slices; pydicom checks nothing, as the programs that write such files."""
    folder.mkdir(parents=True)
    for place, pixels in enumerate(BODY):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.7.{place}"
        dataset = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            "SOPClassUID": meta.MediaStorageSOPClassUID,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": "1.2.4",
            "FrameOfReferenceUID": "1.2.5",
            "PatientID": "P",
            "PatientName": "A^B",
            "PatientBirthDate": "",
            "PatientSex": "",
            "AccessionNumber": "",
            "StudyDate": "20200101",
            "StudyTime": "120000",
            "StudyID": "1",
            "SeriesNumber": 1,
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "InstanceNumber": place + 1,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, STEP * place],
            "PixelSpacing": [1.2, 1.0],
            "SliceThickness": "2",
            "Rows": BODY.shape[1],
            "Columns": BODY.shape[2],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 0,
            "PixelData": pixels.astype(np.uint16).tobytes(),
        }
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        edit(dataset, place)
        if "ImageOrientationPatient" in dataset and dataset.ImageOrientationPatient[2]:  # oblique: along the normal
            normal = np.cross(*np.reshape(dataset.ImageOrientationPatient, (2, 3)).astype(float))
            dataset.ImagePositionPatient = [*(STEP * place * normal).round(4)]
        dataset.save_as(folder / f"{place:03}.dcm", enforce_file_format=True)


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """The folder of all series, and that of their masks in each format, written by the command line."""
    root = tmp_path_factory.mktemp("series")
    with pydicom.config.disable_value_validation():
        for name, edit in VARIANTS.items():
            write_series(root / "scans" / name, edit)
    write_checkpoint(root / "c.ckpt", dims=3)
    for form in ("nifti", "dicom_seg", "rtstruct"):
        use = [f"checkpoint={root / 'c.ckpt'}", f"input={root / 'scans'}", f"trust=[{TARGET}]", "device=cpu"]
        status = command_line.main(["predict", *use, f"output={root / form}", f"format={form}"])
        with (root / form / "predictions.csv").open(encoding="utf-8") as file:
            assert {row["case"]: row["error"] for row in csv.DictReader(file)} == dict.fromkeys(VARIANTS, "")
        assert status == 0
    return root


@pytest.mark.parametrize("name", VARIANTS)
def test_the_segmentation_has_the_voxels_and_the_geometry_of_the_nifti(name, masks):
    nifti = nib.load(masks / "nifti" / f"{name}.nii.gz")
    expected = np.asarray(nifti.dataobj)
    assert expected.sum() == BODY.sum()
    seg = highdicom.seg.segread(masks / "dicom_seg" / f"{name}.dcm")
    shape = (*BODY.shape[1:], len(BODY))
    volume = seg.get_volume(combine_segments=True, allow_missing_positions=True)
    to_index = np.linalg.inv(nifti.affine) @ np.diag([-1.0, -1, 1, 1]) @ volume.affine
    where = np.argwhere(volume.array)  # slices, rows, columns, of which empty ones are left out
    indices = (np.c_[where, np.ones(len(where))] @ to_index.T)[:, :3]
    np.testing.assert_allclose(indices, indices.round(), atol=0.02)
    read = np.zeros_like(expected)
    read[tuple(indices.round().astype(int).T)] = 1
    np.testing.assert_array_equal(read, expected, str(shape))


@pytest.mark.parametrize("name", VARIANTS)
def test_both_objects_are_read_back_and_refer_to_their_images(name, masks):
    scan = read_scan([masks / "scans" / name])
    for form in ("dicom_seg", "rtstruct"):
        path = masks / form / f"{name}.dcm"
        labels = read_labels(Case("a", "a", (), (LabelFile(path),)), LabelMap({"background": 0, "thing": 1}), scan)
        np.testing.assert_array_equal(labels, BODY.T)
    sources = [pydicom.dcmread(path) for path in scan.layout.paths]
    seg = pydicom.dcmread(masks / "dicom_seg" / f"{name}.dcm")
    references = {}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        item = frame.DerivationImageSequence[0].SourceImageSequence[0]
        references[item.ReferencedSOPInstanceUID] = item.ReferencedSOPClassUID
    assert references == {each.SOPInstanceUID: each.SOPClassUID for each in sources[2:6]}
    for items in (seg.SourceImageSequence, seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence):
        assert [item.ReferencedSOPInstanceUID for item in items] == [each.SOPInstanceUID for each in sources]
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    unknown = "thickness" in name or name in ("wrong spacing", "nothing")
    assert float(measures.SliceThickness) == pytest.approx(STEP if unknown else 2, abs=1e-3)
    assert float(measures.SpacingBetweenSlices) == pytest.approx(STEP, abs=2e-3)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("form", ["dicom_seg", "rtstruct"])
def test_every_value_that_is_written_is_valid(form, name, masks, monkeypatch):
    if name == "odd UIDs":
        pytest.skip("references must be what the images have")
    content = (masks / form / f"{name}.dcm").read_bytes()
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.RAISE)
    dataset = pydicom.dcmread(BytesIO(content))
    rewritten = pydicom.Dataset()
    for element in dataset.iterall():
        rewritten[element.tag] = pydicom.DataElement(element.tag, element.VR, element.value)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"):
        assert keyword in dataset  # type 2: may be empty, not absent


def test_what_has_one_meaning_is_mended_and_what_has_none_is_empty(masks):
    seg = pydicom.dcmread(masks / "dicom_seg" / "free forms.dcm")
    assert (seg.PatientBirthDate, seg.PatientSex, seg.PatientName) == ("19600102", "M", "a^b=c=d")
    assert (seg.StudyDate, seg.StudyTime) == ("20200102", "123015.123456")
    assert (seg.ContentDate, seg.ContentTime) == ("20200102", "123015.123456")  # SeriesDate could be in two months
    for form in ("dicom_seg", "rtstruct"):
        empty = pydicom.dcmread(masks / form / "no meaning.dcm")
        for keyword in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "PatientSex",
            "StudyDate",
            "StudyTime",
            "StudyID",
        ):
            assert not empty[keyword].value, keyword


def test_changes_are_said_once_without_the_values(tmp_path, caplog, monkeypatch):
    with pydicom.config.disable_value_validation():
        write_series(tmp_path / "scans" / "p1", setting(PatientBirthDate="1960", PatientSex="Male"))
    write_checkpoint(tmp_path / "c.ckpt", dims=3)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        line = ["predict", "checkpoint=c.ckpt", "input=scans", "output=masks", f"trust=[{TARGET}]", "device=cpu"]
        assert command_line.main([*line, "format=dicom_seg"]) == 0
    said = [record.getMessage() for record in caplog.records if "PatientBirthDate" in record.getMessage()]
    assert said == [
        f"scans{os.sep}p1: left empty, since what the images say is not certain: PatientBirthDate (not a full date that"
        " has one meaning)"
    ]
    assert sum("PatientSex: written in the form" in record.getMessage() for record in caplog.records) == 1
    assert "1960" not in caplog.text
