"""What the config says of a data set goes before what its files say."""

import nibabel as nib
import numpy as np
import pytest
import yaml
from brats_phantom import write_brats

from medseg.config.schema import CONF, typed
from medseg.config.settings import DatasetSettings
from medseg.errors import MedsegError
from medseg.io.datasets.annotations import read_labels
from medseg.io.datasets.dataset import by_id, label_map, labels_by_value, open_scans
from medseg.io.files.read import read_case

ORGANS = {"liver": "_liver", "tumour": "_tumour", "cyst": "_cyst"}


def save(path, row):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.broadcast_to(np.array(row, np.uint8)[None, :, None], (2, len(row), 2))
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


@pytest.fixture
def organs(tmp_path):
    """Three cases with a mask a class, of which ``c`` has no cyst."""
    for case in "abc":
        save(tmp_path / f"images/{case}.nii", [1, 2, 3, 4])
        save(tmp_path / f"masks/{case}_liver.nii", [1, 1, 1, 0])
        save(tmp_path / f"masks/{case}_tumour.nii", [0, 1, 0, 0])
        save(tmp_path / f"masks/{case}_cyst.nii", [0, 0, 1, 0])
    (tmp_path / "masks/c_cyst.nii").unlink()
    return tmp_path


def line(dataset, name):
    (case,) = by_id(dataset.cases, (name,))
    return read_labels(case, label_map(dataset), read_case(case))[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        ({"background": 0, "organ": 1}, {"background": 0, "organ": 1}),
        ({"background": "background", "liver": "liver"}, {"background": 0, "liver": 1}),
        ({"background": 0, "lesion": ["tumour", "cyst"]}, {"background": 0, "lesion": [2, 3, 9]}),
        ({"background": ["background", 3], "all": ["liver", 2]}, {"background": [0, 3], "all": [1, 2]}),
        ({"background": 0, "a": "#ff0000", "ignore": "cyst"}, {"background": 0, "a": "#ff0000", "ignore": [3, 9]}),
    ],
)
def test_labels_may_name_the_layouts_classes(wanted, values):
    known = {"background": 0, "liver": 1, "tumour": 2, "cyst": [3, 9]}
    assert labels_by_value(wanted, known) == values


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"background": 0, "liver": 1}, "'livr' is no class of the data, which are background, liver. Did you mean"),
        (None, "which have no names of their own: give values"),
    ],
)
def test_unknown_names_are_refused(known, message):
    with pytest.raises(MedsegError, match=message):
        labels_by_value({"background": 0, "a": "livr"}, known)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, [1, 2, 3, 0]),
        ({"background": 0, "liver": 1, "lesion": ["tumour", "cyst"]}, [1, 2, 2, 0]),
        ({"background": ["background", "cyst"], "liver": "liver", "tumour": "tumour"}, [1, 2, 1, 0]),
        ({"background": 0, "liver": "liver", "tumour": "tumour", "ignore": "cyst"}, [1, 2, 255, 0]),
        ({"background": 0, "tumour": 2, "cyst": 3, "liver": 1}, [3, 1, 2, 0]),
    ],
)
def test_classes_are_merged_dropped_and_reordered(opened, organs, labels, expected):
    dataset = opened("folder", organs, class_masks=ORGANS, missing_masks="empty", labels=labels)
    assert line(dataset, "a") == expected


def test_a_merged_class_is_annotated_where_all_of_it_was(opened, organs):
    merged = {"background": 0, "liver": 1, "lesion": ["tumour", "cyst"]}
    dataset = opened("folder", organs, class_masks=ORGANS, missing_masks="unannotated", labels=merged)
    assert [case.annotated for case in dataset.cases] == [None, None, ("liver",)]
    assert label_map(dataset).reported == {"liver": (1,), "lesion": (2,)}
    assert label_map(dataset).outputs == ("liver", "lesion")


def test_a_table_of_annotated_classes(opened, organs):
    (organs / "annotated.csv").write_text("id,annotated\na,liver;lesion\nb,tumour; cyst\n")
    merged = {"background": 0, "liver": 1, "lesion": ["tumour", "cyst"]}
    dataset = opened(
        "folder",
        organs,
        class_masks=ORGANS,
        missing_masks="empty",
        labels=merged,
        annotated_file=str(organs / "annotated.csv"),
    )
    assert [case.annotated for case in dataset.cases] == [None, ("lesion",), None]  # all is not partly


def test_a_case_without_a_mask_of_what_nobody_looked_for_is_whole(opened, organs):
    (organs / "annotated.csv").write_text("id,annotated\na,liver\na,tumour\n")
    with pytest.raises(MedsegError, match=r"annotated\.csv lists a more than once"):
        opened("folder", organs, class_masks=ORGANS, annotated_file=str(organs / "annotated.csv"))


@pytest.mark.parametrize(
    ("regions", "order", "says"),
    [
        ({"A": ["liver"], "B": ["tumour"]}, ["tumour", "liver"], "A is painted as 'tumour', which is none of its"),
        ({"A": ["liver"], "B": ["liver", "tumour"]}, ["liver", "tumour"], "B is painted over A, a part of it"),
    ],
)
def test_an_order_of_painting_that_spoils_regions_is_refused(opened, organs, regions, order, says):
    with pytest.raises(MedsegError, match=says):
        opened("folder", organs, class_masks=ORGANS, missing_masks="empty", regions=regions, region_order=order)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "organ": [1, 2, 3]}, "a: annotated names livre; the classes are background, organ"),
        (None, "a: only some classes are annotated, so give the classes by dataset.labels"),
    ],
)
def test_annotated_classes_must_exist(opened, organs, labels, message):
    (organs / "annotated.csv").write_text("id,annotated\na,livre\n")
    with pytest.raises(MedsegError, match=message):
        opened("folder", organs, mask_endings=["_liver"], labels=labels, annotated_file=str(organs / "annotated.csv"))


def test_a_class_may_keep_its_name_and_take_in_another():
    """The case was annotated for the old class of that name only."""
    from medseg.io.case import Case
    from medseg.io.datasets.dataset import renamed

    case = Case("a", "a", (), annotated=("liver",))
    before = {"background": 0, "liver": 1, "tumour": 2}
    assert renamed(case, {"background": 0, "liver": [1, 2]}, before) == ()
    assert renamed(case, {"background": 0, "organ": 1, "tumour": 2}, before) == ("organ",)


def test_the_config_goes_before_the_layout(opened, organs):
    dataset = opened(
        "folder",
        organs,
        class_masks=ORGANS,
        missing_masks="empty",
        modality="ct",
        geometry="resample",
        group="^.",
        regions={"all": ["liver", "tumour", "cyst"], "lesion": ["tumour", "cyst"]},
        region_order=["liver", "cyst"],
    )
    assert dataset.modality == ("ct",)
    assert {case.geometry for case in dataset.cases} == {"resample"}
    assert label_map(dataset).outputs == ("all", "lesion")
    assert label_map(dataset).region_indices == (1, 3)


def test_classes_are_read_off_the_masks_where_nothing_names_them(opened, organs):
    assert label_map(opened("folder", organs, mask_endings=["_liver"])).labels == {"background": 0, "foreground": 1}


def test_no_case_at_all_is_refused_with_the_reasons(opened, organs):
    for image in organs.glob("images/*"):
        (organs / "masks" / f"other_{image.name}").write_bytes(b"")  # a mask of the class, but of no case
        image.rename(image.with_name(f"x{image.name}"))
    with pytest.raises(MedsegError, match=r"no cases found(.|\n)*xa has no mask of liver \(_liver\)"):
        opened("folder", organs, class_masks={"liver": "_liver"})


def test_an_ending_that_no_mask_has_is_refused_whatever_missing_masks_mean(opened, organs):
    with pytest.raises(MedsegError, match=r"no mask's name ends in _livre. There are, for example, a_cyst"):
        opened("folder", organs, class_masks={"liver": "_livre"}, missing_masks="empty")


def test_regions_of_classes_that_labels_do_not_have_are_explained(opened, tmp_path):
    root = write_brats(tmp_path / "b", "brats2018", cases=2, size=16, seed=0)
    with pytest.raises(
        MedsegError, match=r"labels has no edema, enhancing, necrosis, of .*regions WT, TC, ET.*regions=\{\}"
    ):
        opened("brats", root, generation=None, labels={"background": 0, "tumour": [1, 2, 4]})


def test_an_order_of_painting_needs_regions(opened, organs):
    with pytest.raises(MedsegError, match=r"region_order=\['liver'\]: there are no regions"):
        opened("folder", organs, class_masks=ORGANS, missing_masks="empty", region_order=["liver"])


def scans_of(root, **values):
    node = yaml.safe_load((CONF / "common" / "dataset.yaml").read_text("utf-8")) | values
    layout = {"_target_": "medseg.io.layouts.folder", "root": str(root), **node.pop("layout", {})}
    return open_scans(typed(DatasetSettings, {**node, "name": "scans", "root": str(root), "layout": layout}))


def test_scans_are_those_with_a_mask_and_those_without_and_no_mask_is_kept(organs):
    save(organs / "images/d.nii", [1, 2, 3, 4])
    layout = {"class_masks": ORGANS, "missing_masks": "unannotated"}
    dataset = scans_of(organs, layout=layout, group="^.", geometry="resample", modality="ct")
    assert [(case.id, case.labels, case.annotated, case.added) for case in dataset.cases] == [
        ("a", (), None, False),
        ("b", (), None, False),
        ("c", (), None, False),
        ("d", (), None, True),  # it only trains
    ]
    assert {(case.group == case.id, case.geometry) for case in dataset.cases} == {(True, "resample")}
    assert (dataset.labels, dataset.modality) == (None, ("ct",))


def test_scans_without_any_mask_are_split_like_others(organs):
    dataset = scans_of(organs, layout={"masks": None})
    assert [(case.id, case.added) for case in dataset.cases] == [("a", False), ("b", False), ("c", False)]


def test_no_scan_at_all_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(MedsegError, match="no scans here"):
        scans_of(tmp_path, layout={"masks": None})


@pytest.mark.parametrize(
    ("tags", "modality"),
    [
        (["CT", "CT"], ("ct",)),
        (["MR", "MR"], ("mri",)),
        (["CT", "MR"], None),
        (["OT", "OT"], None),
    ],
)
def test_dicom_files_tell_the_modality_where_they_agree(dicom_series, opened, tmp_path, tags, modality):
    for number, tag in enumerate(tags):
        volume = np.zeros((3, 5, 4), np.int16)
        dicom_series(f"images/{number}", volume, Modality=tag, SeriesInstanceUID=f"1.2.{number}")
        (tmp_path / "masks").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 3), np.uint8), np.eye(4)), tmp_path / f"masks/{number}.nii.gz")
    assert opened("folder", tmp_path).modality == modality
    assert opened("folder", tmp_path, modality="pet").modality == ("pet",)


def test_of_files_that_are_not_dicom_the_modality_is_not_known(opened, tmp_path, dicom_series):
    dicom_series("images/a", np.zeros((3, 5, 4), np.int16))
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in "ab" if folder == "masks" else "b":
            nib.save(nib.Nifti1Image(np.zeros((4, 5, 3), np.uint8), np.eye(4)), tmp_path / folder / f"{name}.nii.gz")
    assert opened("folder", tmp_path).modality is None
