"""Named segments and classes: which is meant for which, and what codes classes have."""

import numpy as np
import pytest

from medseg.config.settings import KEYS
from medseg.errors import MedsegError
from medseg.io.case import Case, Dataset, LabelFile, Scan
from medseg.io.datasets.dataset import label_map
from medseg.io.files.write_masks import FORMATS, mask_file_name, write_classes
from medseg.io.labels import IGNORE, LabelMap
from medseg.io.segments.segmentation import class_indices
from medseg.io.segments.terminology import Code, describe

CLASSES = LabelMap({"background": 0, "Liver": 4, "tumour": 2, "ignore": 9})


def case(path, **options):
    return Case(path.stem, path.stem, (), (LabelFile(path),), **options)


def segmented(path, names):
    """A file of a segment a slice."""
    indices = np.zeros((3, 4, len(names)), np.uint8)
    indices[:] = np.arange(1, len(names) + 1)
    labels = LabelMap({"background": 0} | {name: index for index, name in enumerate(names, 1)})
    write_classes(path, indices, labels, Scan(np.zeros((1, *indices.shape), np.float32), np.eye(4)), "seg.nrrd")
    return path


def test_segments_are_matched_by_name_pattern_and_case():
    renamed = {"gtv*": "tumour", "doubt": "ignore", "Body": None, "L[0-9]": "Liver"}
    found = class_indices(["LIVER", "GTV-1", "Doubt", "body", "L2", "Background"], renamed, CLASSES, "x")
    assert found == {"LIVER": 1, "GTV-1": 2, "Doubt": IGNORE, "body": 0, "L2": 1, "Background": 0}
    with pytest.raises(MedsegError, match=r"x: the segments 'livr' are none of .*Liver, tumour.* Did you mean 'Liver'"):
        class_indices(["livr", "tumour"], {}, CLASSES, "x")
    with pytest.raises(MedsegError, match=r"x: the segments 'a' are none"):
        class_indices(["a"], {"a": "spleen"}, CLASSES, "x")


def test_patterns_may_be_given_on_the_command_line():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override("dataset.segments={GTV*: tumour, L 1: Liver, *: null}")
    assert override.value() == {"GTV*": "tumour", "L 1": "Liver", "*": None}


def test_without_declared_classes_they_are_named_like_the_segments(tmp_path):
    files = [
        segmented(tmp_path / "a.seg.nrrd", ["Liver", "body"]),
        segmented(tmp_path / "b.seg.nrrd", ["cyst", "liver"]),
    ]
    cases = tuple(case(path, segments={"body": None, "cyst": "lesion"}) for path in files)
    assert label_map(Dataset(cases)).labels == {"background": 0, "Liver": 1, "lesion": 2}


def test_named_and_plain_masks_need_declared_classes(tmp_path):
    import nibabel as nib

    path = tmp_path / "b.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(8, dtype=np.uint8).reshape(2, 2, 2) % 2, np.eye(4)), path)
    cases = (case(segmented(tmp_path / "a.seg.nrrd", ["Liver"])), case(path))
    with pytest.raises(MedsegError, match=r"some masks name their segments Liver, others hold the values 0, 1"):
        label_map(Dataset(cases))


def test_codes_of_classes():
    given = {"value": 10200004, "scheme": "SCT", "meaning": "Liver"}
    organ = {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"}
    liver, tumour = describe(CLASSES, {"Liver": given | {"category": organ}})
    assert (liver.index, liver.name, liver.value, liver.code) == (1, "Liver", 4, Code("10200004", "SCT", "Liver"))
    assert liver.category == Code("123037004", "SCT", "Anatomical Structure")
    assert (tumour.code.scheme, tumour.code.meaning, len(tumour.code.value)) == ("99MEDSEG", "tumour", 9)
    assert tumour.code == describe(LabelMap({"background": 0, "tumour": 1}))[0].code


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"livr": {}}, r"codes: 'livr' is none of the classes Liver, tumour\. Did you mean 'Liver'"),
        ({"Liver": "10200004"}, r"codes\.Liver=10200004: a code is"),
        ({"Liver": {"value": "1", "scheme": "SCT"}}, r"codes\.Liver=.*: a code is"),
        ({"Liver": {"value": "1", "scheme": "SCT", "meaning": "x" * 65}}, r"has 65 characters; DICOM takes 1 to 64"),
        ({"Liver": {"value": "", "scheme": "SCT", "meaning": "x"}}, r"'' has 0 characters"),
    ],
)
def test_wrong_codes(codes, message):
    with pytest.raises(MedsegError, match=message):
        describe(CLASSES, codes)


def test_names_of_masks(tmp_path):
    from pathlib import Path

    names = {format: mask_file_name(Path("x/a.b.nii.gz"), format) for format in FORMATS}
    assert names == {
        "image": "a.b.nii.gz",
        "nifti": "a.b.nii.gz",
        "seg.nrrd": "a.b.seg.nrrd",
        "rtstruct": "a.b.dcm",
        "dicom_seg": "a.b.dcm",
    }
    assert mask_file_name(Path("a.JPG"), "image") == "a.png"
    assert KEYS["format"].allowed == FORMATS


def test_pictures_have_no_place_for_named_formats(tmp_path):
    picture = Scan(np.zeros((1, 4, 4), np.float32), np.eye(4), unit="px")
    with pytest.raises(MedsegError, match=r"format=seg\.nrrd: its image is a 2D image"):
        write_classes(tmp_path / "a.seg.nrrd", np.ones((4, 4), np.uint8), CLASSES, picture, "seg.nrrd")
    write_classes(tmp_path / "a.nii.gz", np.ones((4, 4), np.uint8), CLASSES, picture, "nifti")
    import nibabel as nib

    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii.gz").get_fdata().squeeze(), np.full((4, 4), 4))
