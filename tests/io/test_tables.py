"""CSV tables about cases."""

import pytest

from medseg.errors import MedsegError
from medseg.io.case import Case
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
    assert [case.annotated for case in read_annotated(CASES, table)] == [("liver", "tumour"), None, ("old",)]
    assert read_annotated(CASES, None) == tuple(CASES)


def test_strangers_among_the_annotated_are_refused(tmp_path):
    with pytest.raises(MedsegError, match="no case is called x, y"):
        read_annotated(CASES, write(tmp_path / "t.csv", "id,annotated\ny,all\nx,all\n"))
