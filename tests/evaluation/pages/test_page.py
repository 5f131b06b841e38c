"""Pages that need nothing else: their markup, and what their tables do in a browser."""

import re
from pathlib import Path
from typing import Any

import pytest
from browser import Markup, needs_browser, visit
from PIL import Image

from medseg.errors import MedsegError
from medseg.evaluation.pages.page import NUMBER, ROOT, Picture, environment
from medseg.evaluation.pages.text_table import TextTable

HOSTILE = "</script><b onclick='x'>\"&amp;"
TABLE = TextTable(
    "Dice & more",
    ("class", "Dice", "site", "n"),
    [
        ("b 10", "0.9 ± 0.1", "Bonn", "1,000"),
        ("b 9", "–", "Aachen", "20"),
        (HOSTILE, "-0.75", "", "3"),
        ("mean", "0.5", "", ""),
    ],
    ["a note"],
)


PAGE = """
{% extends "evaluation/pages/page.html" %}
{% from "evaluation/pages/macros.html" import preformatted, section, table, terms with context %}
{% set scripts = ["evaluation/pages/page.js", script] %}
{% block content %}
{% call section("The first part") %}
{{ table(shown, sortable=true, filterable=true, links=["#a", "#b", "#c", ""]) }}
{% endcall %}
{% call section("2nd: more") %}
<details><summary>Config</summary>{{ preformatted(title, "c") }}{{ terms({"a": "b"}) }}</details>
{% endcall %}
{% endblock %}
"""
PHONE = """
{% extends "evaluation/pages/page.html" %}
{% from "evaluation/pages/macros.html" import table with context %}
{% block content %}{{ table(shown) }}{% endblock %}
"""


def rendered(template: str, shown: TextTable, **values: Any) -> str:
    return environment().from_string(template).render(values, title=HOSTILE, shown=shown, sections=[])


@pytest.fixture
def made(tmp_path: Path) -> str:
    script = tmp_path / "own.js"
    script.write_text("globalThis.second = document.querySelectorAll('th button').length;")
    return rendered(PAGE, TABLE, script=script)


def test_a_page_is_whole_and_names_cannot_break_it(made: str) -> None:
    found = Markup(made)
    assert not found.all("b")
    assert len(found.all("script")) == 2
    assert found.text.count(HOSTILE) == 4  # title, heading, cell, config
    assert [part["id"] for part in found.all("section")] == ["the-first-part", "2nd-more"]
    assert {link["href"] for link in found.all("a")} == {"#main", "#the-first-part", "#2nd-more", "#a", "#b", "#c"}


def test_tables_keep_the_text_and_tell_what_each_cell_is_of(made: str) -> None:
    found = Markup(made)
    assert found.tables["Dice & more"] == [list(TABLE.headers), *map(list, TABLE.rows)]
    heads = found.all("th")
    assert [head["scope"] for head in heads] == ["col"] * 4 + ["row"] * 4
    assert [head.get("class") for head in heads[:4]] == ["text", None, "text", None]
    assert len(found.all("tfoot")) == 1


@pytest.mark.parametrize(
    ("cell", "is_number"),
    [
        *(
            (cell, True)
            for cell in ("1", "-0.5", "1,234.5", "1e-05", "0.9 ± 0.1", "0.1–0.2", "12 (3)", "– (2)", "–", "12.5 %", "")
        ),
        *((cell, False) for cell in ("Bonn", "3T", "2020-01-05", "a 1", "1 of 2", "-")),
    ],
)
def test_cells_that_are_numbers(cell: str, is_number: bool) -> None:
    assert bool(NUMBER.fullmatch(cell)) == is_number


READ = """
const shownRows = () => [...document.querySelectorAll("tbody tr")].filter(row => !row.hidden);
const rows = () => shownRows().map(row => row.cells[0].textContent);
const heads = [...document.querySelectorAll("thead th")], buttons = heads.map(head => head.querySelector("button"));
const press = place => { buttons[place].click(); return [rows(), heads.map(head => head.getAttribute("aria-sort"))]; };
"""


@needs_browser
def test_a_browser_sorts_by_numbers_and_by_text(made: str, tmp_path: Path) -> None:
    script = """const foot = document.querySelector("tfoot").textContent;
    return [press(1), press(1), press(3), press(2), press(0), globalThis.second, foot];"""
    up, down, thousands, text, names, second, foot = visit(made, tmp_path, READ + script)
    assert up == [[HOSTILE, "b 10", "b 9"], [None, "ascending", None, None]]
    assert down == [["b 10", HOSTILE, "b 9"], [None, "descending", None, None]]  # without a value: last
    assert thousands[0] == [HOSTILE, "b 9", "b 10"]
    assert text[0] == ["b 9", "b 10", HOSTILE]
    assert names[0][1:] == ["b 9", "b 10"]
    assert (second, foot) == (4, "mean0.5")


@needs_browser
def test_a_browser_filters_and_unfolds_for_print(made: str, tmp_path: Path) -> None:
    script = """
    const input = document.querySelector(".filter input"), shown = document.querySelector(".filter output");
    const type = text => {
        input.value = text;
        input.dispatchEvent(new Event("input", { bubbles: true }));
        return [rows(), shown.value];
    };
    const found = [type("B bonn"), type("nothing of this"), type("")];
    const part = document.querySelector("details"), states = [part.open];
    for (const name of ["beforeprint", "afterprint"]) { dispatchEvent(new Event(name)); states.push(part.open); }
    return [...found, states, document.querySelector("label").control === input];
    """
    words, nothing, everything, states, is_labelled = visit(made, tmp_path, READ + script)
    assert words == [["b 10"], "1 of 3 shown"]
    assert nothing == [[], "0 of 3 shown"]
    assert everything[1] == "3 of 3 shown"
    assert (states, is_labelled) == ([False, True, False], True)


@needs_browser
def test_a_wide_table_scrolls_in_its_box_on_a_phone(tmp_path: Path) -> None:
    wide = TextTable("Wide", [f"column {place}" for place in range(40)], [["a" * 90] + ["1.234"] * 39])
    script = """const box = document.querySelector(".scroll");
    const fits = document.documentElement.scrollWidth <= innerWidth;
    return [fits, box.scrollWidth > box.clientWidth, box.tabIndex, innerWidth];"""
    assert visit(rendered(PHONE, wide), tmp_path, script, width=375) == [True, True, 0, 375]


def test_a_script_that_the_page_does_not_name_is_refused(made: str) -> None:
    policy = Markup(made).all("meta")[2]["content"] or ""
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_no_template_leaves_a_value_unescaped() -> None:
    """Only text that stands in a template itself is marked as safe."""
    templates = list(ROOT.rglob("*.html"))
    assert len(templates) > 5
    for path in templates:
        text = path.read_text("utf-8")
        assert not re.findall(r"""[^"']\s*\|\s*safe""", text), path
        assert "autoescape" not in text, path


def test_a_picture_of_a_run_is_a_png_whatever_its_name_says(tmp_path):
    """Pillow takes many formats by their content, one of which (EPS) starts a program."""
    path = tmp_path / "overlay.png"
    Image.new("RGB", (8, 6)).save(path)
    assert Picture.shrunk(path, (4, 4)).width == 4
    Image.new("RGB", (8, 6)).save(path, "EPS")
    with pytest.raises(MedsegError, match=r"overlay\.png: no readable PNG"):
        Picture.shrunk(path, (4, 4))
