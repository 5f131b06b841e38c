"""What is odd in data sets that were made so, and nothing in those that were not."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg.io.case import Case, LabelFile
from medseg.io.datasets.splits import Split
from medseg.io.labels import UNLABELLED, LabelMap
from medseg.io.layouts.synthetic import LABELS, make_phantom
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint
from medseg.preprocessing.quality.check_dataset import check_dataset, examine
from medseg.preprocessing.quality.issues import Issue, in_brief, in_full, on_a_line
from medseg.preprocessing.quality.warnings import classes_by_subset, data_warnings, unnamed_ct

CLASSES = LabelMap(dict(LABELS))
CASES = 6


@pytest.fixture(params=[2, 3])
def phantom(request, tmp_path):
    """Return ``phantom(change)``, which writes six phantoms in 2D or 3D and returns what is said of them.

    ``change(number, image, truth)`` alters a case (C, *spatial) and (*spatial) in place.
    """

    def said(change=lambda number, image, truth: None):
        cases = []
        for number in range(CASES):
            scan, truth = make_phantom(number, dims=request.param, channels=1, size=64, seed=3)
            change(number, scan.image, truth)
            paths = [tmp_path / f"{kind}{number}{'.png' if request.param == 2 else '.nii.gz'}" for kind in ("i", "m")]
            for path, values in zip(paths, (scan.image[0], truth), strict=True):
                if request.param == 2:
                    Image.fromarray(values.astype(np.uint8)).save(path)
                else:
                    nib.save(nib.Nifti1Image(values, scan.affine), path)
            cases.append(Case(f"c{number}", f"c{number}", (paths[0],), (LabelFile(paths[1]),)))
        usable, _ = examine(cases, CLASSES)
        assert len(usable.cases) == CASES
        return data_warnings(usable, CLASSES)

    return said


def test_phantoms_are_in_order(phantom):
    assert phantom() == []


def test_a_speck_is_found(phantom):
    def add_speck(number, image, truth):
        if number in (1, 4):
            middle = tuple(length // 2 for length in truth.shape)
            near = np.argwhere(truth == 1).min(axis=0) - 3 if number == 4 else np.argwhere(truth == 1).max(axis=0) + 3
            truth[tuple(near)] = 1
            assert image[0][middle] > 0

    (finding,) = phantom(add_speck)
    assert (finding.kind, finding.cases) == ("specks", ("c1", "c4"))
    assert finding.text.startswith("edema: specks")
    assert all(detail.startswith("1, at voxel [") for detail in finding.details)


def test_labels_outside_the_body_are_found(phantom):
    def label_the_corner(number, image, truth):
        if number == 2:
            truth[(slice(0, 6),) * truth.ndim] = 3

    outside = [finding for finding in phantom(label_the_corner) if finding.kind == "outside"]
    assert [(finding.text, finding.cases) for finding in outside] == [("enhancing: labelled outside the body", ("c2",))]
    assert outside[0].details[0].split(" of ")[0] in ("36", "216")


def test_air_that_is_labelled_everywhere_is_meant(phantom):
    def label_the_corner(number, image, truth):
        truth[truth == 3] = 0
        truth[(slice(0, 6),) * truth.ndim] = 3

    assert phantom(label_the_corner) == []


def volume_case(folder, name, image, mask, spacing=1.0, mask_affine=None, edit=None):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    saved = nib.Nifti1Image(image.astype(np.float32), affine)
    if edit:
        edit(saved)
    nib.save(saved, folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(mask, affine if mask_affine is None else mask_affine), folder / f"{name}_m.nii.gz")
    return Case(name, name, (folder / f"{name}.nii.gz",), (LabelFile(folder / f"{name}_m.nii.gz"),))


def balls(folder, count=25, **changes):
    """Write cubes of 8 voxels a side in noise; ``changes`` are arguments of single cases by number, as ``c3=...``."""
    cases = []
    for number in range(count):
        image = np.random.default_rng(number).uniform(0, 100, (14, 15, 16))
        mask = np.zeros(image.shape, np.uint8)
        mask[3:11, 3:11, 3:11] = 1
        arguments = {"image": image, "mask": mask} | changes.get(f"c{number}", {})
        cases.append(volume_case(folder, f"c{number}", **arguments))
    return cases


ORGAN = LabelMap({"background": 0, "organ": 1})


def found_in(cases, labels=ORGAN):
    usable, _ = examine(cases, labels)
    return {finding.kind: finding for finding in data_warnings(usable, labels)}


def test_odd_sizes_missing_classes_and_scales_are_found(tmp_path):
    tiny, none = np.zeros((2, 14, 15, 16), np.uint8)
    tiny[5:7, 5:7, 5:7] = 1
    bright = np.random.default_rng(99).uniform(0, 5000, (14, 15, 16))
    found = found_in(balls(tmp_path, c3={"mask": tiny}, c4={"mask": none}, c5={"image": bright}))
    assert {kind: finding.cases for kind, finding in found.items()} == {
        "volume": ("c3",),
        "missing class": ("c4",),
        "intensity": ("c5",),
    }
    assert found["volume"].details[0].startswith("0.008 ml, z = -")
    assert "24 of 25 cases have it" in found["missing class"].text


def test_headers_that_disagree_are_found(tmp_path):
    shifted, forms = np.eye(4), np.eye(4)
    shifted[0, 3], forms[1, 3] = 0.05, 7

    def move_qform(image):
        image.header.set_sform(np.eye(4), 1)
        image.header.set_qform(forms, 1)

    cases = balls(tmp_path, 4, c1={"mask_affine": shifted}, c2={"edit": move_qform})
    usable, errors = examine(cases, ORGAN)
    assert errors == []
    slight, other = data_warnings(usable, ORGAN)
    assert (slight.cases, slight.details) == (("c1",), ("0.05 voxels",))
    assert "slightly displaced" in slight.text
    assert (other.cases, other.details) == (("c2",), ("7 voxels",))
    assert "sform and qform disagree" in other.text


def test_masks_that_were_resampled_are_told(tmp_path):
    from dataclasses import replace

    cases = balls(tmp_path, 3, c2={"mask": np.ones((7, 8, 8), np.uint8), "mask_affine": np.diag([2, 2, 2, 1.0])})
    assert examine(cases, ORGAN)[1][0].level == "error"
    found = found_in([replace(case, geometry="resample") for case in cases])
    assert (found["header"].cases, found["header"].details) == (("c2",), ("another shape",))


def test_training_says_each_on_a_line(tmp_path, caplog):
    mask = np.zeros((14, 15, 16), np.uint8)
    mask[3:11, 3:11, 3:11] = mask[13, 13, 13] = 1
    check_dataset(balls(tmp_path, 6, **{f"c{number}": {"mask": mask} for number in range(5)}), ORGAN)
    (record,) = caplog.records
    assert record.message == (
        "organ: specks, separate pieces of at most 8 voxels, in 5 case(s): c0, c1, c2, …. medseg inspect tells more"
    )


def test_findings_are_written_with_their_cases():
    bare, one = Issue("warning", "text"), Issue("error", "c1: text", ("c1",))
    many = Issue("warning", "text", ("c1", "c2"), "kind", ("3", "4"))
    assert [on_a_line(bare), on_a_line(one), on_a_line(many)] == ["text", "c1: text", "text: c1 (3), c2 (4)"]
    assert in_full(many) == "text:\n  - c1 (3)\n  - c2 (4)"
    assert in_brief(many) == "text, in 2 case(s): c1, c2. medseg inspect tells more"


LABELS = {"background": 0, "organ": 1, "tumour": 2, "cyst": 3}
SPLIT = Split(("a", "b", "c"), ("d",), ("e", "f"))


def fingerprint(having, groups=None):
    """Return cases a to f, which all have the organ; ``having`` tells where the tumour and the cyst are."""
    cases = {}
    for name in "abcdef":
        voxels = np.array([100, 5, *(name in having.get(label, "") for label in ("tumour", "cyst"))])
        none = np.empty((1, 0), np.float32)
        group = (groups or {}).get(name, name)
        cases[name] = CaseFingerprint((4, 4), (1.0, 1.0), "px", 1, name, voxels, none, np.zeros((1, 1)), group=group)
    return Fingerprint(cases)


def texts(*arguments):
    return [finding.text for finding in classes_by_subset(*arguments)]


@pytest.mark.parametrize(
    ("tumour", "groups", "says"),
    [
        ("def", {}, "no training case has it, .*train 0 of 3, val 1 of 1, test 2 of 2"),
        ("e", {}, "no training case has it, .*train 0 of 3, val 0 of 1, test 1 of 2"),
        ("ade", {}, "only one training case has it, a .*train 1 of 3, val 1 of 1, test 1 of 2"),
        ("abd", {"a": "p", "b": "p"}, "all training cases with it are of one patient, p .*train 2 of 3"),
    ],
)
def test_a_class_that_cannot_be_learned_well(tumour, groups, says):
    import re

    [text] = texts(fingerprint({"tumour": tumour, "cyst": "abcdef"}, groups), LabelMap(LABELS), SPLIT)
    assert text.startswith("tumour: ")
    assert re.search(says, text)


@pytest.mark.parametrize(
    ("tumour", "groups", "split"),
    [
        ("ab", {}, SPLIT),
        ("abcdef", {}, SPLIT),
        ("", {}, SPLIT),  # named elsewhere
        ("ab", dict.fromkeys("abc", "p"), SPLIT),  # there is but one patient to learn from
        ("e", {}, None),
    ],
)
def test_nothing_is_said_of_others(tumour, groups, split):
    assert texts(fingerprint({"tumour": tumour, "cyst": "abcdef"}, groups), LabelMap(LABELS), split) == []


def test_regions_count_as_one_and_scans_without_masks_not_at_all():
    usable = fingerprint({"tumour": "e", "cyst": "abcd"})
    regions = {"lesion": ["tumour", "cyst"], "tumour": ["tumour"]}
    [text] = texts(usable, LabelMap(LABELS, regions), SPLIT)
    assert text.startswith("tumour: no training case")
    assert texts(usable, UNLABELLED, SPLIT) == []


@pytest.mark.parametrize(
    ("values", "modality", "is_told"),
    [
        ((-1024, 60), None, True),
        ((-1024, 60), ("ct",), False),
        ((-200, 60), None, False),
        ((0, 1500), None, False),
    ],
)
def test_a_ct_without_a_modality_is_told(tmp_path, values, modality, is_told):
    cases = balls(tmp_path, count=3)
    for case in cases:
        saved = nib.load(case.images[0])
        image = np.random.default_rng(0).uniform(*values, saved.shape).astype(np.float32)
        image[:7] = values[0]  # air
        nib.save(nib.Nifti1Image(image, saved.affine), case.images[0])
    usable, _ = examine(cases, ORGAN)
    told = [finding.text for finding in unnamed_ct(usable, modality)]
    assert len(told) == is_told
    assert all("from -1024 on" in text and "dataset.modality=ct" in text for text in told)
