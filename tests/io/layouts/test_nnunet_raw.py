"""nnU-Net's raw data sets, and that both agree on which can be used.

The verdicts are those of ``verify_dataset_integrity`` of nnunetv2 2.8.1 on the very folders that are written here.
"""

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.io.datasets.annotations import read_labels
from medseg.io.datasets.dataset import label_map
from medseg.io.datasets.splits import make_split
from medseg.io.files.read import find_images, read_case
from medseg.io.layouts import nnunet
from medseg.io.layouts.channels import cases_from_files

SHAPE = (8, 9, 10)
LABELS = {"background": 0, "organ": 1, "tumour": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def save(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(values.astype(np.uint8)).save(path)
    else:
        affine = np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine
        image = nib.Nifti1Image(values, affine)
        image.set_qform(affine, 1)
        nib.save(image, path)


def write(
    root, *, cases=("a", "b"), channels=("CT",), numbers=None, ending=".nii.gz", highest=2, shape=SHAPE, **content
):
    """Write a data set with all values from 0 to ``highest`` in every label; None leaves a key out."""
    rng = np.random.default_rng(0)
    for case in cases:
        for number in numbers or range(len(channels)):
            save(root / f"imagesTr/{case}_{number:04d}{ending}", rng.integers(0, 200, shape).astype(np.int16))
        label = rng.integers(0, highest + 1, shape[:2] if ending == ".png" else shape).astype(np.uint8)
        save(root / f"labelsTr/{case}{ending}", label)
    names = {str(place): name for place, name in enumerate(channels)}
    description = {"channel_names": names, "labels": LABELS, "numTraining": len(cases), "file_ending": ending} | content
    kept = {key: value for key, value in description.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(kept))


def edit(root, **content):
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


def relabel(root, change, affine=None):
    path = root / "labelsTr/b.nii.gz"
    save(path, change(np.asarray(nib.load(path).dataobj)), affine)


def elsewhere(root, **entry):
    """Move all files and list them under the key "dataset"."""
    write(root)
    for name in ("imagesTr", "labelsTr"):
        (root / name).rename(root / f"my {name}")
    cases = {
        name: {"images": [f"my imagesTr/{name}_0000.nii.gz"], "label": f"./my labelsTr/{name}.nii.gz"} for name in "ab"
    }
    edit(root, dataset=cases | ({"a": cases["a"] | entry} if entry else {}))


def plain(root):
    write(root)


def regions(root):
    write(root, labels=REGIONS, regions_class_order=[1, 2, 3], highest=3)


def regions_of_one_value_in_a_list(root):
    write(root, labels=REGIONS | {"enhancing": [3]}, regions_class_order=[1, 2, 3], highest=3)


def regions_and_ignore(root):
    write(root, labels=REGIONS | {"ignore": 4}, regions_class_order=[1, 2, 3], highest=4)


def lists_of_one_value(root):
    write(root, labels={"background": 0, "organ": [1], "tumour": [2]})


def regions_without_order(root):
    write(root, labels=REGIONS, highest=3)


def regions_with_short_order(root):
    write(root, labels=REGIONS, regions_class_order=[1, 2], highest=3)


def ignore(root):
    write(root, labels=LABELS | {"ignore": 3}, highest=3)


def ignore_in_between(root):
    write(root, labels={"background": 0, "ignore": 1, "organ": 2})


def ignore_above_a_gap(root):
    write(root, labels=LABELS | {"ignore": 9})


def ignore_in_a_list(root):
    write(root, labels=LABELS | {"ignore": [3]}, highest=3)


def several_channels(root):
    write(root, channels=("T2", "ADC"))


def channel_numbers_with_a_gap(root):
    write(root, channels=("T2", "ADC"), numbers=(0, 2))


def more_files_than_channels(root):
    write(root, channels=("T2",), numbers=(0, 1))


def missing_channel(root):
    write(root, channels=("T2", "ADC"))
    (root / "imagesTr/b_0001.nii.gz").unlink()


def uncompressed(root):
    write(root, ending=".nii")


def pictures(root):
    write(root, ending=".png", shape=(20, 30), channels=("grey",))


def coloured_pictures(root):
    write(root, ending=".png", shape=(20, 30, 3), channels=("R", "G", "B"), numbers=(0,))


def coloured_pictures_as_one_channel(root):
    write(root, ending=".png", shape=(20, 30, 3), channels=("R",))


def four_dimensions(root):
    write(root, channels=("T2", "ADC"), numbers=(0,))
    for path in (root / "imagesTr").iterdir():
        save(path, np.random.default_rng(0).normal(size=(*SHAPE, 2)).astype(np.float32))


def files_listed(root):
    elsewhere(root)


def files_listed_in_full(root):
    elsewhere(root, label=str(root / "my labelsTr/a.nii.gz"))


def files_listed_but_missing(root):
    elsewhere(root, label="labels/a.nii.gz")


def files_listed_without_label(root):
    elsewhere(root)
    edit(root, dataset={name: {"images": [f"my imagesTr/{name}_0000.nii.gz"]} for name in "ab"})


def wrong_number_of_cases(root):
    write(root, numTraining=3)


def missing_label(root):
    write(root)
    (root / "labelsTr/b.nii.gz").unlink()


def label_without_image(root):
    write(root)
    (root / "imagesTr/b_0000.nii.gz").unlink()
    edit(root, numTraining=1)


def labels_with_a_gap(root):
    write(root, labels={"background": 0, "organ": 1, "tumour": 4}, highest=1)


def undeclared_value(root):
    write(root)
    relabel(root, lambda values: np.where(values == 2, 3, values).astype(np.uint8))


def value_that_does_not_occur(root):
    write(root, highest=1)


def float_label(root):
    write(root)
    relabel(root, lambda values: values.astype(np.float32))


def fractional_label(root):
    write(root)
    relabel(root, lambda values: values.astype(np.float32) / 2)


def not_a_number(root):
    write(root)
    values = np.ones(SHAPE, np.float32)
    values[1, 2, 3] = np.nan
    save(root / "imagesTr/b_0000.nii.gz", values)


def not_a_number_uncompressed(root):
    write(root, ending=".nii")
    values = np.ones(SHAPE, np.float32)
    values[1, 2, 3] = np.nan
    save(root / "imagesTr/b_0000.nii", values)


def other_shape(root):
    write(root)
    relabel(root, lambda values: values[1:])


def other_spacing(root):
    write(root)
    relabel(root, lambda values: values, np.diag([1.0, 2.0, 4.0, 1.0]))


def other_origin(root):
    write(root)
    relabel(root, lambda values: values, np.array([[1, 0, 0, 30], [0, 2, 0, 5], [0, 0, 3, 7], [0, 0, 0, 1.0]]))


def other_direction(root):
    write(root)
    relabel(root, lambda values: values, np.diag([-1.0, -2.0, 3.0, 1.0]))


def channel_of_other_shape(root):
    write(root, channels=("T2", "ADC"))
    save(root / "imagesTr/b_0001.nii.gz", np.ones((8, 9, 11), np.int16))


def channel_of_other_origin(root):
    write(root, channels=("T2", "ADC"))
    moved = np.diag([1.0, 2.0, 3.0, 1.0])
    moved[:3, 3] = 40
    save(root / "imagesTr/b_0001.nii.gz", np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16), moved)


def no_background(root):
    write(root, labels={"organ": 1, "tumour": 2})


def background_is_not_zero(root):
    write(root, labels={"background": 1, "organ": 0, "tumour": 2})


def background_in_a_list(root):
    write(root, labels=LABELS | {"background": [0]})


def no_channel_names(root):
    write(root, channel_names=None)


def channel_names_in_a_list(root):
    write(root, channel_names=["CT"])


def no_file_ending(root):
    write(root, file_ending=None)


def other_file_ending(root):
    write(root, file_ending=".nii")


def no_labels_folder(root):
    write(root)
    shutil.rmtree(root / "labelsTr")


def name_without_channel_number(root):
    write(root)
    (root / "imagesTr/b_0000.nii.gz").rename(root / "imagesTr/b.nii.gz")


def values_in_quotes(root):
    write(root, labels={"background": 0, "organ": "1", "tumour": "2"})


def hidden_files(root):
    write(root)
    for name in ("imagesTr/._b_0000.nii.gz", "labelsTr/._b.nii.gz"):
        (root / name).write_bytes(b"Mac OS X")


def two_classes_of_one_value(root):
    write(root, labels=LABELS | {"lesion": 2})


def background_only(root):
    write(root, labels={"background": 0}, highest=0)


def channel_numbers_that_differ(root):
    write(root, channels=("T2", "ADC"))
    (root / "imagesTr/b_0001.nii.gz").rename(root / "imagesTr/b_0002.nii.gz")


def infinite(root):
    write(root)
    values = np.ones(SHAPE, np.float32)
    values[1, 2, 3] = np.inf
    save(root / "imagesTr/b_0000.nii.gz", values)


ACCEPTED = [
    plain,
    regions,
    regions_of_one_value_in_a_list,
    regions_and_ignore,
    lists_of_one_value,
    ignore,
    several_channels,
    channel_numbers_with_a_gap,
    uncompressed,
    pictures,
    coloured_pictures,
    files_listed,
    files_listed_in_full,
    label_without_image,
    value_that_does_not_occur,
    values_in_quotes,
    float_label,
    other_origin,
    other_direction,
    channel_of_other_origin,
]

REFUSED = {
    regions_without_order: "regions_class_order=None must give",
    regions_with_short_order: r"regions_class_order=\[1, 2\] must give one label value for each of the 3 regions",
    ignore_in_between: "'ignore' must be the highest label",
    ignore_above_a_gap: "'ignore' must be the highest label, 3, not 9",
    ignore_in_a_list: "'ignore' must be one whole number",
    more_files_than_channels: r"a has 2 image file\(s\) of 1 channel\(s\), dataset.json names 1",
    missing_channel: r"b has 1 image file\(s\) of 1 channel\(s\), dataset.json names 2",
    coloured_pictures_as_one_channel: r"b has 1 image file\(s\) of 3 channel\(s\), dataset.json names 1",
    files_listed_but_missing: "a: .*labels/a.nii.gz is missing",
    files_listed_without_label: "a: .* is no {'images'",
    wrong_number_of_cases: "numTraining is 3, there are 2 cases",
    missing_label: "b: .*labelsTr/b.nii.gz is missing",
    labels_with_a_gap: r"without gaps, not \[0, 1, 4\]",
    undeclared_value: r"b.nii.gz: .*none of the declared classes: 3\.",
    fractional_label: "b.nii.gz: .* hold no label",
    not_a_number_uncompressed: "b_0000.nii: 1 of 720 voxels are NaN",
    other_shape: "b.nii.gz: its shape",
    other_spacing: "b.nii.gz: its (spacing|affine)",
    channel_of_other_shape: "b_0001.nii.gz: its shape",
    no_background: "needs the entry 'background': 0",
    background_is_not_zero: "needs the entry 'background': 0",
    background_in_a_list: "needs the entry 'background': 0",
    no_channel_names: "missing is channel_names",
    channel_names_in_a_list: "channel_names must be a mapping",
    no_file_ending: "missing is file_ending",
    other_file_ending: "no cases found",
    no_labels_folder: "labelsTr: there is no such folder",
    name_without_channel_number: "b.nii.gz: the name has no channel number",
}

STRICTER = {
    not_a_number: "NaN or infinite",  # ITK's reader makes zeros of them, without a word
    infinite: "NaN or infinite",
    two_classes_of_one_value: "2 is the value of more than one class",
    background_only: "1 classes",
    channel_numbers_that_differ: "b has the channel numbers 0000 0002, the others have 0000 0001",
}
"""What nnU-Net accepts and nobody could learn from."""

MILDER = [
    hidden_files,  # nnU-Net counts macOS's companions of files as cases
    four_dimensions,  # its reader takes them, its check fails on comparing origins
]


def complaints(opened, root):
    """Return what is amiss with a data set, opened and every case of it read; nothing where all is well."""
    try:
        dataset = opened("nnunet", root)
        classes = label_map(dataset)
    except MedsegError as error:
        return [str(error)]
    found = list(dataset.problems)
    for case in dataset.cases:
        try:
            read_labels(case, classes, read_case(case))
        except MedsegError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("made", [*ACCEPTED, *MILDER], ids=lambda made: made.__name__)
def test_what_nnunet_accepts_is_accepted(opened, tmp_path, made):
    made(tmp_path)
    assert complaints(opened, tmp_path) == []


@pytest.mark.parametrize("made", [*REFUSED, *STRICTER], ids=lambda made: made.__name__)
def test_what_nnunet_refuses_is_refused_with_a_reason(opened, tmp_path, made):
    made(tmp_path)
    found = complaints(opened, tmp_path)
    assert any(re.search((REFUSED | STRICTER)[made], line, re.DOTALL) for line in found), found


def test_whole_cases_are_there_in_spite_of_the_others(opened, tmp_path):
    write(tmp_path, cases=("a", "b", "c"), channels=("T2", "ADC"), numTraining=9)
    (tmp_path / "imagesTr/a_0001.nii.gz").unlink()
    (tmp_path / "labelsTr/b.nii.gz").unlink()
    dataset = opened("nnunet", tmp_path)
    assert [case.id for case in dataset.cases] == ["c"]
    assert len(dataset.problems) == 3


def test_channels_and_files(opened, tmp_path):
    write(tmp_path, channels=("T2", "ADC"))
    dataset = opened("nnunet", tmp_path)
    case = dataset.cases[0]
    assert case.images == (tmp_path / "imagesTr/a_0000.nii.gz", tmp_path / "imagesTr/a_0001.nii.gz")
    assert [file.path for file in case.labels] == [tmp_path / "labelsTr/a.nii.gz"]
    assert (case.id, case.group, case.geometry) == ("a", "a", "warn")
    assert (dataset.channels, dataset.modality) == (("T2", "ADC"), ("mri", "mri"))
    assert dataset.labels == {"background": 0, "organ": 1, "tumour": 2}
    assert (dataset.regions, dataset.split_file) == (None, None)


@pytest.mark.parametrize("channels", [("CT",), ("T2", "ADC")])
def test_images_to_predict_are_found_by_the_same_names(opened, tmp_path, channels):
    write(tmp_path, channels=channels)
    endings = opened("nnunet", tmp_path).endings
    (tmp_path / "imagesTr").rename(tmp_path / "imagesTs")
    cases, problems = cases_from_files(tmp_path / "imagesTs", find_images(tmp_path / "imagesTs"), endings)
    assert ([case.id for case in cases], problems) == (["a", "b"], [])
    assert [len(case.images) for case in cases] == [len(channels)] * 2


def test_a_single_channel_needs_no_number_to_be_predicted(opened, tmp_path):
    write(tmp_path)
    cases, problems = cases_from_files(tmp_path, [tmp_path / "scan.nii.gz"], opened("nnunet", tmp_path).endings)
    assert ([case.id for case in cases], problems) == (["scan"], [])


def test_regions_are_unions_of_classes_painted_in_order(opened, tmp_path):
    regions_and_ignore(tmp_path)
    dataset = opened("nnunet", tmp_path)
    classes = label_map(dataset)
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2, "enhancing": 3, "ignore": 4}
    assert classes.reported == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert [classes.values[index] for index in classes.region_indices] == [1, 2, 3]


def test_the_order_of_painting_is_nnunets_own(opened, tmp_path):
    unions = {"background": 0, "et": 2, "wt": [1, 2, 3], "tc": [2, 3]}
    write(tmp_path, labels=unions, regions_class_order=[2, 1, 3], highest=3)
    classes = label_map(opened("nnunet", tmp_path))
    assert list(classes.reported) == ["et", "wt", "tc"]
    assert [classes.values[index] for index in classes.region_indices] == [2, 1, 3]


def test_a_region_may_be_painted_with_no_other_value_than_a_label(opened, tmp_path):
    write(tmp_path, labels=REGIONS, regions_class_order=[1, 2, 7], highest=3)
    with pytest.raises(MedsegError, match=r"regions_class_order=\[1, 2, 7\]"):
        opened("nnunet", tmp_path)


def test_regions_can_be_left_for_classes(opened, tmp_path):
    regions(tmp_path)
    assert label_map(opened("nnunet", tmp_path, regions={})).outputs == (
        "background",
        "label_1",
        "label_2",
        "enhancing",
    )


def test_its_own_split_is_taken_along(opened, tmp_path, caplog):
    write(tmp_path, cases=("a", "b", "c", "d"))
    folds = [{"train": ["a", "b", "c"], "val": ["d"]}, {"train": ["b", "c", "d"], "val": ["a"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    dataset = opened("nnunet", tmp_path)
    caplog.set_level("INFO")
    split = make_split(dataset.cases, val=0.25, test=0.25, fold=1, data_split=dataset.split_file)
    assert (split.train, split.val, split.test) == (("b", "c", "d"), ("a",), ())
    assert "fold 1 of" in caplog.text


@pytest.mark.parametrize(
    ("ending", "message"),
    [(".dcm", r"file_ending='.dcm' is not read. Convert to one of .nii.gz"), (3, "file_ending=3 is not read")],
)
def test_file_endings_that_are_not_read_are_named(tmp_path, ending, message):
    write(tmp_path, file_ending=ending)
    with pytest.raises(MedsegError, match=message):
        nnunet(tmp_path)


def test_a_decathlon_is_told_from_it(tmp_path):
    description = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "organ"}, "training": []}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(MedsegError, match="use dataset=decathlon"):
        nnunet(tmp_path)


@pytest.mark.parametrize("labels", [{"background": 0, "organ": "liver"}, {"background": 0, "organ": []}, [0, 1], {}])
def test_labels_of_other_kinds_are_refused(tmp_path, labels):
    write(tmp_path, labels=labels)
    with pytest.raises(MedsegError, match="label"):
        nnunet(tmp_path)


def test_test_images_are_the_unlabelled_cases(tmp_path):
    write(tmp_path, channels=("T1", "T2"))
    for name in ("c_0000", "c_0001", "d_0000", "d_0001", "d_0002", "a_0000", "a_0001", "stray"):
        save(tmp_path / f"imagesTs/{name}.nii.gz", np.zeros(SHAPE, np.int16))
    dataset = nnunet(tmp_path)
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert [(case.id, [path.name for path in case.images], case.labels) for case in dataset.unlabelled] == [
        ("c", ["c_0000.nii.gz", "c_0001.nii.gz"], ())
    ]
    assert dataset.problems == ()
