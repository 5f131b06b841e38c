"""Folders of images and masks."""

import re

import nibabel as nib
import numpy as np
import pytest
from scan_files import read_scan

from medseg.errors import MedsegError
from medseg.io.datasets.annotations import read_labels
from medseg.io.datasets.dataset import label_map
from medseg.io.files.read import read_case
from medseg.io.layouts import folder


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def labels(root, case):
    """Return the label files of a case by their names below the root, with the values of their classes."""
    return [(file.path.relative_to(root).as_posix(), file.value) for file in case.labels]


def test_pairs_by_relative_name(tmp_path):
    touch(tmp_path, "images/site/a.jpg", "images/b.nii.gz", "images/c.png", "images/d.png", "images/._d.png")
    touch(tmp_path, "masks/site/a.png", "masks/b.nii", "masks/c_mask.png", "masks/d_segmentation.png")
    dataset = folder(tmp_path)
    assert {case.id: labels(tmp_path, case) for case in dataset.cases} == {
        "b": [("masks/b.nii", None)],
        "c": [("masks/c_mask.png", None)],
        "d": [("masks/d_segmentation.png", None)],
        "site/a": [("masks/site/a.png", None)],
    }
    assert (dataset.labels, dataset.channels, dataset.endings, dataset.modality) == (None, None, None, None)
    assert dataset.problems == ()


@pytest.mark.parametrize(
    ("images", "masks", "setting"),
    [
        (["p1.nii.gz", "p10.nii.gz"], ["p1_labels.nii.gz", "p10_labels.nii.gz"], {"mask_endings": ["_labels"]}),
        (["p1.nii", "p2.nii"], ["p1/organs.nii", "p2/organs.nii"], {"mask_endings": ["/organs"]}),
        (["p1.nii"], ["p1_liver.nii", "p1_cyst.nii"], {"class_masks": {"cyst": "_cyst", "liver": "_liver"}}),
        (
            ["p1_flair.nii", "p1_t1.nii", "p2_flair.nii", "p2_t1.nii"],
            ["p1.nii", "p2.nii"],
            {"channels": ["_flair", "_t1"]},
        ),
    ],
)
def test_names_that_go_on_are_told_with_the_setting_that_pairs_them(tmp_path, images, masks, setting):
    touch(tmp_path, *(f"images/{name}" for name in images), *(f"masks/{name}" for name in masks))
    dataset = folder(tmp_path)
    ((key, value),) = setting.items()
    items = f"[{','.join(value)}]" if isinstance(value, list) else ", ".join(f"{k}: {v}" for k, v in value.items())
    assert not dataset.cases
    assert f"dataset.{key}={items}" in dataset.problems[0].replace("'{", "").replace("}'", "")
    paired = folder(tmp_path, **setting)
    assert paired.cases
    assert paired.problems == ()


@pytest.mark.parametrize("masks", [["q1.nii"], ["p1a.nii"], ["p1_labels.nii", "q.nii"]])
def test_no_setting_is_told_that_would_not_pair_all(tmp_path, masks):
    touch(tmp_path, "images/p1.nii", *(f"masks/{name}" for name in masks))
    assert "dataset." not in " ".join(folder(tmp_path).problems)


def test_a_file_a_channel(tmp_path):
    touch(tmp_path, "scans/p1_flair.nii.gz", "scans/p1_t1.nii.gz", "truth/p1_seg.nii.gz")
    dataset = folder(tmp_path, "scans", "truth", ["_flair", "_t1"])
    assert [path.name for path in dataset.cases[0].images] == ["p1_flair.nii.gz", "p1_t1.nii.gz"]
    assert dataset.cases[0].id == "p1"
    assert (dataset.channels, dataset.modality) == (("flair", "t1"), ("mri", "mri"))
    assert dataset.endings == (("_flair",), ("_t1",))


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
    assert (case.id, case.images, labels(tmp_path, case)) == ("a", (tmp_path / files[0],), [(files[1], None)])


def test_all_that_does_not_pair_is_listed_beside_the_rest(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "images/c.png", "images/e.png", "images/e.jpg")
    touch(tmp_path, "masks/b.png", "masks/b_mask.png", "masks/c.png", "masks/d.png")
    dataset = folder(tmp_path)
    assert [case.id for case in dataset.cases] == ["c"]
    problems = "\n".join(dataset.problems)
    for problem in (
        "images/a.png has no mask",
        "b has several masks",
        "masks/d.png has no image",
        "differ in their suffix only",
    ):
        assert problem in problems
    assert len(dataset.problems) == 4


def test_a_root_that_is_the_folder_of_images_is_told_with_what_is_meant(tmp_path, monkeypatch):
    touch(tmp_path, "cells/images/a.png", "cells/masks/a.png", "mixed/a.png", "mixed/a_mask.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedsegError, match=r"has no folders. The folder above has it: give dataset\.root=cells\.$"):
        folder("cells/images")
    monkeypatch.chdir("cells/images")
    with pytest.raises(MedsegError, match=rf"give dataset\.root={re.escape(str(tmp_path / 'cells'))}\.$"):
        folder(".")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedsegError, match=r"Files lie in it directly: give dataset\.images=\. if they are the images"):
        folder("mixed")
    with pytest.raises(MedsegError, match=r"give dataset\.masks=\. if they are the masks"):
        folder("mixed", images=".")
    assert [case.id for case in folder("mixed", images=".", masks=".").cases] == ["a"]


def test_missing_folders_are_named_with_what_is_there(tmp_path):
    touch(tmp_path, "Images/a.png", "Labels/a.png")
    with pytest.raises(MedsegError, match=r"dataset.images=image: .* it has Images, Labels. Did you mean 'Images'"):
        folder(tmp_path, "image", "Labels")
    with pytest.raises(MedsegError, match=r"dataset.root=.*absent: there is no such folder"):
        folder(tmp_path / "absent")


ORGANS = {"liver": "_liver", "tumour": "_tumour"}


@pytest.mark.parametrize(
    ("class_masks", "files"),
    [
        (ORGANS, ["masks/p_liver.nii", "masks/p_tumour.nii"]),
        ({"liver": "/liver", "tumour": "/tumour"}, ["masks/p/liver.nii", "masks/p/tumour.nii"]),
        ({"liver": "liver/", "tumour": "tumour/"}, ["masks/liver/p.nii", "masks/tumour/p.nii"]),
        ({"liver": "_liver", "tumour": "_liver_tumour"}, ["masks/p_liver.nii", "masks/p_liver_tumour.nii"]),
    ],
)
def test_a_mask_a_class(tmp_path, class_masks, files):
    touch(tmp_path, "images/p.nii", *files, "masks/p_spleen.nii")
    dataset = folder(tmp_path, class_masks=class_masks)
    assert [labels(tmp_path, case) for case in dataset.cases] == [[(files[0], 1), (files[1], 2)]]
    assert list(dataset.labels.items()) == [("background", 0), ("liver", 1), ("tumour", 2)]
    assert dataset.problems == ()


def test_folders_a_case_as_totalsegmentator_writes_them(tmp_path):
    touch(tmp_path, "meta.csv", "s1/ct.nii.gz", "s2/ct.nii.gz", "s2/preview.png")
    touch(tmp_path, *(f"{case}/segmentations/{organ}.nii.gz" for case in ("s1", "s2") for organ in ("liver", "spleen")))
    dataset = folder(tmp_path, ".", ".", channels=["/ct"], class_masks={"liver": "/segmentations/liver"})
    assert [(case.id, labels(tmp_path, case)) for case in dataset.cases] == [
        ("s1", [("s1/segmentations/liver.nii.gz", 1)]),
        ("s2", [("s2/segmentations/liver.nii.gz", 1)]),
    ]
    assert dataset.cases[0].images == (tmp_path / "s1/ct.nii.gz",)
    assert (dataset.problems, dataset.endings, dataset.modality) == ((), (("/ct",),), ("ct",))


@pytest.mark.parametrize(
    ("missing_masks", "ids", "annotated", "problems"),
    [
        ("error", ["p"], [None], 2),
        ("empty", ["p", "q"], [None, None], 1),
        ("unannotated", ["p", "q"], [None, ("tumour",)], 1),
    ],
)
def test_what_a_missing_mask_means(tmp_path, missing_masks, ids, annotated, problems):
    touch(tmp_path, "images/p.nii", "images/q.nii", "images/r.nii")
    touch(tmp_path, "masks/p_liver.nii", "masks/p_tumour.nii", "masks/q_tumour.nii")
    dataset = folder(tmp_path, class_masks=ORGANS, missing_masks=missing_masks)
    assert [case.id for case in dataset.cases] == ids
    assert [case.annotated for case in dataset.cases] == annotated
    assert [labels(tmp_path, case) for case in dataset.cases][1:] == [[("masks/q_tumour.nii", 2)]] * (len(ids) - 1)
    assert len(dataset.problems) == problems
    assert any(line.startswith("r has no mask of liver (_liver), tumour (_tumour)") for line in dataset.problems)


def test_several_label_maps_in_their_order(tmp_path):
    touch(tmp_path, "images/p.nii", "images/q.nii")
    touch(tmp_path, "masks/p_lesions.nii", "masks/p_organs.nii", "masks/q_organs.nii", "masks/x_organs.nii")
    endings = ["_organs", "_lesions"]
    dataset = folder(tmp_path, mask_endings=endings)
    assert [labels(tmp_path, case) for case in dataset.cases] == [
        [("masks/p_organs.nii", None), ("masks/p_lesions.nii", None)]
    ]
    assert dataset.problems == ("q has no mask ending in _lesions", f"{tmp_path}/masks/x_organs.nii has no image")
    lenient = folder(tmp_path, mask_endings=endings, missing_masks="empty")
    assert labels(tmp_path, lenient.cases[1]) == [("masks/q_organs.nii", None)]


def test_masks_with_an_ending_of_their_own_beside_the_images(tmp_path):
    touch(tmp_path, "p.nii", "p_truth.nii", "q.nii", "q_truth.nii")
    dataset = folder(tmp_path, ".", ".", mask_endings=["_truth"])
    assert [(case.id, labels(tmp_path, case)) for case in dataset.cases] == [
        ("p", [("p_truth.nii", None)]),
        ("q", [("q_truth.nii", None)]),
    ]
    assert dataset.problems == ()


def test_two_masks_of_one_class_are_a_problem(tmp_path):
    touch(tmp_path, "images/p.nii", "masks/p_liver.nii", "masks/p_liver.nii.gz", "masks/p_tumour.nii")
    dataset = folder(tmp_path, class_masks=ORGANS)
    assert (dataset.cases, len(dataset.problems)) == ((), 1)
    assert "p_liver.nii.gz differ in their suffix only" in dataset.problems[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_masks": ORGANS, "mask_endings": ["_a"]}, "exclude each other"),
        ({"class_masks": {"liver": 1}}, "liver: 1 is no ending"),
        ({"class_masks": {"liver": "_a", "spleen": "_a"}}, "class_masks: '_a' is given twice"),
        ({"mask_endings": ["_a", "_a"]}, "mask_endings: '_a' is given twice"),
        ({"missing_masks": "unannotated"}, "needs dataset.class_masks"),
    ],
)
def test_unusable_arguments_are_refused(tmp_path, arguments, message):
    touch(tmp_path, "images/p.nii", "masks/p.nii")
    with pytest.raises(MedsegError, match=message):
        folder(tmp_path, **arguments)


def test_real_masks_one_a_class(real_data, tmp_path, opened):
    data = real_data / "readers/ct_many_labels"
    (tmp_path / "s1/segmentations").mkdir(parents=True)
    (tmp_path / "s1/ct.nii.gz").symlink_to(data / "example_ct_sm.nii.gz")
    for path in (data / "example_seg_fast").glob("*.nii.gz"):
        (tmp_path / "s1/segmentations" / path.name).symlink_to(path)
    wanted = {name: f"/segmentations/{name}" for name in ("liver", "spleen", "colon")}
    dataset = opened("folder", tmp_path, images=".", masks=".", channels=["/ct"], class_masks=wanted)
    (case,) = dataset.cases
    assert (dataset.problems, len(case.labels)) == ((), 3)
    indices = read_labels(case, label_map(dataset), read_case(case))
    masks = [np.asarray(nib.load(data / f"example_seg_fast/{name}.nii.gz").dataobj) > 0 for name in wanted]
    assert [int(mask.sum()) for mask in masks] == [39350, 9630, 12772]
    for place, mask in enumerate(masks, 1):
        covered = np.any(masks[place:], axis=0) if masks[place:] else False
        np.testing.assert_array_equal(indices == place, mask & np.logical_not(covered))


def test_real_label_map_of_many_classes(real_data, tmp_path, opened):
    data = real_data / "readers/ct_many_labels"
    for name, file in {"images": "example_ct_sm.nii.gz", "masks": "example_seg.nii.gz"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "s1.nii.gz").symlink_to(data / file)
    with pytest.raises(MedsegError, match=r"over 32 values.*dataset.labels="):
        label_map(opened("folder", tmp_path))
    values = np.unique(np.asarray(nib.load(data / "example_seg.nii.gz").dataobj)).tolist()
    merged = {"background": 0, "spleen": 1, "rest": [value for value in values if value > 1]}
    dataset = opened("folder", tmp_path, labels=merged)
    indices = read_labels(dataset.cases[0], label_map(dataset), read_case(dataset.cases[0]))
    truth = np.asarray(nib.load(data / "example_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(indices, np.select([truth == 1, truth > 1], [1, 2], 0))


def test_named_segments_are_masks_beside_their_images(tmp_path):
    import SimpleITK as sitk

    from medseg.io.files.write_masks import write_classes
    from medseg.io.labels import LabelMap

    body = np.zeros((4, 5, 6), np.uint8)
    body[1:3, 2:4, 1:5] = 1
    for name in ("images/a.nrrd", "images/b.nii.gz"):
        (tmp_path / "images").mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(body.T.astype(np.float32)), tmp_path / name)
    for image, segment in (("images/a.nrrd", "Tumor"), ("images/b.nii.gz", "tumor")):
        mask, classes = tmp_path / f"masks/{image[7]}.seg.nrrd", LabelMap({"background": 0, segment: 5})
        write_classes(mask, body, classes, read_scan([tmp_path / image]), "seg.nrrd")
    dataset = folder(tmp_path)
    assert {case.id: labels(tmp_path, case) for case in dataset.cases} == {
        "a": [("masks/a.seg.nrrd", None)],
        "b": [("masks/b.seg.nrrd", None)],
    }
    classes = label_map(dataset)
    assert classes.labels == {"background": 0, "Tumor": 1}
    for case in dataset.cases:
        np.testing.assert_array_equal(read_labels(case, classes, read_case(case)), body)


def test_images_without_masks_are_the_unlabelled_cases(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png")
    dataset = folder(tmp_path)
    assert [case.id for case in dataset.cases] == ["a"]
    assert [(case.id, case.labels) for case in dataset.unlabelled] == [("b", ())]


def test_a_folder_of_images_alone(tmp_path):
    touch(tmp_path, "site/a_t1.nii.gz", "site/a_t2.nii.gz", "b_t1.nii.gz")
    dataset = folder(tmp_path, images=".", masks=None, channels=["_t1", "_t2"])
    assert dataset.cases == ()
    assert [case.id for case in dataset.unlabelled] == ["site/a"]
    assert [path.name for path in dataset.unlabelled[0].images] == ["a_t1.nii.gz", "a_t2.nii.gz"]
    assert (dataset.channels, dataset.modality) == (("t1", "t2"), ("mri", "mri"))
    assert dataset.problems == ("b has no file ending in _t2",)
