"""The Medical Segmentation Decathlon's data sets."""

import json

import pytest

from medseg.errors import MedsegError
from medseg.io.layouts import decathlon

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


def test_labelled_cases_are_found(tmp_path):
    in_pairs(tmp_path, "a", "b", "._a")
    describe(tmp_path, modality={"0": "MRI"}, test=["./imagesTs/absent.nii.gz"], numTest=1)
    dataset = decathlon(tmp_path)
    assert [(case.id, case.group) for case in dataset.cases] == [("a", "a"), ("b", "b")]
    assert dataset.cases[0].images == (tmp_path / "imagesTr/a.nii.gz",)
    assert [file.path for file in dataset.cases[0].labels] == [tmp_path / "labelsTr/a.nii.gz"]
    assert dataset.labels == {"background": 0, "anterior": 1}
    assert (dataset.channels, dataset.modality, dataset.endings) == (("MRI",), ("mri",), None)
    assert dataset.problems == ()


TASKS = {
    "Task01_BrainTumour": (
        {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "mri",
    ),
    "Task02_Heart": ({"0": "MRI"}, {"0": "background", "1": "left atrium"}, "mri"),
    "Task03_Liver": ({"0": "CT"}, {"0": "background", "1": "liver", "2": "cancer"}, "ct"),
    "Task04_Hippocampus": ({"0": "MRI"}, {"0": "background", "1": "Anterior", "2": "Posterior"}, "mri"),
    "Task05_Prostate": ({"0": "T2", "1": "ADC"}, {"0": "background", "1": "PZ", "2": "TZ"}, "mri"),
    "Task06_Lung": ({"0": "CT"}, {"0": "background", "1": "cancer"}, "ct"),
    "Task07_Pancreas": ({"0": "CT"}, {"0": "background", "1": "pancreas", "2": "cancer"}, "ct"),
    "Task08_HepaticVessel": ({"0": "CT"}, {"0": "background", "1": "Vessel", "2": "Tumour"}, "ct"),
    "Task09_Spleen": ({"0": "CT"}, {"0": "background", "1": "spleen"}, "ct"),
    "Task10_Colon": ({"0": "CT"}, {"0": "background", "1": "colon cancer primaries"}, "ct"),
}
"""Channels and labels as the ten tasks' own dataset.json have them."""


@pytest.mark.parametrize("task", TASKS)
def test_all_ten_tasks(tmp_path, task):
    modality, labels, expected = TASKS[task]
    in_pairs(tmp_path, "case_1", "case_2")
    describe(tmp_path, ids=("case_1", "case_2"), modality=modality, labels=labels, tensorImageSize="4D", numTraining=2)
    dataset = decathlon(tmp_path)
    assert list(dataset.labels.items()) == [(name, value) for value, name in enumerate(labels.values())]
    assert dataset.channels == tuple(modality.values())
    assert dataset.modality == (expected,) * len(modality)
    assert len(dataset.cases) == 2


@pytest.mark.parametrize(
    "labels",
    [
        {"2": "tumour", "0": "background", "10": "edema"},
        {"edema": 10, "background": 0, "tumour": 2},
        {"tumour": 2, "edema": 10, "background": 0},
    ],
)
def test_labels_are_in_order_of_values(tmp_path, labels):
    in_pairs(tmp_path, "a", "b")
    describe(tmp_path, labels=labels)
    assert list(decathlon(tmp_path).labels.items()) == [("background", 0), ("tumour", 2), ("edema", 10)]


@pytest.mark.parametrize(
    ("key", "names", "channels", "modality"),
    [
        ("modality", {"1": "T1w", "0": "FLAIR", "2": "t1gd"}, ("FLAIR", "T1w", "t1gd"), ("mri",) * 3),
        ("channel_names", {"0": "CT"}, ("CT",), ("ct",)),
        ("modality", "CT", ("CT",), ("ct",)),
        ("modality", {"0": "CT", "1": "dose"}, ("CT", "dose"), None),
        ("description", "none", None, None),
    ],
)
def test_channels_have_a_modality_where_all_are_known(tmp_path, key, names, channels, modality):
    in_pairs(tmp_path, "a", "b")
    describe(tmp_path, **{key: names})
    assert (decathlon(tmp_path).channels, decathlon(tmp_path).modality) == (channels, modality)


@pytest.mark.parametrize(
    ("names", "endings"),
    [
        (["imagesTr/{}_t1.nii.gz", "imagesTr/{}_t1ce.nii.gz"], (("_t1",), ("_t1ce",))),
        (["imagesTr/{}_0000.nii.gz", "imagesTr/{}_0001.nii.gz"], (("_0000",), ("_0001",))),
        (["{}/flair.nii.gz", "{}/t2.nii.gz"], (("/flair",), ("/t2",))),
        (["T1/{}.nii.gz", "T2/{}.nii.gz"], None),
    ],
)
def test_an_image_may_be_a_list_of_files(tmp_path, names, endings):
    files = {case: [name.format(case) for name in names] for case in ("p1", "p2")}
    touch(tmp_path, *files["p1"], *files["p2"], "labelsTr/p1.nii.gz", "labelsTr/p2.nii.gz")
    describe(
        tmp_path, training=[{"image": files[case], "label": f"labelsTr/{case}.nii.gz"} for case in files], test=["x"]
    )
    dataset = decathlon(tmp_path)
    assert [case.id for case in dataset.cases] == ["p1", "p2"]
    assert [list(case.images) for case in dataset.cases] == [[tmp_path / f for f in files[case]] for case in files]
    assert dataset.endings == endings


def test_all_that_is_amiss_is_listed_beside_the_whole_cases(tmp_path):
    in_pairs(tmp_path, "a", "d")
    touch(tmp_path, "imagesTr/b.nii.gz")
    describe(tmp_path, ids=("a", "b", "c", "a", "d"))
    dataset = decathlon(tmp_path)
    assert [case.id for case in dataset.cases] == ["d"]
    assert dataset.problems == (
        f"b: {tmp_path}/labelsTr/b.nii.gz is missing",
        f"c: {tmp_path}/imagesTr/c.nii.gz is missing",
        f"c: {tmp_path}/labelsTr/c.nii.gz is missing",
        "a is listed 2 times",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": []}, "amiss is training"),
        ({"labels": ["a"]}, "amiss is labels"),
        ({"training": ["a.nii"]}, "'a.nii' in 'training' is no"),
        ({"training": [{"image": "../a.nii", "label": "b.nii"}]}, "'../a.nii' leaves the folder"),
        ({"training": [{"image": "/data/a.nii", "label": "b.nii"}]}, "'/data/a.nii' leaves the folder"),
        ({"training": [{"image": [], "label": "b.nii"}]}, r"\[\] is no file name"),
        (
            {"labels": {"background": 0, "whole tumour": [1, 2]}},
            r"whole numbers: whole tumour: \[1, 2\]. Regions are read by dataset=nnunet",
        ),
        ({"labels": {"background": 0, "tumour": "²"}}, "whole numbers: tumour: '²'"),
        ({"labels": {"background": 0, "tumour": "9" * 5000}}, "whole numbers: tumour"),
        ({"labels": {"0": "background", "--1": "tumour"}}, "whole numbers: 0: 'background', --1"),
        ({"training": None, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}, "use dataset=nnunet"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, content, message):
    in_pairs(tmp_path, "a", "b")
    describe(tmp_path, **content)
    with pytest.raises(MedsegError, match=message):
        decathlon(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(MedsegError, match=r"is not readable JSON|holds no mapping"):
        decathlon(tmp_path)


def test_without_dataset_json_it_says_what_is_there(tmp_path):
    touch(tmp_path, "images/a.png", "masks/a.png")
    with pytest.raises(MedsegError, match=r"dataset.json is missing.*there is images, masks\..*dataset=folder"):
        decathlon(tmp_path)


@pytest.mark.parametrize("entry", ["./imagesTs/c.nii.gz", {"image": "./imagesTs/c.nii.gz"}, ["imagesTs/c.nii.gz"]])
def test_test_cases_are_the_unlabelled_ones_as_far_as_they_are_there(tmp_path, entry):
    in_pairs(tmp_path, "a", "b")
    touch(tmp_path, "imagesTs/c.nii.gz", "imagesTs/._c.nii.gz")
    describe(tmp_path, test=[entry, "./imagesTs/absent.nii.gz", "./imagesTs/._c.nii.gz"])
    dataset = decathlon(tmp_path)
    assert [(case.id, case.images, case.labels) for case in dataset.unlabelled] == [
        ("c", (tmp_path / "imagesTs/c.nii.gz",), ())
    ]
    assert dataset.problems == ()
