"""Which DICOM files form which image, how it is called, and how cases, masks and the cache deal with it."""

import logging
import shutil
import sys
import warnings
import zipfile

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import generate_uid
from scan_files import read_scan

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.files.read import exists, find_images, find_masks, on_disk, read_case, read_mask
from medseg.io.files.sizes import size_of
from medseg.io.files.write_masks import mask_name, write_mask
from medseg.io.formats import archives
from medseg.io.layouts.channels import cases_from_files
from medseg.io.layouts.csv_table import table
from medseg.io.layouts.image_folder import folder
from medseg.jobs.predict.scans import find_scans
from medseg.preprocessing.cache import hash_of
from medseg.system.file_names import LONGEST

VOLUME = np.arange(48, dtype=np.int16).reshape(4, 3, 4)


def names(root, paths=None):
    return [path.relative_to(root).as_posix() for path in (paths or find_images(root))]


def tags(number, description=None):
    return {"SeriesInstanceUID": f"1.2.{number}", "SeriesNumber": number, "SeriesDescription": description}


def test_a_folder_with_one_series_is_an_image(tmp_path, dicom_series, dicom_file):
    dicom_series("p1/CT.1.2", VOLUME)
    dicom_series("p2", VOLUME)
    dicom_file("p3/scan.dcm", VOLUME[0], position=(0, 0, 0))
    dicom_file("DICOMDIR", VOLUME[0])
    (tmp_path / "p2" / "notes.txt").write_text("nothing")
    assert names(tmp_path) == ["p1/CT.1.2", "p2", "p3/scan.dcm"]
    assert find_images(tmp_path / "p2") == [tmp_path / "p2"]
    cases, problems = cases_from_files(tmp_path, find_images(tmp_path), None)
    assert ([case.id for case in cases], problems) == (["p1/CT.1.2", "p2", "p3/scan"], [])
    assert [len(on_disk(case.images[0])) for case in cases] == [4, 4, 1]


def test_series_in_one_folder_are_called_by_their_description(tmp_path, dicom_series):
    dicom_series("s/a", VOLUME, **tags(3, "AX T1/T2"))
    dicom_series("s/b", VOLUME + 100, **tags(4, "FLAIR"))
    dicom_series("s/c", VOLUME + 200, **tags(5, "FLAIR"))
    dicom_series("s/d", VOLUME + 300, **tags(6))
    for path in [*(tmp_path / "s").rglob("IM*")]:
        path.rename(tmp_path / "s" / f"{path.parent.name}{path.name}")
    found = names(tmp_path)
    assert found == ["s/AX T1_T2.dicom", "s/FLAIR (4).dicom", "s/FLAIR (5).dicom", "s/series 6.dicom"]
    assert [read_scan([tmp_path / name]).image.min() for name in found] == [0, 100, 200, 300]
    assert find_images(tmp_path / "s" / "FLAIR (4).dicom") == [tmp_path / "s" / "FLAIR (4).dicom"]
    with pytest.raises(MedsegError, match=r"s: it holds 4 images: AX T1_T2.dicom, FLAIR \(4\).*Name one"):
        read_scan([tmp_path / "s"])
    with pytest.raises(MedsegError, match=r"FLAIR 4.dicom: there is no such file or folder. Did you mean 'FLAIR \(4\)"):
        find_images(tmp_path / "s" / "FLAIR 4.dicom")


def test_descriptions_that_are_no_names_become_names_of_their_own(tmp_path, dicom_series):
    """Paths, devices of Windows, four hundred letters, and two that differ in case only."""
    descriptions = ["../../up", "CON", "x" * 400, "t1", "T1", "...", "esc\x1b[31m"]
    for number, description in enumerate(descriptions, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of values that the standard does not allow
            dicom_series(f"s/{number}", VOLUME + number, **tags(number, description))
    for path in [*(tmp_path / "s").rglob("IM*")]:
        path.rename(tmp_path / "s" / f"{path.parent.name}{path.name}")
    found = find_images(tmp_path)
    assert {int(read_scan([path]).image.min()) for path in found} == {*range(1, 8)}
    assert {path.parent for path in found} == {tmp_path / "s"}
    stems = [path.name.removesuffix(".dicom") for path in found]
    assert len({name.casefold() for name in stems}) == 7
    assert {"_.._up", "_CON", "T1 (5)", "t1 (4)", "series 6", "x" * LONGEST} < {*stems}


def test_channels_by_description_or_by_folder(tmp_path, dicom_series):
    for patient in ("p1", "p2"):
        dicom_series(f"{patient}/x", VOLUME, **tags(3, "T1"))
        dicom_series(f"{patient}/y", VOLUME + 100, **tags(4, "FLAIR"))
    for path in [*(tmp_path / "p1").rglob("IM*")]:  # p1 in one folder, p2 in a folder for each series
        path.rename(tmp_path / "p1" / f"{path.parent.name}{path.name}")
    for name, description in (("x", "T1"), ("y", "FLAIR")):
        (tmp_path / "p1" / name).rmdir()
        (tmp_path / "p2" / name).rename(tmp_path / "p2" / description)
    cases, problems = cases_from_files(tmp_path, find_images(tmp_path), [["/T1"], ["/FLAIR"]])
    assert ([case.id for case in cases], problems) == (["p1", "p2"], [])
    for case in cases:
        assert read_case(case).image[:, 0, 0, 0].tolist() == [0, 100]


def test_a_series_may_lie_in_several_folders(tmp_path, dicom_series):
    dicom_series("study/0", VOLUME)
    for path in sorted((tmp_path / "study" / "0").iterdir())[:2]:
        (tmp_path / "study" / "1").mkdir(exist_ok=True)
        path.rename(tmp_path / "study" / "1" / path.name)
    assert names(tmp_path) == ["study"]
    np.testing.assert_array_equal(read_scan([tmp_path / "study"]).image[0], VOLUME.T)


def test_patients_that_share_a_series_uid_stay_apart(tmp_path, dicom_series):
    dicom_series("p1", VOLUME)
    dicom_series("p2", VOLUME + 1)
    assert names(tmp_path) == ["p1", "p2"]


def test_series_without_any_uid(tmp_path, dicom_series):
    nameless = {"SOPClassUID": "", "SeriesInstanceUID": "", "StudyInstanceUID": ""}
    for patient in ("p1", "p2"):
        dicom_series(patient, VOLUME, **nameless)
    assert names(tmp_path) == ["p1", "p2"]


def test_localizers_and_objects_that_are_no_images_are_skipped(tmp_path, dicom_series, dicom_file, caplog):
    caplog.set_level(logging.INFO)
    dicom_series("s", VOLUME, **tags(2, "Abdomen"))
    dicom_file("s/scout", VOLUME[0], position=(0, 0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **tags(1))
    dicom_series("s/loc", VOLUME, **tags(7, "3-plane Loc"))
    dicom_file("s/seg", VOLUME.astype(np.uint8), Modality="SEG", **tags(3))
    report = dicom_file(
        "s/rt", VOLUME[0], Modality="RTSTRUCT", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", Rows=None, Columns=None
    )
    dicom_file("s/dose report", VOLUME[0], Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.7", **tags(99))
    assert report.is_file()
    assert names(tmp_path) == ["s"]
    for words in (
        "skipped 5 DICOM files (localizer), such as",
        "skipped 1 DICOM files (SEG), such as",
        "(RTSTRUCT), such as",
        "skipped 1 DICOM files (picture beside slices), such as",
    ):
        assert words in caplog.text


def test_nothing_but_localizers(tmp_path, dicom_series):
    dicom_series("s", VOLUME, **tags(7, "Localizer"))
    with pytest.raises(MedsegError, match=r"no scans here.*of which localizers and objects that are no images"):
        find_images(tmp_path)


def test_a_folder_without_dicom_and_a_series_that_is_not_there(tmp_path, dicom_series):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedsegError, match="empty: this folder holds no DICOM image"):
        read_scan([tmp_path / "empty"])
    dicom_series("s", VOLUME)
    with pytest.raises(MedsegError, match=r"t: there is no such file"):
        read_scan([tmp_path / "t"])


def test_directions_and_sizes_of_one_series_are_images_apart(tmp_path, dicom_series):
    dicom_series("s/a", VOLUME, SeriesDescription="MPR")
    dicom_series(
        "s/b", VOLUME, SeriesDescription="MPR", direction=(0, 1, 0), ImageOrientationPatient=[1, 0, 0, 0, 0, -1]
    )
    dicom_series("s/c", VOLUME[:, :2], SeriesDescription="MPR")
    for path in [*(tmp_path / "s").rglob("IM*")]:
        path.rename(tmp_path / "s" / f"{path.parent.name}{path.name}")
    found = names(tmp_path)
    assert found == [f"s/MPR (0) ({number}).dicom" for number in (1, 2, 3)]
    assert sorted(read_scan([tmp_path / name]).shape for name in found) == [(4, 2, 4), (4, 3, 4), (4, 3, 4)]


def test_radiographs_of_one_series_are_images_each(tmp_path, dicom_file):
    for name in ("a.dcm", "b.DCM", "c"):
        dicom_file(f"x/{name}", VOLUME[0], Modality="DX")
    assert names(tmp_path) == ["x/a.dcm", "x/b.DCM", "x/c"]


def test_a_file_that_cannot_be_read_is_missed(tmp_path, dicom_series):
    dicom_series("s", VOLUME, **tags(2, "Abdomen"))
    whole = next((tmp_path / "s").glob("IM?0"))
    (tmp_path / "s" / "half").write_bytes(whole.read_bytes()[:400])
    (tmp_path / "s" / "none.dcm").touch()
    assert names(tmp_path) == ["s/Abdomen.dicom", "s/half", "s/none.dcm"]
    with pytest.raises(MedsegError, match=r"half: no (readable )?DICOM"):
        read_scan([tmp_path / "s" / "half"])
    with pytest.raises(MedsegError, match=r"none.dcm: the file is empty"):
        read_scan([tmp_path / "s" / "none.dcm"])


def test_suffix_without_preamble(tmp_path, dicom_series):
    dicom_series("s", VOLUME)
    for path in [*(tmp_path / "s").iterdir()]:
        content = path.read_bytes()
        start = (
            content.index(b"\x08\x00\x05\x00") if b"\x08\x00\x05\x00" in content else content.index(b"\x08\x00\x08\x00")
        )
        path.with_suffix(".IMA").write_bytes(content[start:])
        path.unlink()
    np.testing.assert_array_equal(read_scan(find_images(tmp_path)).image[0], VOLUME.T)


# ---- archives


def packed(tmp_path, name="s.zip", folder="s"):
    shutil.make_archive(str(tmp_path / name.removesuffix(".zip")), "zip", tmp_path, folder)
    shutil.rmtree(tmp_path / folder)
    return tmp_path / name


def test_a_zip_file_of_a_series_is_an_image(tmp_path, dicom_series):
    dicom_series("s/inner", VOLUME)
    path = packed(tmp_path)
    assert find_images(tmp_path) == find_images(path) == [path]
    scan = read_scan([path])
    np.testing.assert_array_equal(scan.image[0], VOLUME.T)
    assert (mask_name(path), on_disk(path)) == ("s.nii.gz", (path,))
    with archives.opened(scan.layout.paths[0]) as file:
        assert file.read(132)[128:] == b"DICM"
    assert size_of(Case("s", "s", (path,))).voxels == 48


def test_a_zip_file_of_several_series(tmp_path, dicom_series):
    dicom_series("s/a", VOLUME, **tags(1, "T1"))
    dicom_series("s/b", VOLUME + 100, **tags(2, "T2"))
    path = packed(tmp_path)
    assert names(tmp_path) == ["s.zip/s/a", "s.zip/s/b"]
    assert [read_scan([image]).image.min() for image in find_images(tmp_path)] == [0, 100]
    with pytest.raises(MedsegError, match=r"s.zip: it holds 2 images: a, b"):
        read_scan([path])


def test_members_that_lead_out_of_a_zip_file_are_passed_over(tmp_path, dicom_series):
    dicom_series("s", VOLUME)
    slices = sorted((tmp_path / "s").iterdir())
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for number, path in enumerate(slices):
            for place in ("", "/tmp/abs/", "../up/", "in/../../up/"):
                archive.writestr(f"{place}IM{number}", path.read_bytes())
    shutil.rmtree(tmp_path / "s")
    assert find_images(tmp_path) == [tmp_path / "s.zip"]
    np.testing.assert_array_equal(read_scan([tmp_path / "s.zip"]).image[0], VOLUME.T)


def test_damage_within_a_zip_file_is_told(tmp_path, dicom_series):
    dicom_series("s", VOLUME)
    path = packed(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") - 20] ^= 255  # in the last file's packed bytes
    path.write_bytes(content)
    with pytest.raises(MedsegError, match=r"s.zip"):
        read_scan(find_images(tmp_path))


def test_zip_files_that_are_none_or_bombs_or_locked(tmp_path, dicom_series, monkeypatch):
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as file:
        file.writestr("a.txt", "no scan")
    assert names(tmp_path) == ["broken.zip"]
    with pytest.raises(MedsegError, match=r"broken.zip: no readable zip file"):
        read_scan([tmp_path / "broken.zip"])
    monkeypatch.setattr(archives, "HARMLESS", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.dcm", bytes(10_000_000))
    with pytest.raises(MedsegError, match=r"bomb.zip: \d+ bytes unpack to 10000000; allowed are 200 times its size"):
        read_scan([tmp_path / "bomb.zip"])
    dicom_series("s", VOLUME)
    path = packed(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(MedsegError, match=r"s.zip: the zip file is encrypted"):
        read_scan([path])


# ---- cases


def test_masks_of_a_series_are_nifti_on_its_grid(tmp_path, dicom_series):
    dicom_series("s", VOLUME, direction=(0, -0.6, 0.8), ImageOrientationPatient=[1, 0, 0, 0, 0.8, 0.6])
    scan = read_scan([tmp_path / "s"])
    write_mask(tmp_path / "out" / mask_name(tmp_path / "s"), VOLUME.T % 3, scan)
    written = nib.load(tmp_path / "out" / "s.nii.gz")
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-5)
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "s.nii.gz", scan), VOLUME.T % 3)


def test_layouts_take_series(tmp_path, dicom_series):
    for patient in ("p1", "p2"):
        dicom_series(f"images/{patient}", VOLUME, SeriesInstanceUID=generate_uid())
        write_mask(tmp_path / "masks" / f"{patient}.nii.gz", VOLUME.T % 2, read_scan([tmp_path / "images" / patient]))
    (tmp_path / "cases.csv").write_text(
        "image,label\nimages/p1,masks/p1.nii.gz\nimages/p2,masks/p2.nii.gz\nimages/p3,masks/p2.nii.gz\n"
    )
    for dataset in (folder(tmp_path), table(tmp_path)):
        assert [case.id for case in dataset.cases] == ["p1", "p2"]
        assert dataset.cases[1].images == (tmp_path / "images" / "p2",)
    assert dataset.problems == (f"p3: {tmp_path / 'images/p3'} is missing",)


def test_slicer_s_segmentations_pair_up_beside_their_scans(tmp_path):
    import SimpleITK as sitk

    for name in ("a.nrrd", "a.seg.nrrd", "b.mha", "b_seg.nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(VOLUME % 2), str(tmp_path / name))
    dataset = folder(tmp_path, images=".", masks=".")
    pairs = [(case.id, case.images[0].name, case.labels[0].path.name) for case in dataset.cases]
    assert (pairs, dataset.problems) == ([("a", "a.nrrd", "a.seg.nrrd"), ("b", "b.mha", "b_seg.nrrd")], ())


def test_segmentations_of_dicom_are_masks_and_no_images(tmp_path, dicom_series, dicom_file):
    dicom_series("p1", VOLUME)
    dicom_file("p1.dcm", VOLUME.astype(np.uint8), Modality="SEG", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    assert names(tmp_path) == ["p1"]
    assert names(tmp_path, find_masks(tmp_path)) == ["p1.dcm"]
    dataset = folder(tmp_path, images=".", masks=".")
    assert [(case.id, case.files) for case in dataset.cases] == [("p1", (tmp_path / "p1", tmp_path / "p1.dcm"))]


def test_jobs_of_series(tmp_path, dicom_series):
    dicom_series("in/p1", VOLUME)
    dicom_series("in/p2/a", VOLUME, **tags(1, "T1"))
    dicom_series("in/p2/b", VOLUME, **tags(2, "v2.nii"))
    for path in [*(tmp_path / "in/p2").rglob("IM*")]:
        path.rename(tmp_path / "in/p2" / f"{path.parent.name}{path.name}")
    found, problems = find_scans(tmp_path / "in", tmp_path / "in" / "out", None)
    masks = [job.mask.relative_to(tmp_path / "in" / "out").as_posix() for job in found]
    assert (masks, problems) == (["p1.nii.gz", "p2/T1.nii.gz", "p2/v2.nii.nii.gz"], [])
    (alone,), _ = find_scans(tmp_path / "in" / "p1", tmp_path / "out", None)
    assert (alone.id, alone.mask) == ("p1", tmp_path / "out" / "p1.nii.gz")
    (named,), _ = find_scans(tmp_path / "in/p2/T1.dicom", tmp_path / "out", None)
    assert (named.id, named.images) == ("T1", (tmp_path / "in/p2/T1.dicom",))


def test_masks_of_a_sheared_scan_lie_on_its_grid(tmp_path, dicom_series):
    tilted = [1.0, 0, 0, 0, float(np.cos(0.3)), -float(np.sin(0.3))]
    dicom_series("s", np.repeat(VOLUME, 4, axis=1), ImageOrientationPatient=tilted)
    scan = read_scan([tmp_path / "s"])
    write_mask(tmp_path / "m.nii.gz", (scan.image[0] > 20).astype(int), scan)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii.gz", scan), scan.image[0] > 20)


def test_the_hash_of_a_case_follows_every_slice(tmp_path, dicom_series, dicom_file):
    dicom_series("s", VOLUME)
    case = Case("s", "s", (tmp_path / "s",))
    before = hash_of([], case)
    assert hash_of([], case) == before
    path = next((tmp_path / "s").glob("IM?2"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert hash_of([], case) != before
    assert exists(tmp_path / "s")
    assert not exists(tmp_path / "t")


def test_size_from_the_headers(tmp_path, dicom_series):
    dicom_series("s", VOLUME)
    size = size_of(Case("s", "s", (tmp_path / "s",)))
    assert (size.voxels, size.channels, size.voxel_volume) == (48, 1, pytest.approx(0.75))


def test_without_pydicom_the_extra_is_named(tmp_path, dicom_series, monkeypatch, caplog):
    dicom_series("s", VOLUME)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MedsegError, match=r"pip install 'medseg\[dicom\]'"):
        find_images(tmp_path)
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "a.nii.gz")
    assert names(tmp_path) == ["a.nii.gz"]
    assert "DICOM files are skipped: reading DICOM takes more packages: pip install 'medseg[dicom]'" in caplog.text
