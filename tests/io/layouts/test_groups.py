"""Groups by pattern and by file."""

from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.layouts.groups import assign_groups

CASES = [Case(name, "kept", ()) for name in ("p1-IM-1", "p1-IM-2", "p2-IM-1")]


def groups(**source):
    return [case.group for case in assign_groups(CASES, **source)]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_layouts_groups_are_kept_without_a_source():
    assert groups() == ["kept"] * 3


@pytest.mark.parametrize("pattern", ["^(.+?)-IM-", r"^p\d", r"^(p\d)-(IM)"])
def test_pattern_gives_its_first_group_or_all_of_the_match(pattern):
    assert groups(pattern=pattern) == ["p1", "p1", "p2"]


def test_file_gives_groups_whatever_else_it_holds(tmp_path):
    table = "\ufeffgroup,age,id\nA,3,p1-IM-1\nA,3,p1-IM-2\nB,4,p2-IM-1\nC,5,p9\n"
    assert groups(file=write(tmp_path / "g.csv", table)) == ["A", "A", "B"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"pattern": "^p1"}, "gives 1 of 3 cases no group:\n  - p2-IM-1"),
        ({"pattern": "x?"}, "gives 3 of 3 cases no group"),
        ({"pattern": "("}, "is no regular expression"),
        ({"pattern": "a", "file": Path("b")}, "exclude each other"),
        ({"file": Path("absent.csv")}, r"absent.csv cannot be read"),
    ],
)
def test_unusable_sources_are_refused(source, message):
    with pytest.raises(MedsegError, match=message):
        groups(**source)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,group\np1-IM-1,A\np1-IM-2,\n", "2 of 3 cases no group:\n  - p1-IM-2\n  - p2-IM-1"),
        ("id,patient\np1-IM-1,A\n", "needs the column group, it has id, patient"),
        ("", "it has none"),
        ("id,group\np1-IM-1,A\np1-IM-1,B\n", "gives p1-IM-1 two groups: A and B"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, table, message):
    with pytest.raises(MedsegError, match=message):
        groups(file=write(tmp_path / "g.csv", table))
