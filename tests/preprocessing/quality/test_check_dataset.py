"""Everything that is wrong with a made-up data set is found in one go, under the right names."""

from dataclasses import fields, replace

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile
from medseg.io.datasets.splits import Split
from medseg.io.labels import LabelMap
from medseg.preprocessing.fingerprint import cached
from medseg.preprocessing.fingerprint.duplicates import warn_of_split_scans
from medseg.preprocessing.fingerprint.fingerprint import fingerprint
from medseg.preprocessing.quality.check_dataset import check_dataset, examine

LABELS = LabelMap({"background": 0, "organ": 1})
SHAPE = (12, 13, 14)


def save(path, values, spacing=(1, 1, 1)):
    nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1])), path)


@pytest.fixture
def data(tmp_path):
    """Return ``data(name, image=, mask=, spacing=, group=)``, which writes a case; its image is noise unless given."""
    generator = np.random.default_rng(0)

    def write(name, image=None, mask=None, spacing=(1, 1, 1), group=None):
        image = generator.normal(size=SHAPE).astype(np.float32) if image is None else image
        mask = (image > 1).astype(np.uint8) if mask is None else mask
        paths = tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_mask.nii.gz"
        save(paths[0], image, spacing)
        save(paths[1], mask, spacing)
        return Case(name, group or name, (paths[0],), (LabelFile(paths[1]),))

    return write


def levels(findings):
    return [(finding.level, finding.cases) for finding in findings]


def test_good_cases_give_no_finding(data):
    usable, findings = examine([data(name) for name in "abc"], LABELS)
    assert list(usable.cases) == ["a", "b", "c"]
    assert findings == []


def test_every_kind_of_error_is_listed_at_once(data, caplog):
    nan = np.ones(SHAPE, np.float32)
    nan[1, 2, 3] = np.nan
    cases = [
        *(data(name) for name in ("good 1", "good 2", "good 3")),
        data("gone"),
        data("nan", nan),
        data("constant", np.full(SHAPE, 7, np.float32), np.ones(SHAPE, np.uint8)),
        data("grid", mask=np.ones((12, 13, 15), np.uint8)),
        data("labels", mask=np.full(SHAPE, 5, np.uint8)),
        data("flat", np.arange(20, dtype=np.float32).reshape(4, 5), np.ones((4, 5), np.uint8)),
    ]
    cases[3].images[0].unlink()
    usable, findings = examine(cases, LABELS, ["lonely.nii.gz has no mask"])
    assert list(usable.cases) == ["good 1", "good 2", "good 3"]
    assert levels(findings) == [
        ("error", ()),
        *(("error", (name,)) for name in ("gone", "nan", "constant", "grid", "labels", "flat")),
    ]
    said = ("has no mask", "no such file", "NaN", "Constant", r"(12, 13, 15)", "declared", "2D with 1 channel(s)")
    for finding, words in zip(findings, said, strict=True):
        assert words in finding.text
    with pytest.raises(MedsegError, match=r"(?s)7 error\(s\) in a data set of 9 cases.*lonely.*gone.*nan.*flat"):
        check_dataset(cases, LABELS, ["lonely.nii.gz has no mask"])
    assert not caplog.text


def test_other_channels_than_most(data):
    colour = np.random.default_rng(1).normal(size=(*SHAPE, 2)).astype(np.float32)
    cases = [data("a"), data("b", colour, np.ones(SHAPE, np.uint8)), data("c")]
    usable, findings = examine(cases, LABELS)
    assert list(usable.cases) == ["a", "c"]
    assert findings[0].text == "b: 3D with 2 channel(s) in mm, the others are 3D with 1 in mm"


def test_warnings_name_their_cases_and_stop_nothing(data, caplog):
    labels = LabelMap({"background": 0, "organ": 1, "lesion": 2})
    image = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    empty = np.zeros(SHAPE, np.uint8)
    cases = [data("a"), data("b", image), data("c", image), data("d", mask=empty), data("e", spacing=(1, 1, 5.5))]
    usable, findings = examine(cases, labels)
    assert len(usable.cases) == 5
    assert levels(findings) == [
        ("warning", ("b", "c")),
        ("warning", ("d",)),
        ("warning", ()),
        ("warning", ("e",)),
    ]
    assert findings[2].text == "no mask holds the class(es) lesion"
    assert "spacing 1 × 1 × 5.5 mm, the median is 1 × 1 × 1 mm" in findings[3].text
    assert check_dataset(cases, labels).hashes == usable.hashes
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5
    assert "organ: specks" in caplog.records[-1].message  # the masks are of noise
    assert "2 cases have the same image:\n  - b\n  - c" in caplog.text


def test_spacing_within_what_scanners_do_is_no_finding(data):
    cases = [data("a"), data("b"), data("c", spacing=(0.7, 1.2, 4.9))]
    assert examine(cases, LABELS)[1] == []


def test_masks_that_are_all_empty_are_an_error(data):
    empty = np.zeros(SHAPE, np.uint8)
    _, findings = examine([data(name, mask=empty) for name in "ab"], LABELS)
    assert findings[0].level == "error"
    assert "every mask is empty" in findings[0].text


def test_no_readable_case_leaves_an_empty_fingerprint(data):
    case = data("a")
    case.images[0].write_bytes(b"")
    usable, findings = examine([case], LABELS)
    assert usable.cases == {}
    assert levels(findings) == [("error", ("a",))]


def test_cases_are_watched_while_they_are_read(data):
    seen = []

    def watch(results, total, doing):
        for result in results:
            seen.append((result.group, total, doing))
            yield result

    examine([data(name) for name in "abc"], LABELS, watch=watch)
    assert seen == [(name, 3, "reading") for name in "abc"]


def test_what_was_noted_of_unchanged_cases_is_not_read_again(data, tmp_path, monkeypatch):
    cases = [data("a"), data("b", group="patient")]
    first, _ = examine(cases, LABELS, folder=tmp_path / "cache")
    reread = []

    def read(case, label_map):
        reread.append(case.id)
        return fingerprint(case, label_map)

    monkeypatch.setattr(cached, "fingerprint", read)
    again, _ = examine(cases, LABELS, folder=tmp_path / "cache")
    assert reread == []
    for name, case in first.cases.items():
        for field in fields(case):
            values = getattr(again.cases[name], field.name), getattr(case, field.name)
            np.testing.assert_equal(*(repr(value) if field.name == "acquisition" else value for value in values))
    data("b", group="patient")  # other noise
    examine(cases, LABELS, folder=tmp_path / "cache")
    assert reread == ["b"]


def test_warnings_of_reading_come_every_time(data, tmp_path, caplog):
    case = data("a")
    image = nib.load(case.images[0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None), case.images[0])
    for _ in range(2):
        caplog.clear()
        examine([case], LABELS, folder=tmp_path / "cache")
        assert "neither sform nor qform" in caplog.text


@pytest.mark.parametrize("group", [None, "patient"])
def test_cuts_of_one_scan_in_two_parts_are_warned_of_unless_grouped(data, group, caplog):
    whole = np.random.default_rng(1).gamma(2, 100, size=(4, *SHAPE)).astype(np.int16)
    steps = {"a": 5.95897, "b": 5.95897, "c": 6.12345, "d": 7.12345}
    images = {name: (image * step).astype(np.float32) for (name, step), image in zip(steps.items(), whole, strict=True)}
    cases = [data(name, image, (image > 1000).astype(np.uint8), group=group) for name, image in images.items()]
    found = check_dataset(cases, LABELS)
    assert not caplog.text
    warn_of_split_scans(found.same_scans, Split(("a", "d"), ("c",), ("b",)))
    assert ("a (train) = b (test)" in caplog.text) == (group is None)
    assert "c (val)" not in caplog.text


def test_a_case_of_another_grid_is_warned_of_also_where_it_was_read_before_and_from_the_cache(data, tmp_path, caplog):
    case = replace(data("a"), geometry="warn")
    mask = nib.load(case.labels[0].path)
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj), np.diag([-1, 1, 1, 1])), case.labels[0].path)
    fingerprint(case, LABELS)  # which warns of it in this process, before anything is cached
    reads = []
    for _ in range(3):
        caplog.clear()
        usable, _ = examine([case], LABELS, folder=tmp_path / "cache")
        assert [message for message in caplog.messages if "a_mask.nii.gz" in message] == [*usable.cases["a"].messages]
        assert len(usable.cases["a"].messages) == 1
        reads.append(len(list((tmp_path / "cache").iterdir())))
    assert reads == [1, 1, 1]


def test_a_cached_warning_names_the_files_of_the_case_that_it_is_said_of(data, tmp_path, caplog):
    case = replace(data("a"), geometry="warn")
    mask = nib.load(case.labels[0].path)
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj), np.diag([-1, 1, 1, 1])), case.labels[0].path)
    examine([case], LABELS, folder=tmp_path / "cache")
    moved = tmp_path / "moved"
    moved.mkdir()
    files = {file: moved / file.name for file in case.files}
    for old, new in files.items():
        new.write_bytes(old.read_bytes())
    labels = tuple(replace(file, path=files[file.path]) for file in case.labels)
    case = replace(case, images=tuple(files[path] for path in case.images), labels=labels)
    caplog.clear()
    examine([case], LABELS, folder=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    [message] = [message for message in caplog.messages if "a_mask.nii.gz" in message]
    assert str(moved / "a_mask.nii.gz") in message


def test_what_many_masks_have_alike_is_told_once(data):
    generator = np.random.default_rng(1)
    masks = [(generator.random(SHAPE) > 0.5).astype(np.uint8) * (255 - index % 2) for index in range(6)]
    cases = [data(f"cell_{index}", mask=mask) for index, mask in enumerate(masks)]
    cases.append(data("cell_6", image=np.full(SHAPE, np.nan, np.float32), mask=masks[0] // 255))
    with pytest.raises(MedsegError) as raised:
        check_dataset(cases, LABELS)
    head, alike, other, cure = str(raised.value).splitlines()
    assert head == "7 error(s) in a data set of 7 cases:"
    assert alike.startswith("  - 6 of 7 cases (cell_0, cell_1, cell_2, …) are wrong alike. The first: cell_0: ")
    assert "none of the declared classes: 255. Declared are" in alike
    assert other.startswith("  - cell_6: ")
    assert cure.startswith("Mend or remove these cases.")
    assert len([issue for issue in examine(cases, LABELS)[1] if issue.level == "error"]) == 7
