"""Tables in a terminal: no line is too long, no word broken that need not be, nothing lost."""

import io

import pytest
from rich.console import Console

from medseg.evaluation.pages.text_table import TextTable, print_tables

NUMBERS = "0.219 ± 0.031"


def lines_of(table: TextTable, width: int) -> list[str]:
    """What a terminal of some width shows, without empty space on the right."""
    console = Console(width=width, record=True, file=io.StringIO())
    print_tables([table], console)
    return [line.rstrip() for line in console.export_text().splitlines()]


def words_of(table: TextTable) -> list[str]:
    return sorted(word for row in (table.headers, *table.rows) for cell in row for word in cell.split())


@pytest.mark.parametrize(
    ("headers", "row"),
    [
        (
            ["class", "sensitivity", "precision", "volume difference (ml)", "relative volume difference (%)"],
            ["enhancing", "0.476", "0.232", "2.59", "110.0"],
        ),
        (
            ["run", "rank", "mean", "interval", "mean rank", "ranks", "first in", "alike"],
            ["hippocampus_10_0", "2", "0.889", "0.871–0.901", "1.8", "1–2", "18%", "a"],
        ),
        (
            ["metric", "first", "second", "first − second", "interval", "p", "verdict on first"],
            ["relative volume difference (%), absolute", "13497.6", "436.8 (8)", "+13060.8", "–", "–", "not shown"],
        ),
    ],
)
def test_lines_break_between_words(headers: list[str], row: list[str]) -> None:
    table = TextTable("title", headers, [row, ["mean", *row[1:]]])
    title, *lines = lines_of(table, 80)
    assert title.strip() == "title"
    assert max(map(len, lines)) <= 80
    assert sorted(" ".join(lines).replace("─", "").split()) == words_of(table)


def test_a_table_that_fits_is_not_broken_at_all() -> None:
    lines = lines_of(TextTable("t", ["site", "mean Dice"], [["Bonn", NUMBERS], ["Sao Paulo", NUMBERS]]), 80)
    assert [line.strip() for line in lines if NUMBERS in line] == [f"Bonn        {NUMBERS}", f"Sao Paulo   {NUMBERS}"]


def test_a_name_is_broken_before_numbers_are() -> None:
    lines = lines_of(TextTable("t", ["run", "Dice", "IoU"], [["a" * 60, NUMBERS, NUMBERS]]), 50)
    assert max(map(len, lines)) <= 50
    assert sum(NUMBERS in line for line in lines) == 1
    assert "".join(lines).count("a") == 60


def test_columns_without_room_go_below() -> None:
    names = [f"organ{place:02}" for place in range(20)]
    table = TextTable("by site", ["site", *names], [["Bonn", *[NUMBERS] * 20], ["mean", *[NUMBERS] * 20]], ["a note"])
    lines = lines_of(table, 80)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert text.count(NUMBERS) == 40
    assert [text.count(name) for name in names] == [1] * 20
    assert text.count("Bonn") == text.count("by site") == 5  # 8 + 4 · (13 + 3) columns and the edges in a part
    assert text.count("a note") == 1


def test_numbers_and_words_of_names_stay_whole_at_80_columns():
    """A value with its deviation is never parted, and a long name is broken behind a sign of it."""
    value, names = (
        "0.812 ± 0.101",
        ["hippocampus_anterior", "enhancing tumour core", "necrotic", "hippocampus posterior"],
    )
    rows = [["university_hospital-of/a/long/name", "12", *[value] * 4, "0.812"], ["mean", "12", *[value] * 4, "0.812"]]
    console = Console(width=80, record=True, file=io.StringIO())
    print_tables([TextTable("Dice by site", ["site", "cases", *names, "mean"], rows)], console)
    text = console.export_text()
    assert text.count(value) == 8
    assert max(map(len, text.splitlines())) <= 80
    assert all(line.split("   ")[0].strip()[-1:] in "_-/e" for line in text.splitlines() if " univ" in line)
