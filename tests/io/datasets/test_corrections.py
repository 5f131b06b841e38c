"""Corrected masks go before a data set's own, and come with new cases."""

import hashlib
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile
from medseg.io.datasets.annotations import read_labels
from medseg.io.datasets.corrections import with_corrections
from medseg.io.datasets.splits import Split, make_split
from medseg.io.files.read import read_case
from medseg.io.labels import LabelMap

CLASSES = LabelMap({"background": 0, "organ": 3})


def volume(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((6, 7, 8), np.uint8)
    data[2:4, 2:4, 2:4] = value
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    names = ("a", "b", "sub/c")
    return tuple(
        Case(name, name, (volume(tmp_path / f"images/{name}.nii.gz", 9),), (LabelFile(tmp_path / f"{name}.nii.gz"),))
        for name in names
    )


def table(folder: Path, *rows: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "cases.csv").write_text("\n".join(["id,uncertainty,image,label,mask_sha256", *rows]) + "\n")


def test_a_mask_called_like_a_case_goes_before_its_own(cases: tuple[Case, ...], tmp_path: Path) -> None:
    mask = volume(tmp_path / "fixed/sub/c.nii", 3)
    found = with_corrections(cases, tmp_path / "fixed")
    assert [case.id for case in found] == ["a", "b", "sub/c"]
    assert found[:2] == cases[:2]
    assert found[2].labels == (LabelFile(mask),)
    assert not found[2].added
    np.testing.assert_array_equal(np.unique(read_labels(found[2], CLASSES, read_case(found[2]))), [0, 1])


def test_the_table_brings_new_cases(cases: tuple[Case, ...], tmp_path: Path) -> None:
    image, mask = volume(tmp_path / "elsewhere/new.nii.gz", 7), volume(tmp_path / "fixed/new.nii.gz", 3)
    table(tmp_path / "fixed", f"new,0.5,{image},new.nii.gz,0000", f"other,0.4,{image},other.nii.gz,0000")
    *same, new = with_corrections(cases, tmp_path / "fixed")
    assert tuple(same) == cases
    assert (new.id, new.group, new.images, new.labels) == ("new", "new", (image,), (LabelFile(mask),))
    assert new.added


def test_masks_that_nobody_touched_are_left_out(
    cases: tuple[Case, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = volume(tmp_path / "fixed/a.nii.gz", 3)
    table(tmp_path / "fixed", f"a,0.5,x.nii.gz,a.nii.gz,{hashlib.sha256(mask.read_bytes()).hexdigest()}")
    with caplog.at_level(logging.WARNING):
        assert with_corrections(cases, tmp_path / "fixed") == cases
    assert "1 masks of" in caplog.text
    assert "  - a" in caplog.text
    volume(mask, 0)
    assert with_corrections(cases, tmp_path / "fixed")[0].labels == (LabelFile(mask),)


def test_what_cannot_be_is_said(cases: tuple[Case, ...], tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="there is no such folder"):
        with_corrections(cases, tmp_path / "nowhere")
    volume(tmp_path / "fixed/aa.nii.gz", 3)
    with pytest.raises(MedsegError, match=r"no case is called\n  - aa"):
        with_corrections(cases, tmp_path / "fixed")
    volume(tmp_path / "twice/a.nii.gz", 3)
    volume(tmp_path / "twice/a.nii", 3)
    with pytest.raises(MedsegError, match="are of one case, a"):
        with_corrections(cases, tmp_path / "twice")


def test_new_cases_train_and_leave_the_split_as_it_was(tmp_path: Path) -> None:
    own = [Case(f"p{number}", f"p{number}", ()) for number in range(20)]
    before = make_split(own, val=0.2, test=0.2, seed=1)
    added = [Case("new", "new", (), added=True), Case("again", before.test[0], (), added=True)]
    after = make_split([*own, *added], val=0.2, test=0.2, seed=1)
    assert after.train == tuple(sorted([*before.train, "new"]))
    assert after.val == before.val
    assert after.test == tuple(sorted([*before.test, "again"]))  # of a patient who is tested
    after.save(tmp_path / "splits.json", {}, 1)
    later = [*own, *added, Case("newer", "newer", (), added=True)]
    third = make_split(later, val=0.2, test=0.2, seed=1, file=tmp_path / "splits.json")
    assert third == Split(tuple(sorted([*after.train, "newer"])), after.val, after.test)
