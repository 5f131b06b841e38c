"""CSV tables of any cells, as spreadsheets and other programs write them, are read cell by cell."""

import csv
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import MedsegError
from medseg.io.tables import read_table

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0") | st.sampled_from(",;\t\"'\n "), max_size=12)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.sampled_from(" ,;\"'"), max_size=10)


@st.composite
def tables(draw):
    """Columns and rows; no cell ends in a space, no row is empty, two columns at least."""
    columns = draw(st.lists(NAMES.map(str.strip).filter(bool), min_size=2, max_size=5, unique=True))
    cells = st.lists(CELLS.map(str.strip), min_size=len(columns), max_size=len(columns))
    return columns, draw(st.lists(cells.filter(any), max_size=5))


@given(
    tables(),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["", "\ufeff"]),
)
def test_tables_of_any_program_are_read(tmp_path_factory, table, delimiter, line_end, quoting, mark):
    columns, rows = table
    text = StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows([columns, *rows])
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_bytes((mark + text.getvalue()).encode())
    assert read_table(path, "dataset.table", columns) == [dict(zip(columns, row, strict=True)) for row in rows]


@given(st.binary(max_size=200) | st.text(st.sampled_from('id,;\t"\n\r\0ab'), max_size=40).map(str.encode))
def test_any_bytes_are_a_table_or_refused_by_name(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(content)
    try:
        rows = read_table(path, "dataset.table")
    except MedsegError as error:
        message = str(error)
    else:
        assert all(isinstance(cell, str) for row in rows for cell in row.values())
        return
    assert f"dataset.table={path}" in message
