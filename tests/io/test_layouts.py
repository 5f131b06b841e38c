"""Layouts: from a folder to cases."""

import json

import pytest

from medseg.errors import MedsegError
from medseg.io.files import read_mask, read_scan
from medseg.io.groups import assign_groups
from medseg.io.labels import LabelMap
from medseg.io.layouts import decathlon, folder, phantom

LABELS = {"0": "background", "1": "anterior"}


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def describe(root, *, ids=("a", "b"), **content):
    entries = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ids]
    (root / "dataset.json").write_text(json.dumps({"labels": LABELS, "training": entries} | content))


def in_pairs(root, *names):
    touch(root, *(f"{part}/{name}.nii.gz" for part in ("imagesTr", "labelsTr") for name in names))


def test_decathlon_cases(tmp_path):
    in_pairs(tmp_path, "a", "b")
    describe(tmp_path, modality={"0": "MRI"}, test=["./imagesTs/absent.nii.gz"])
    dataset = decathlon(tmp_path)
    assert [(case.id, case.group) for case in dataset.cases] == [("a", "a"), ("b", "b")]
    assert dataset.cases[0].images == (tmp_path / "imagesTr/a.nii.gz",)
    assert dataset.cases[0].label == tmp_path / "labelsTr/a.nii.gz"
    assert dataset.labels == {"background": 0, "anterior": 1}
    assert (dataset.channels, dataset.modality) == (("MRI",), ("mri",))


@pytest.mark.parametrize(
    "labels",
    [
        {"2": "tumour", "0": "background", "10": "edema"},
        {"edema": 10, "background": 0, "tumour": 2},
        {"tumour": 2, "edema": 10, "background": 0},
    ],
)
def test_decathlon_labels_are_in_order_of_values(tmp_path, labels):
    in_pairs(tmp_path, "a", "b")
    describe(tmp_path, labels=labels)
    assert list(decathlon(tmp_path).labels.items()) == [("background", 0), ("tumour", 2), ("edema", 10)]


@pytest.mark.parametrize(
    ("key", "names", "channels", "modality"),
    [
        ("modality", {"1": "T1w", "0": "FLAIR", "2": "t1gd"}, ("FLAIR", "T1w", "t1gd"), ("mri",) * 3),
        ("modality", {"0": "T2", "1": "ADC"}, ("T2", "ADC"), ("mri", "mri")),
        ("modality", {"0": "CT"}, ("CT",), ("ct",)),
        ("channel_names", {"0": "CT"}, ("CT",), ("ct",)),
        ("modality", "CT", ("CT",), ("ct",)),
        ("modality", {"0": "CT", "1": "PET"}, ("CT", "PET"), None),
        ("description", "none", None, None),
    ],
)
def test_decathlon_channels_have_a_modality_where_all_are_known(tmp_path, key, names, channels, modality):
    in_pairs(tmp_path, "a", "b")
    describe(tmp_path, **{key: names})
    assert (decathlon(tmp_path).channels, decathlon(tmp_path).modality) == (channels, modality)


def test_decathlon_lists_all_that_is_amiss(tmp_path):
    in_pairs(tmp_path, "a")
    touch(tmp_path, "imagesTr/b.nii.gz")
    describe(tmp_path, ids=("a", "b", "c", "a"))
    with pytest.raises(MedsegError) as error:
        decathlon(tmp_path)
    for problem in ("labelsTr/b.nii.gz is missing", "imagesTr/c.nii.gz is missing", "a is listed 2 times"):
        assert problem in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": []}, "amiss is training"),
        ({"labels": ["a"]}, "amiss is labels"),
        ({"training": ["a.nii"]}, "'a.nii' in 'training' is no"),
        ({"training": [{"image": "../a.nii", "label": "b.nii"}]}, "'../a.nii' leaves the folder"),
        ({"training": [{"image": "/data/a.nii", "label": "b.nii"}]}, "'/data/a.nii' leaves the folder"),
        ({"labels": {"background": 0, "whole tumour": [1, 2]}}, r"regions are not read.*whole tumour: \[1, 2\]"),
    ],
)
def test_decathlon_refuses_what_it_cannot_use(tmp_path, content, message):
    in_pairs(tmp_path, "a", "b")
    describe(tmp_path, **content)
    with pytest.raises(MedsegError, match=message):
        decathlon(tmp_path)


def test_decathlon_without_its_file_says_what_is_there(tmp_path):
    touch(tmp_path, "images/a.png", "masks/a.png")
    with pytest.raises(MedsegError, match=r"dataset.json is missing.*there is images, masks\..*dataset=folder"):
        decathlon(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(MedsegError, match="is not readable JSON"):
        decathlon(tmp_path)


def test_folder_pairs_by_relative_name(tmp_path):
    touch(tmp_path, "images/site/a.jpg", "images/b.nii.gz", "images/c.png", "images/d.png", "images/._d.png")
    touch(tmp_path, "masks/site/a.png", "masks/b.nii", "masks/c_mask.png", "masks/d_segmentation.png")
    dataset = folder(tmp_path)
    assert {case.id: case.label.relative_to(tmp_path).as_posix() for case in dataset.cases} == {
        "b": "masks/b.nii",
        "c": "masks/c_mask.png",
        "d": "masks/d_segmentation.png",
        "site/a": "masks/site/a.png",
    }
    assert (dataset.labels, dataset.channels, dataset.modality) == (None, None, None)


def test_folder_with_a_file_a_channel(tmp_path):
    touch(tmp_path, "scans/p1_flair.nii.gz", "scans/p1_t1.nii.gz", "truth/p1_seg.nii.gz")
    dataset = folder(tmp_path, "scans", "truth", ["_flair", "_t1"])
    assert [path.name for path in dataset.cases[0].images] == ["p1_flair.nii.gz", "p1_t1.nii.gz"]
    assert dataset.cases[0].id == "p1"
    assert (dataset.channels, dataset.modality) == (("flair", "t1"), ("mri", "mri"))


@pytest.mark.parametrize(
    ("images", "masks", "files"),
    [
        (".", "masks", ["a.png", "masks/a.png"]),
        ("images", ".", ["images/a.png", "a.png"]),
        (".", ".", ["a.png", "a_mask.png"]),
    ],
)
def test_images_and_masks_may_share_folders(tmp_path, images, masks, files):
    touch(tmp_path, *files)
    (case,) = folder(tmp_path, images, masks).cases
    assert (case.id, case.images, case.label) == ("a", (tmp_path / files[0],), tmp_path / files[1])


def test_folder_lists_all_that_does_not_pair(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    touch(tmp_path, "masks/b.png", "masks/b_mask.png", "masks/c.png", "masks/d.png")
    with pytest.raises(MedsegError) as error:
        folder(tmp_path)
    for problem in ("images/a.png has no mask", "b has several masks", "masks/d.png has no image"):
        assert problem in str(error.value)
    assert "c.png" not in str(error.value)


def test_missing_folders_are_named_with_what_is_there(tmp_path):
    touch(tmp_path, "Images/a.png", "Labels/a.png")
    with pytest.raises(MedsegError, match=r"dataset.images=image: .* it has Images, Labels. Did you mean 'Images'"):
        folder(tmp_path, "image", "Labels")
    with pytest.raises(MedsegError, match=r"dataset.root=.*absent: there is no such folder"):
        folder(tmp_path / "absent")


@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (2, 2), (3, 1), (3, 2)])
def test_phantom_is_written_once_and_read(tmp_path, dims, channels):
    arguments = {"root": tmp_path, "dims": dims, "channels": channels, "cases": 4, "size": 16, "seed": 0}
    dataset = phantom(**arguments)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert phantom(**arguments) == dataset
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written

    scan = read_scan(dataset.cases[0].images)
    assert (scan.image.ndim, len(scan.image)) == (dims + 1, channels)
    truth = LabelMap(dataset.labels).encode(read_mask(dataset.cases[0].label, scan), "truth")
    assert truth.max() > 0
    assert dataset.modality == ("mri",) * channels
    assert len({case.group for case in dataset.cases}) == 2


def test_real_layouts(real_data):
    hippocampus = decathlon(real_data / "hippocampus")
    assert len(hippocampus.cases) == 199
    assert hippocampus.labels == {"background": 0, "anterior": 1, "posterior": 2}
    cases = assign_groups(hippocampus.cases, file=str(real_data / "hippocampus/groups.csv"))
    assert len({case.group for case in cases}) < len(cases)

    slices = folder(real_data / "cardiac_slices", "Images", "Labels")
    assert len(slices.cases) == 131
    patients = {case.group for case in assign_groups(slices.cases, pattern="^(.+?)-IM-")}
    assert len(patients) == 8
    assert len(folder(real_data / "nuclei").cases) == 100
