"""From files to cases."""

import pytest

from medseg.errors import MedsegError
from medseg.io.channels import cases_from_files

ENDINGS = ["_t1", "_t1ce"]


def files(root, *names):
    return [root / name for name in names]


def test_a_file_is_a_case(tmp_path):
    cases, _ = cases_from_files(tmp_path, files(tmp_path, "b.dcm.png", "a/x.nii.gz"), None)
    assert [(case.id, case.group, case.label) for case in cases] == [("a/x", "a/x", None), ("b.dcm", "b.dcm", None)]
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
    cases, _ = cases_from_files(tmp_path, files(tmp_path, "p_t1.nii", "p_contrast_t1.nii"), ["_t1", "_contrast_t1"])
    assert [case.id for case in cases] == ["p"]


def test_every_problem_is_listed_and_the_rest_is_found(tmp_path):
    found = files(tmp_path, "p1_t1.nii", "p2_t1.nii.gz", "p2_t1ce.nii", "p3_flair.nii")
    cases, problems = cases_from_files(tmp_path, found, ENDINGS)
    assert [case.id for case in cases] == ["p2"]
    assert problems == [f"{tmp_path / 'p3_flair.nii'} ends in none of _t1, _t1ce", "p1 has no file ending in _t1ce"]


def test_names_that_differ_in_their_suffix_only_are_refused(tmp_path):
    with pytest.raises(MedsegError, match=r"suffix only(.|\n)*a\.png and .*a\.jpg"):
        cases_from_files(tmp_path, files(tmp_path, "a.png", "a.jpg"), [])
