"""Splits: shares of groups, folds, files, and that no group is parted."""

import json

import pytest

from medseg.config.settings import SplitSettings
from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.datasets.splits import Split, continued_split, make_split, split_as_set


def cases(groups, each=2):
    return [Case(f"p{g:02}-{i}", f"p{g:02}", ()) for g in range(groups) for i in range(each)]


def group_count(part):
    return len({name.split("-")[0] for name in part})


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("groups", "val", "test", "sizes"),
    [
        (20, 0.1, 0.2, (14, 2, 4)),
        (25, 0.1, 0.2, (17, 3, 5)),  # 2.5 is rounded up
        (3, 0.1, 0.1, (1, 1, 1)),  # at least one
        (10, 0.2, 0.0, (8, 2, 0)),
    ],
)
def test_shares_count_groups(groups, val, test, sizes):
    split = make_split(cases(groups), val=val, test=test)
    assert tuple(map(group_count, (split.train, split.val, split.test))) == sizes
    assert sorted(split.train + split.val + split.test) == [case.id for case in cases(groups)]


def test_groups_of_uneven_size_stay_whole():
    uneven = [Case(f"p{g}-{i}", f"p{g}", ()) for g in range(9) for i in range(1 + g * g)]
    split = make_split(uneven, val=0.2, test=0.3, seed=5)
    parts = [{name.split("-")[0] for name in part} for part in (split.train, split.val, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 9


def test_seed_decides_and_the_order_of_cases_does_not():
    some = cases(20)
    split = make_split(some, val=0.1, test=0.2, seed=3)
    assert split == make_split(some[::-1], val=0.1, test=0.2, seed=3)
    assert split != make_split(some, val=0.1, test=0.2, seed=4)


def test_folds_divide_what_the_test_part_leaves():
    folds = [make_split(cases(11), val=0.5, test=0.1, folds=3, fold=fold, seed=1) for fold in range(3)]
    assert len({fold.test for fold in folds}) == 1
    validated = [name for fold in folds for name in fold.val]
    assert sorted(validated) == sorted(folds[0].train + folds[0].val)
    assert sorted(group_count(fold.val) for fold in folds) == [3, 3, 4]
    assert all(not set(fold.train) & set(fold.val) for fold in folds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val": 0.0, "test": 0.2}, r"split.val=0.0 must be above 0"),
        ({"val": 0.9, "test": 0.2}, r"split.val=0.9 .* with split.test=0.2"),
        ({"val": 0.1, "test": 1.0}, r"split.test=1.0 must be at least 0 and below 1"),
        ({"val": 0.1, "test": 0.2, "folds": 1}, r"split.folds=1 must be at least 2"),
        ({"val": 0.1, "test": 0.2, "folds": 3, "fold": 3}, r"split.fold=3 from 0"),
        ({"val": 0.1, "test": 0.2, "folds": 50, "fold": 49}, r"no case: of 10 groups .* validation 0 "),
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(MedsegError, match=message):
        make_split(cases(10), **arguments)


def test_too_few_groups_are_refused():
    with pytest.raises(MedsegError, match="of 2 groups training would have 0, validation 1 and test 1"):
        make_split(cases(2, each=9), val=0.1, test=0.2)


def test_saved_split_comes_back_and_is_read_as_a_file(tmp_path):
    split = make_split(cases(10), val=0.1, test=0.2, seed=7)
    path = tmp_path / "splits.json"
    split.save(path, {"p00-0": "abc"}, 7)
    content = json.loads(path.read_text())
    assert set(content) == {"format", "seed", "train", "val", "test", "hashes"}
    assert (content["format"], content["seed"], content["hashes"]) == (1, 7, {"p00-0": "abc"})
    assert Split.load(path) == split
    assert make_split(cases(10), val=0.5, test=0.4, file=path) == split


def test_fold_picks_from_nnunets_file(tmp_path):
    folds = [
        {"train": ["p00-0", "p00-1"], "val": ["p01-0", "p01-1"]},
        {"train": ["p01-1", "p01-0"], "val": ["p00-0", "p00-1"]},
    ]
    file = write(tmp_path / "splits_final.json", folds)
    split = make_split(cases(2), val=0.1, test=0.2, fold=1, file=file)
    assert split == Split(("p01-0", "p01-1"), ("p00-0", "p00-1"), ())
    with pytest.raises(MedsegError, match=r"split.fold=2: .* holds 2 folds"):
        make_split(cases(2), val=0.1, test=0.2, fold=2, file=file)


def test_a_table_names_parts(tmp_path):
    file = write(tmp_path / "s.csv", "id,part\np00-0,train\np01-0,val\np02-0,test\n")
    split = make_split(cases(3, each=1), val=0.1, test=0.2, file=file)
    assert split == Split(("p00-0",), ("p01-0",), ("p02-0",))
    with pytest.raises(MedsegError, match="line 3: id=p01-0, part=valid"):
        make_split(cases(3), val=0.1, test=0.2, file=write(tmp_path / "t.csv", "id,part\np00-0,train\np01-0,valid\n"))


def with_parts(*parts, groups=None):
    return [
        Case(f"p{i}", group, (), columns={"site": "Ulm", "split": part})
        for i, (part, group) in enumerate(zip(parts, groups or map(str, range(9)), strict=False))
    ]


def test_a_tables_column_names_parts(caplog):
    caplog.set_level("INFO")
    found = with_parts("val", "train", "test", "train")
    assert make_split(found, val=0.1, test=0.2) == Split(("p1", "p3"), ("p0",), ("p2",))
    assert "the table's column 'split'" in caplog.text
    assert make_split(with_parts("", "", "", ""), val=0.25, test=0.25) == make_split(
        [Case(f"p{i}", str(i), ()) for i in range(4)], val=0.25, test=0.25
    )


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (with_parts("train", "", "valid"), r"(?s)for every case, or empty for all.*p1: empty.*p2: valid"),
        (
            with_parts("train", "val", groups=["x", "x"]),
            "column 'split' does not fit.*\n.*the group x is in train and val",
        ),
        (with_parts("train", "test"), "the part 'val' has no case"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(found, message):
    with pytest.raises(MedsegError, match=message):
        make_split(found, val=0.1, test=0.2)


def test_what_the_user_gives_goes_before_what_came_with_the_data(tmp_path):
    folds = [{"train": ["p0"], "val": ["p1"]}]
    came = tmp_path / "splits_final.json"
    write(came, folds)
    plain = [Case(f"p{i}", str(i), ()) for i in range(9)]
    assert make_split(plain, val=0.1, test=0.2, data_split=came) == Split(("p0",), ("p1",), ())
    given = write(tmp_path / "given.csv", "id,split\np3,train\np4,val\n")
    assert make_split(plain, val=0.1, test=0.2, file=given, data_split=came) == Split(("p3",), ("p4",), ())
    drawn = make_split(plain, val=0.1, test=0.2, folds=3)
    assert make_split(plain, val=0.1, test=0.2, folds=3, data_split=came) == drawn
    assert make_split(with_parts(*["train"] * 8, "val"), val=0.1, test=0.2, folds=3) == drawn
    column = make_split(with_parts("val", "train"), val=0.1, test=0.2, data_split=came)
    assert column == Split(("p1",), ("p0",), ())
    with pytest.raises(MedsegError, match=r"split.fold=1: .*splits_final.json holds 1 folds"):
        make_split(plain, val=0.1, test=0.2, fold=1, data_split=came)


def test_every_misfit_of_a_file_is_listed(tmp_path):
    content = {"format": 1, "train": ["p00-0", "p01-0", "p01-0"], "val": [], "test": ["p0l-1"]}
    with pytest.raises(MedsegError) as error:
        make_split(cases(3), val=0.1, test=0.2, file=write(tmp_path / "s.json", content))
    for problem in ("p0l-1 is no case", "Did you mean 'p0", "p01-0 is listed 2 times", "the part 'val' has no case"):
        assert problem in str(error.value)


def test_a_file_that_parts_a_group_is_refused(tmp_path):
    content = {"format": 1, "train": ["p00-0"], "val": ["p00-1"], "test": []}
    with pytest.raises(MedsegError, match="the group p00 is in train and val: p00-0, p00-1"):
        make_split(cases(3), val=0.1, test=0.2, file=write(tmp_path / "s.json", content))


def test_unused_cases_are_said(tmp_path, caplog):
    content = {"format": 1, "train": ["p00-0"], "val": ["p01-0"], "test": []}
    make_split(cases(3), val=0.1, test=0.2, file=write(tmp_path / "s.json", content))
    assert "leaves 4 of 6 cases unused" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"cannot be read as JSON .* Give a splits\.json"),
        ({"format": 2}, "is no splits.json of format 1"),
        ({"format": 1, "train": ["a"]}, "'train' and 'val' are missing"),
        ({"format": 1, "train": "abc", "val": [1]}, "train, val must be lists of case ids"),
        ([], "holds 0 folds"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    with pytest.raises(MedsegError, match=message):
        make_split(cases(3), val=0.1, test=0.2, file=write(tmp_path / "s.json", content))
    with pytest.raises(MedsegError, match=r"absent.json: cannot be read"):
        Split.load(tmp_path / "absent.json")


def test_labelled_groups_are_drawn_by_another_seed_and_lie_within_larger_draws():
    whole = make_split(cases(40), val=0.2, test=0.25, seed=3)
    drawn = {n: make_split(cases(40), val=0.2, test=0.25, seed=3, labelled=n, draw=1) for n in (2, 5, 10, 20, 30)}
    for number, split in drawn.items():
        assert split.test == whole.test
        assert group_count(split.train) + group_count(split.val) == number
        assert set(split.train) <= set(whole.train)
        assert len(split.train) == 2 * group_count(split.train)  # both cases of a group
    assert (drawn[30].train, drawn[30].val) == (whole.train, whole.val)
    assert [group_count(drawn[n].val) for n in (2, 5, 10, 20)] == [1, 1, 3, 5]  # 8 of 30 validate
    for smaller, larger in zip((2, 5, 10, 20), (5, 10, 20, 30), strict=True):
        assert set(drawn[smaller].train) <= set(drawn[larger].train)
        assert set(drawn[smaller].val) <= set(drawn[larger].val)
    other = make_split(cases(40), val=0.2, test=0.25, seed=3, labelled=10, draw=2)
    assert other.test == whole.test
    assert other.train != drawn[10].train


@pytest.mark.parametrize("labelled", [1, 31])
def test_as_many_labelled_groups_as_there_are(labelled):
    with pytest.raises(MedsegError, match=rf"split.labelled={labelled}: training and validation have 30 groups"):
        make_split(cases(40), val=0.2, test=0.25, labelled=labelled)


def test_the_split_has_a_seed_of_its_own():
    def split(run_seed, **changes):
        return split_as_set(cases(20), SplitSettings(val=0.2, test=0.2, **changes), run_seed, None)

    assert split(1) == make_split(cases(20), val=0.2, test=0.2, seed=1) != split(2)
    assert split(1, seed=5) == split(2, seed=5) == make_split(cases(20), val=0.2, test=0.2, seed=5)
    assert split(1, seed=5, labelled=6).train != split(2, seed=5, labelled=6).train


def test_cases_that_were_in_a_split_stay_and_new_ones_fill_the_shares():
    seen = {f"p{g:02}-{i}": ("test" if g < 1 else "val" if g < 2 else "train") for g in range(6) for i in range(2)}
    split = continued_split(cases(20), seen, val=0.1, test=0.2, seed=1)
    parts = {name: part for part in ("train", "val", "test") for name in getattr(split, part)}
    assert sorted(parts) == [case.id for case in cases(20)]
    assert {name: parts[name] for name in seen} == seen
    assert tuple(map(group_count, (split.train, split.val, split.test))) == (14, 2, 4)
    assert split == continued_split(cases(20)[::-1], seen, val=0.1, test=0.2, seed=1)
    assert split != continued_split(cases(20), seen, val=0.1, test=0.2, seed=2)


def test_corrections_and_further_cases_of_a_seen_group_go_to_their_group_or_train():
    seen = {"p00-0": "test", "p01-0": "val", "p02-0": "train"}
    more = [Case("new", "new", (), added=True), Case("again", "p00", (), added=True)]
    split = continued_split([*cases(3), *more], seen, val=0.1, test=0.2)
    assert split.test == ("again", "p00-0", "p00-1")
    assert "new" in split.train


@pytest.mark.parametrize(
    "seen",
    [
        {f"p{g:02}-{i}": "train" for g in range(4) for i in range(2)},  # nothing to validate with
        {"p00-0": "train", "p00-1": "test"},  # the group was parted
    ],
)
def test_parts_that_no_split_comes_of(seen):
    assert continued_split(cases(4), seen, val=0.25, test=0.25) is None
