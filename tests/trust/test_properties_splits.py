"""Splits of any cases, groups, shares and seeds: nobody in two parts, and nothing depends on the order of cases."""

from collections import Counter
from dataclasses import asdict
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.datasets.splits import Split, continued_split, make_split

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
SHARES = st.sampled_from([0.0, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.5]) | st.floats(0, 0.6)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def case_lists(draw, min_groups=2, added=False):
    """Cases of any ids in groups of one to three, in any order; ``added``: some came with corrections."""
    groups = draw(st.lists(NAMES, min_size=min_groups, max_size=25, unique=True))
    members = [group for group in groups for _ in range(draw(st.integers(1, 3)))]
    ids = draw(st.lists(NAMES, min_size=len(members), max_size=len(members), unique=True))
    flags = [added and draw(st.booleans()) for _ in ids]
    return [Case(name, group, (), added=flag) for name, group, flag in zip(ids, members, flags, strict=True)]


def divided(cases, **options):
    """Split cases as asked, or dismiss options that leave no case for a part."""
    try:
        return make_split(cases, **options)
    except MedsegError as error:
        assume("has no case" not in str(error) and "must be above 0" not in str(error))
        raise


def groups_of(cases, split):
    """The groups of each part."""
    return {part: {case.group for case in cases if case.id in ids} for part, ids in asdict(split).items()}


def assert_divides(cases, split):
    """Each case is in one part, and each group."""
    assert Counter(name for ids in asdict(split).values() for name in ids) == Counter(case.id for case in cases)
    train, val, test = groups_of(cases, split).values()
    assert train.isdisjoint(val)
    assert test.isdisjoint(train | val)


def is_share(count, share, total):
    """Whether a count is the share rounded, halves up, at least one of a share that is not 0."""
    exact = Fraction(share) * total
    return count == 1 >= exact if share and exact <= Fraction(1, 2) else abs(count - exact) <= Fraction(1, 2) + 1e-9


@given(case_lists(), SHARES, SHARES, SEEDS)
def test_parts_are_disjoint_and_of_the_shares_asked_for(cases, val, test, seed):
    split = divided(cases, val=val, test=test, seed=seed)
    assert_divides(cases, split)
    groups = groups_of(cases, split)
    total = len({case.group for case in cases})
    assert groups["train"]
    assert is_share(len(groups["val"]), val, total)
    assert is_share(len(groups["test"]), test, total)


@given(case_lists(), st.integers(2, 6), SHARES, SEEDS)
def test_folds_validate_every_case_once_and_test_the_same(cases, folds, test, seed):
    splits = [divided(cases, val=0.2, test=test, folds=folds, fold=fold, seed=seed) for fold in range(folds)]
    for split in splits:
        assert_divides(cases, split)
        assert split.test == splits[0].test
    validated = Counter(name for split in splits for name in split.val)
    assert validated == Counter({case.id for case in cases} - set(splits[0].test))
    sizes = [len(groups_of(cases, split)["val"]) for split in splits]
    assert max(sizes) - min(sizes) <= 1


@given(case_lists(added=True), st.data(), SEEDS, st.sampled_from([None, 2, 3]))
def test_a_split_depends_on_the_seed_and_not_on_the_order_of_cases(cases, data, seed, folds):
    split = divided(cases, val=0.25, test=0.2, folds=folds, seed=seed)
    assert divided(data.draw(st.permutations(cases)), val=0.25, test=0.2, folds=folds, seed=seed) == split


@given(case_lists(min_groups=12))
def test_seeds_differ(cases):
    assert len({divided(cases, val=0.4, test=0.2, seed=seed) for seed in range(8)}) > 1


@given(case_lists(min_groups=4), SEEDS, st.integers(0, 5), st.data())
def test_fewer_labelled_groups_are_some_of_more_and_the_test_part_is_whole(cases, seed, draw, data):
    whole = divided(cases, val=0.3, test=0.2, seed=seed)
    groups = groups_of(cases, whole)
    most = len(groups["train"]) + len(groups["val"])
    few, many = sorted(data.draw(st.tuples(*[st.integers(2, most)] * 2)))
    parts = []
    for labelled in (few, many):
        split = divided(cases, val=0.3, test=0.2, seed=seed, labelled=labelled, draw=draw)
        kept = groups_of(cases, split)
        assert split.test == whole.test
        assert len(kept["train"]) + len(kept["val"]) == labelled
        assert kept["train"]
        assert kept["val"]
        for part in ("train", "val"):  # with all of its cases
            assert {case.id for case in cases if case.group in kept[part]} == set(getattr(split, part))
        parts.append(kept)
    assert parts[0]["train"] <= parts[1]["train"] <= groups["train"]
    assert parts[0]["val"] <= parts[1]["val"] <= groups["val"]


@given(case_lists(added=True), SEEDS)
def test_cases_that_came_with_corrections_move_no_other(cases, seed):
    drawn = [case for case in cases if not case.added]
    before = divided(drawn, val=0.3, test=0.2, seed=seed)
    after = divided(cases, val=0.3, test=0.2, seed=seed)
    assert_divides(cases, after)
    for part, ids in asdict(before).items():
        assert set(ids) == set(getattr(after, part)) & {case.id for case in drawn}
    groups = {case.group for case in drawn}
    assert {case.id for case in cases if case.group not in groups} <= set(after.train)


@given(case_lists(added=True), SHARES, SHARES, SEEDS, st.data())
def test_a_continued_split_keeps_every_case_where_it_was(cases, val, test, seed, data):
    names = sorted({case.group for case in cases})
    part_of = {group: data.draw(st.sampled_from(["train", "val", "test", ""])) for group in names}
    seen = {case.id: part_of[case.group] for case in cases if part_of[case.group]}
    split = continued_split(cases, seen, val=val, test=test, seed=seed)
    if split is None:
        return
    assert_divides(cases, split)
    assert all(name in getattr(split, part) for name, part in seen.items())
    groups = groups_of(cases, split)
    new = {case.group for case in cases if not case.added and not part_of[case.group]}
    total = len(new) + sum(part != "" for part in part_of.values())
    for part, share in (("val", val), ("test", test)):
        if added := groups[part] & new:  # up to the share, or as far as there are new groups
            assert is_share(len(groups[part]), share, total) or not new & groups["train"]
        assert added or Fraction(share) * total <= len(groups[part]) + Fraction(1, 2) or not new & groups["train"]


@given(case_lists(), SEEDS)
def test_a_saved_split_is_read_back(tmp_path_factory, cases, seed):
    path = tmp_path_factory.getbasetemp() / "splits.json"
    split = divided(cases, val=0.3, test=0.2, seed=seed)
    split.save(path, {}, seed)
    assert Split.load(path) == split
    assert make_split(reversed(cases), val=0.5, test=0.5, file=path) == split


@given(st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_shares_out_of_range_are_refused(val, test):
    cases = [Case(str(number), str(number), ()) for number in range(10)]
    if 0 <= test < 1 and 0 < val < 1 - test:
        return
    with pytest.raises(MedsegError, match="split"):
        make_split(cases, val=val, test=test)
