"""The form of the pages: what every Markdown renderer shows alike, and what a reader of a phone can read."""

import re
from itertools import pairwise

import pytest
from written_code import PAGES, ROOT, blocks, name_of, prose

LANGUAGES = {"bash", "python", "yaml", "text", "csv", "json"}
"""Blocks of the shell and of Python are run or checked by other tests, the others are not code of ours to run."""

SHELL = re.compile(r"\s*(\$ )?(medseg|pip|python|make|torchrun|srun) ")

every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@every_page
def test_no_cell_of_a_table_has_more_than_twenty_words(page):
    rows = [line for line in prose(page) if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row.strip("|"))]
    assert not [cell for cell in cells if len(cell.split()) > 20]


@every_page
def test_lists_and_tables_begin_after_an_empty_line(page):
    """Else they are text for Python-Markdown, of which the site is made."""
    lines = ["", *prose(page)]
    begun = re.compile(r"([*-]|\d+\.) |\|")
    goes_on = re.compile(r"([*-]|\d+\.) |\||\s")
    assert not [
        line for before, line in pairwise(lines) if begun.match(line) and before.strip() and not goes_on.match(before)
    ]


@every_page
def test_every_block_has_a_language_and_commands_stand_in_blocks_of_the_shell(page):
    assert not [str(block) for block in blocks(page) if block.language not in LANGUAGES]
    assert not [line for line in prose(page) if line.startswith("    ") and SHELL.match(line)]
    others = [block for block in blocks(page) if block.language not in ("bash", "python")]
    assert not [str(block) for block in others if any(SHELL.match(line) for line in block.code.splitlines())]


@every_page
def test_a_page_has_one_title(page):
    assert [line[:2] for line in prose(page) if line.startswith("# ")] == ["# "]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "notebooks/README.md"])
def test_links_of_pages_beside_the_site_lead_somewhere(name):
    """Those of the site are checked where it is built."""
    page = ROOT / name
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]
