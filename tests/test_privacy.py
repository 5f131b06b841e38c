"""What files say of patients stays in them, and nothing leaves the machine, whatever the command."""

import gzip
import socket
import urllib.request
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from medseg.cli import command_line

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

SHAPE = (16, 18, 16)
PERSONAL = {
    "PatientName": "Zappelphilipp",
    "PatientID": "QID-83615",
    "PatientBirthDate": "19470203",
    "OtherPatientIDs": "other83615",
    "PatientAddress": "Quellenweg83615",
    "PatientComments": "comments83615",
    "EthnicGroup": "ethnic83615",
    "Occupation": "occup83615",
    "PatientTelephoneNumbers": "phone83615",
    "InstitutionName": "Quellenklinik",
    "InstitutionAddress": "Klinikweg83615",
    "StationName": "station83615",
    "ReferringPhysicianName": "Referrer83615",
    "OperatorsName": "Operator83615",
    "PatientAge": "077Y",
    "PerformingPhysicianName": "Performer83615",
    "AccessionNumber": "acc83615",
    "StudyID": "study83615",
    "StudyDescription": "described83615",
    "DeviceSerialNumber": "serial83615",
    "StudyDate": "19630405",
    "AdditionalPatientHistory": "history83615",
    "ImageComments": "imagec83615",
    "ProtocolName": "protocol83615",
}
IN_IMAGES = "header83615"
"""In every text that NIfTI, NRRD, MetaImage, PNG, JPEG and TIFF have room for."""
SECRETS = sorted({part.encode() for text in [*PERSONAL.values(), IN_IMAGES] for part in text.split("^")})


def body(number):
    image = np.random.default_rng(number).normal(0, 0.05, SHAPE).astype(np.float32)
    image[4:11, 5 : 11 + number % 3, 5:12] += 1
    return image


def write_nifti(path, array):
    image = nib.Nifti1Image(array, np.diag([-1, -1, 1, 1]))  # as the other formats lie by default
    for field in ("descrip", "aux_file", "db_name", "data_type", "intent_name"):
        image.header[field] = IN_IMAGES[-10:] if field in ("db_name", "data_type") else IN_IMAGES
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", IN_IMAGES.encode()))
    nib.save(image, path)


def write_itk(path, array):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    for key in ("PatientName", "0010|0010", "Comment", "content"):
        image.SetMetaData(key, IN_IMAGES)
    sitk.WriteImage(image, str(path))


def write_dicom(folder, array):
    folder.mkdir()
    for place, pixels in enumerate(np.rint(1000 * array.T).astype(np.int16)):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.7.{place}"
        dataset = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            **PERSONAL,
            "SOPClassUID": meta.MediaStorageSOPClassUID,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": "1.2.4",
            "FrameOfReferenceUID": "1.2.5",
            "StudyTime": "120000",
            "SeriesNumber": 1,
            "Modality": "CT",
            "SliceThickness": "1",
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, place],
            "PixelSpacing": [1, 1],
            "Rows": SHAPE[1],
            "Columns": SHAPE[0],
            "RescaleSlope": "0.001",
            "RescaleIntercept": "0",
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "SeriesDate": PERSONAL["StudyDate"],
            "PixelData": pixels.tobytes(),
        }
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.private_block(0x11, IN_IMAGES, create=True).add_new(1, "LO", IN_IMAGES)
        dataset.save_as(folder / f"{place:02}.dcm", enforce_file_format=True)


def write_picture(path, array):
    image = Image.fromarray(np.uint8(np.clip(array[..., 8], 0, 1) * 255))
    exif = Image.Exif()
    for tag in (ExifTags.Base.ImageDescription, ExifTags.Base.Artist, ExifTags.Base.Copyright):
        exif[tag] = IN_IMAGES
    options = {"exif": exif}
    if path.suffix == ".png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("PatientName", IN_IMAGES)
        options["pnginfo"].add_itxt("Comment", IN_IMAGES)
    elif path.suffix == ".jpg":
        options["comment"] = IN_IMAGES
    image.save(path, **options)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Volumes and pictures in every format, six of each, with a mask each, and every text that has room in them."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("volumes", "pictures"):
        (root / kind / "images").mkdir(parents=True)
        (root / kind / "masks").mkdir()
    writers = [(".nii.gz", write_nifti), (".nrrd", write_itk), (".mha", write_itk), ("", write_dicom)] * 2
    for number, (suffix, write) in enumerate(writers):
        write(root / "volumes" / "images" / f"case{number}{suffix}", body(number))
        write_nifti(root / "volumes" / "masks" / f"case{number}.nii.gz", (body(number) > 0.5).astype(np.uint8))
    for number, suffix in enumerate((".png", ".jpg", ".tif") * 2):
        write_picture(root / "pictures" / "images" / f"case{number}{suffix}", body(number))
        write_picture(root / "pictures" / "masks" / f"case{number}.png", (body(number) > 0.5) / 255)
    planted = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".gz")
    assert all(secret in planted for secret in SECRETS)
    return root


@pytest.fixture
def attempts(monkeypatch):
    """Attempts to reach another machine, each of which fails."""
    made = []

    def refuse(*arguments, **_):
        made.append(arguments)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto", "sendmsg"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyaddr", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return made


def leaks(folder, output):
    """The secrets in all files of a folder, unpacked, and in what was printed."""
    contents = {"the terminal": output.encode()}
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            contents[path.relative_to(folder)] = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    assert len(contents) > 10
    lower = {name: str(name).encode().lower() + content.lower() for name, content in contents.items()}
    return {(str(name), secret) for name, content in lower.items() for secret in SECRETS if secret.lower() in content}


TRAINING = [
    *("model.depth=2", "model.base_channels=4", "trainer.max_time=null", "trainer.max_epochs=1"),
    *("trainer.steps_per_epoch=2", "trainer.accelerator=cpu", "plan.batch_size=2", "split.val=0.2", "split.test=0.2"),
]


@pytest.mark.parametrize("kind", ["volumes", "pictures"])
def test_no_command_writes_or_sends_what_files_say_of_patients(kind, scans, tmp_path, monkeypatch, attempts, capfd):
    monkeypatch.chdir(tmp_path)
    data = ["dataset=folder", f"dataset.root={scans / kind}"]
    data.append(f"dataset.modality={'mri' if kind == 'volumes' else 'microscopy'}")
    use = ["checkpoint=run", f"input={scans / kind / 'images'}", "device=cpu"]
    lines = [
        ["inspect", *data],
        ["train", *data, *TRAINING, "run_dir=run"],
        ["eval", "checkpoint=run", "subset=all", "device=cpu"],
        ["predict", *use, "output=a", "overlays=html", "uncertainty=true", "worst=1", "save_probabilities=true"],
        ["cache"],
    ]
    if kind == "volumes":
        lines.append(["predict", *use, "output=b", "format=seg.nrrd", "meshes=true"])
        dicom = [use[0], f"input={scans / kind / 'images' / 'case3'}", use[2], "privacy=strip"]
        lines += [["predict", *dicom, f"output={form}", f"format={form}"] for form in ("dicom_seg", "rtstruct")]
        lines.append(["predict", *dicom[:3], "output=kept", "format=dicom_seg"])
    for line in lines:
        assert command_line.main(line) == 0, line
    if kind == "volumes":
        kept = tmp_path / "kept" / "case3.dcm"
        assert PERSONAL["PatientName"].encode() in kept.read_bytes()
        kept.unlink()
    assert leaks(tmp_path, "".join(capfd.readouterr())) == set()
    assert attempts == []


@pytest.mark.parametrize("form", ["dicom_seg", "rtstruct"])
def test_dicom_masks_hold_what_the_standard_demands_and_no_more(form, scans, tmp_path):
    from scan_files import read_scan

    from medseg.io.files.write_masks import write_classes
    from medseg.io.labels import LabelMap

    scan = read_scan([scans / "volumes" / "images" / "case3"])
    demanded = ("PatientName", "PatientID", "PatientBirthDate", "StudyID", "AccessionNumber", "ReferringPhysicianName")
    for privacy in ("keep", "strip"):
        path = tmp_path / f"{privacy}.dcm"
        classes = LabelMap({"background": 0, "thing": 1})
        write_classes(path, np.ones(SHAPE, np.uint8), classes, scan, form, privacy=privacy)
        dataset = pydicom.dcmread(path)
        kept = PERSONAL if privacy == "keep" else {}
        for keyword in (*demanded, "StudyDate"):
            assert str(dataset[keyword].value or "") == kept.get(keyword, ""), keyword
        assert dataset.StudyInstanceUID == "1.2.3"
        texts = [str(element.value) for element in dataset.iterall() if element.VR not in ("SQ", "OB", "OW")]
        allowed = {kept.get(keyword) for keyword in demanded}
        for keyword, text in PERSONAL.items():
            if text not in allowed and keyword != "StudyDate":
                assert not any(text in other for other in texts), keyword


def test_a_secret_in_a_written_file_would_be_found(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("nothing", "utf-8")
    Path(tmp_path / "a.gz").write_bytes(gzip.compress(b"..." + SECRETS[0].upper()))
    assert leaks(tmp_path, SECRETS[1].decode()) == {("a.gz", SECRETS[0]), ("the terminal", SECRETS[1])}


def test_an_attempt_to_reach_another_machine_would_be_noticed(attempts):
    with pytest.raises(OSError, match="no network"):
        urllib.request.urlopen("http://192.0.2.1/")
    with pytest.raises(OSError, match="no network"), socket.socket() as connection:
        connection.connect(("192.0.2.1", 80))
    assert len(attempts) == 2
