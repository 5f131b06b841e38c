"""From files to cases."""

from pathlib import Path

import pytest

from medseg.io.case import Case
from medseg.io.layouts.channels import cases_from_files, common_name, complete, endings_of, equal_names

ENDINGS = [["_t1"], ["_t1ce"]]


def files(root, *names):
    return [root / name for name in names]


def test_a_file_is_a_case(tmp_path):
    cases, _ = cases_from_files(tmp_path, files(tmp_path, "b.dcm.png", "a/x.nii.gz"), None)
    assert [(case.id, case.group, case.labels) for case in cases] == [("a/x", "a/x", ()), ("b.dcm", "b.dcm", ())]
    assert cases[0].images == (tmp_path / "a/x.nii.gz",)


def test_a_single_file_may_be_the_root(tmp_path):
    path = tmp_path / "x.nii.gz"
    assert cases_from_files(path, [path], None)[0][0].id == "x"


def test_a_file_a_channel_in_the_order_of_the_endings(tmp_path):
    found = files(tmp_path, "p2_t1.nii", "p1_t1ce.nii.gz", "p1_t1.nii.gz", "p2_t1ce.nii")
    cases, _ = cases_from_files(tmp_path, found, ENDINGS)
    assert [case.id for case in cases] == ["p1", "p2"]
    assert cases[0].images == (tmp_path / "p1_t1.nii.gz", tmp_path / "p1_t1ce.nii.gz")


def test_the_longest_ending_counts(tmp_path):
    endings = [["_t1"], ["_contrast_t1"]]
    cases, _ = cases_from_files(tmp_path, files(tmp_path, "p_t1.nii", "p_contrast_t1.nii"), endings)
    assert [case.id for case in cases] == ["p"]


def test_a_channel_may_have_several_endings(tmp_path):
    found = files(tmp_path, "p1_flair.nii", "p1_t1.nii", "p2-t2f.nii", "p2-t1n.nii")
    cases, problems = cases_from_files(tmp_path, found, [["_flair", "-t2f"], ["_t1", "-t1n"]])
    assert [[path.name for path in case.images] for case in cases] == [
        ["p1_flair.nii", "p1_t1.nii"],
        ["p2-t2f.nii", "p2-t1n.nii"],
    ]
    assert problems == []


def test_two_files_for_one_channel_are_a_problem(tmp_path):
    found = files(tmp_path, "p1_flair.nii", "p1-t2f.nii", "p2-t2f.nii")
    cases, problems = cases_from_files(tmp_path, found, [["_flair", "-t2f"]])
    assert [case.id for case in cases] == ["p2"]
    assert len(problems) == 1
    assert "p1_flair.nii and" in problems[0]
    assert "differ in their ending only" in problems[0]


@pytest.mark.parametrize(
    ("endings", "names"),
    [
        ([["/ct"], ["/pet"]], ["p1/ct.nii", "p1/pet.nii", "p1/report.png", "p1/segmentations/liver.nii"]),
        ([["ct/"], ["pet/"]], ["ct/p1.nii", "pet/p1.nii"]),
    ],
)
def test_a_folder_a_case_or_a_folder_a_channel(tmp_path, endings, names):
    cases, problems = cases_from_files(tmp_path, files(tmp_path, *names), endings)
    assert [(case.id, case.images) for case in cases] == [("p1", (tmp_path / names[0], tmp_path / names[1]))]
    assert problems == []


def test_an_empty_ending_takes_what_no_other_fits(tmp_path):
    cases, problems = cases_from_files(tmp_path, files(tmp_path, "a_0000.nii", "b.nii"), [["_0000", ""]])
    assert ([case.id for case in cases], problems) == (["a", "b"], [])


def test_masks_beside_the_channels_are_passed_over(tmp_path):
    cases, problems = cases_from_files(tmp_path, files(tmp_path, "p_t1.nii", "p_t1ce.nii", "p_seg.nii"), ENDINGS)
    assert ([case.id for case in cases], problems) == (["p"], [])


def test_every_problem_is_listed_and_the_rest_is_found(tmp_path):
    found = files(tmp_path, "p1_t1.nii", "p2_t1.nii.gz", "p2_t1ce.nii", "p3_flair.nii")
    cases, problems = cases_from_files(tmp_path, found, ENDINGS)
    assert [case.id for case in cases] == ["p2"]
    assert problems == [f"{tmp_path / 'p3_flair.nii'} ends in none of _t1, _t1ce", "p1 has no file ending in _t1ce"]


def test_names_that_differ_in_their_suffix_only_are_a_problem(tmp_path):
    found = files(tmp_path, "a.png", "a.jpg", "b.png")
    line = f"{tmp_path / 'a.png'} and {tmp_path / 'a.jpg'} differ in their suffix only: rename or remove one"
    cases, problems = cases_from_files(tmp_path, found, None)
    assert ([case.id for case in cases], problems) == (["b"], [line])
    assert equal_names(tmp_path, found, None) == [line]
    assert equal_names(tmp_path, found[1:], None) == []


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (["x/scan 1.nii.gz"], "scan 1"),
        (["p_t1.nii", "p_t1ce.nii"], "p"),
        (["p1_0000.nii", "p1_0001.nii"], "p1"),
        (["BraTS-GLI-00000-000-t1c.nii", "BraTS-GLI-00000-000-t1n.nii"], "BraTS-GLI-00000-000"),
        (["p1/flair.nii", "p1/t2.nii"], "p1"),
        (["T1/p1.nii", "T2/p1.nii"], "p1"),
    ],
)
def test_the_name_that_files_have_in_common(images, name):
    assert common_name([Path(image) for image in images]) == name


@pytest.mark.parametrize(
    ("names", "endings"),
    [
        ([["a.nii"], ["b.nii"]], None),
        ([["a_ct.nii"], ["b_ct.nii"]], (("_ct", ""),)),
        ([["a_ct.nii"], ["b.nii"]], None),
        ([["a_1.nii", "a_2.nii"], ["b_1.nii", "b_2.nii"]], (("_1",), ("_2",))),
        ([["a_1.nii", "a_2.nii"], ["b_2.nii", "b_1.nii"]], None),
        ([["a/ct.nii", "a/pet.nii"], ["b/ct.nii", "b/pet.nii"]], (("/ct",), ("/pet",))),
        ([["ct/a.nii", "pet/a.nii"], ["ct/b.nii", "pet/b.nii"]], None),
        ([["x.nii", "a_2.nii"], ["y.nii", "b_2.nii"]], None),
        ([], None),
    ],
)
def test_endings_are_what_follows_the_id(names, endings):
    cases = [Case(name, name, tuple(map(Path, images))) for name, images in zip("ab", names, strict=False)]
    assert endings_of(cases) == endings


def test_only_whole_cases_of_one_id_are_kept(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).touch()
    cases = [Case(name, name, (tmp_path / name,)) for name in ("a", "b", "b", "c")]
    kept, problems = complete(cases)
    assert [case.id for case in kept] == ["a"]
    assert problems == (f"c: {tmp_path / 'c'} is missing", "b is listed 2 times")
