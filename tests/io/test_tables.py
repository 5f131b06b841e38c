"""CSV tables about cases."""

import pytest

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.layouts.groups import assign_groups
from medseg.io.tables import class_names, read_annotated, read_table

CASES = [Case(name, name, (), annotated=("old",)) for name in ("a", "b", "c")]


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "id,site\na,Ulm\nb, Bonn \n",
        "id;site\r\na;Ulm\r\nb;Bonn\r\n",
        "id\tsite\na\tUlm\n\nb\tBonn",
        b"\xef\xbb\xbfid,site\na,Ulm\nb,Bonn\n,\n",
        '"id","site"\n"a","Ulm"\n"b","Bonn"\n',
    ],
)
def test_every_kind_of_csv_gives_the_same_rows(tmp_path, text):
    assert read_table(write(tmp_path / "t.csv", text), "key") == [
        {"id": "a", "site": "Ulm"},
        {"id": "b", "site": "Bonn"},
    ]


def test_cells_may_hold_commas_in_quotes(tmp_path):
    assert (
        read_table(write(tmp_path / "t.csv", 'id,site\na,"Ulm, Safranberg"\n'), "key")[0]["site"] == "Ulm, Safranberg"
    )


@pytest.mark.parametrize(
    "header",
    ['id;group;"volume, surface, and mean"', "id;group;size (x,y,z)", 'id,group,"a;b;c;d"', 'id\tgroup\t"a,b;c,d;e"'],
)
def test_what_separates_columns_may_be_in_their_names(tmp_path, header):
    separator = next(each for each in ";,\t" if header.startswith(f"id{each}"))
    (tmp_path / "a.csv").write_text(f"{header}\n{separator.join(('case', 'patient', '1.5'))}\n")
    (row,) = read_table(tmp_path / "a.csv", "dataset.table", ("id", "group"))
    assert (row["id"], row["group"], len(row)) == ("case", "patient", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,site\na,Ulm\n", "key=.*t.csv needs the column group, it has id, site"),
        ("", "needs the columns id and group, it has none"),
        ("id,group,id\na,b,c\n", "has the column id twice"),
        ("id,group\na,b\nc,d,e\n", "line 3 has not 2 cells"),
        ("id,group\n\xe4,b\n".encode("latin-1"), "line 2 is not UTF-8"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, text, message):
    with pytest.raises(MedsegError, match=message):
        read_table(write(tmp_path / "t.csv", text), "key", ("id", "group"))


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("liver; tumour", ("liver", "tumour")),
        ("liver|tumour", ("liver", "tumour")),
        ("all", None),
        ("", None),
        ("none", ()),
    ],
)
def test_class_names_of_a_cell(cell, names):
    assert class_names(cell) == names


def test_annotated_classes_by_case(tmp_path):
    table = write(tmp_path / "t.csv", "id,annotated,who\na,liver;tumour,x\nb,all,y\n")
    assert [case.annotated for case in read_annotated(CASES, str(table))] == [("liver", "tumour"), None, ("old",)]
    assert read_annotated(CASES, None) == tuple(CASES)


def test_strangers_among_the_annotated_are_refused(tmp_path):
    with pytest.raises(MedsegError, match="no case is called x, y"):
        read_annotated(CASES, str(write(tmp_path / "t.csv", "id,annotated\ny,all\nx,all\n")))


UNGROUPED = [Case(name, "kept", ()) for name in ("p1-IM-1", "p1-IM-2", "p2-IM-1")]


def groups(**source):
    return [case.group for case in assign_groups(UNGROUPED, **source)]


def test_layouts_groups_are_kept_without_a_source():
    assert groups() == ["kept"] * 3


@pytest.mark.parametrize("pattern", ["^(.+?)-IM-", r"^p\d", r"^(p\d)-(IM)"])
def test_pattern_gives_its_first_group_or_all_of_the_match(pattern):
    assert groups(pattern=pattern) == ["p1", "p1", "p2"]


def test_file_gives_groups_whatever_else_it_holds(tmp_path):
    table = "\ufeffgroup,age,id\nA,3,p1-IM-1\nA,3,p1-IM-2\nB,4,p2-IM-1\nC,5,p9\n"
    assert groups(file=str(write(tmp_path / "g.csv", table))) == ["A", "A", "B"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"pattern": "^p1"}, "gives 1 of 3 cases no group:\n  - p2-IM-1"),
        ({"pattern": "x?"}, "gives 3 of 3 cases no group"),
        ({"pattern": "("}, "is no regular expression"),
        ({"pattern": "a", "file": "b"}, "exclude each other"),
        ({"file": "absent.csv"}, r"absent.csv cannot be read"),
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
def test_unusable_group_tables_are_refused(tmp_path, table, message):
    with pytest.raises(MedsegError, match=message):
        groups(file=str(write(tmp_path / "g.csv", table)))
