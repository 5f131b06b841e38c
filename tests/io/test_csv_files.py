"""CSV files that medseg writes: no formula, no escape code, and the very texts back."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.io.csv_files import as_csv, read_csv
from medseg.system.files import write_text

CELLS = st.text(st.characters()) | st.from_regex(r"['=+\-@\t\r\n\\u001b0-9a-f,\"]{0,9}", fullmatch=True)
FORMULAS = ["=1+1", "=cmd|' /C calc'!A0", "+SUM(A1)", "-1+1", "@SUM(1)", "\t=1", "\r=1", "＝1+1", "-", "+a", "-lesion"]


def raw(text: str) -> list[list[str]]:
    """The cells as any other program reads them."""
    return list(csv.reader(io.StringIO(text, newline="")))


@given(st.lists(CELLS, min_size=1, max_size=4, unique=True), st.lists(CELLS, max_size=4))
def test_any_texts_are_read_back(tmp_path_factory, columns, cells):
    path = tmp_path_factory.getbasetemp() / "table.csv"
    row = dict(zip(columns, [*cells, "", "", "", ""], strict=False))
    write_text(path, as_csv(columns, [row, row]))
    assert read_csv(path) == [row, row]


@given(CELLS)
def test_no_cell_is_a_formula_or_steers_a_terminal(text):
    ((header,), *rows) = raw(as_csv([text], [{text: text}]))
    assert all(row == [header] for row in rows)
    assert "\x1b" not in header
    header.encode()
    try:
        float(header)
    except ValueError:
        assert not header.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_have_an_apostrophe_before_them(formula, tmp_path):
    text = as_csv([formula, "x"], [{formula: formula, "x": 1}])
    assert all(row[0].startswith("'") for row in raw(text))
    write_text(tmp_path / "a.csv", text)
    assert read_csv(tmp_path / "a.csv") == [{formula: formula, "x": "1"}]


@pytest.mark.parametrize("number", [-5, -0.25, -1e-9, "-5", "-0.25", "+1.5e-7", "-inf", "-.5"])
def test_negative_numbers_stay_numbers(number):
    assert raw(as_csv(["x"], [{"x": number}]))[1] == [str(number)]


def test_rows_may_lack_columns_and_have_further_ones():
    assert as_csv(["a", "b"], [{"b": 1, "c": 2}]) == "a,b\n,1\n"
