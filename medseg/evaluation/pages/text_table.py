"""Tables of text: in a terminal, as Markdown and as LaTeX; ``page.py`` has them in HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.cells import cell_len

from medseg.system.printable import on_a_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NONE = "–"
"""A cell without a value."""

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}

WORDS = re.compile(r"[^\s_/.,:=-]*[\s_/.,:=-]+|[^\s_/.,:=-]+")
"""What names consist of: words with the signs behind them."""

NAME_WIDTH = 8
"""Least width of the first column: longer names are broken into lines where there is no room."""


@dataclass(frozen=True)
class TextTable:
    """A table whose first column has names and the others numbers; ``notes`` stand below."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """The columns, each from its header on."""
        return list(zip(self.headers, *self.rows, strict=True))

    @property
    def has_mean(self) -> bool:
        """Whether the last row is the mean of the others."""
        return bool(self.rows) and self.rows[-1][0] == "mean"


def print_tables(tables: Iterable[TextTable], console: Console) -> None:
    """Print tables; those with more columns than there is room for are split, one piece below the other."""
    for table in tables:
        # names are made printable, each on a line, which the widths of columns depend on
        rows = [[on_a_line(cell) for cell in row] for row in table.rows]
        readable = replace(table, headers=[on_a_line(header) for header in table.headers], rows=rows)
        for piece in split_columns(readable, console.width):
            console.print(for_terminal(piece, console.width))


def for_terminal(table: TextTable, width: int) -> Table:
    """Return a table for a terminal of so many columns; its lines break between words, in names where they must."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = Table(
        title=escape(table.title),
        caption=escape("\n".join(table.notes)) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    fitted = widths(table, width)
    for column, header in enumerate(table.headers):
        shown.add_column(escape(header), justify="right" if column else "left", overflow="fold", width=fitted[column])
    for row in table.rows:
        is_mean = table.has_mean and row is table.rows[-1]
        if is_mean:
            shown.add_section()
        cells = [broken(row[0], fitted[0]), *row[1:]]
        shown.add_row(*map(escape, cells), style="bold" if is_mean else None)
    return shown


def broken(name: str, width: int) -> str:
    """Return a name in lines of at most so many columns, broken behind blanks and signs rather than within words.

    >>> broken("hippocampus_anterior", 14), broken("lung", 14)
    ('hippocampus_\\nanterior', 'lung')
    """
    lines = [""]
    for word in WORDS.findall(name):
        if lines[-1] and cell_len((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines)


def split_columns(table: TextTable, width: int) -> Iterator[TextTable]:
    """Yield a table, or where it cannot be that narrow several, each with the first column and some of the others."""
    name, *others = least_widths(table)
    fits = [sum([min(name, NAME_WIDTH), *others[:n]]) + frame(n + 1) <= width for n in range(1, len(others) + 1)]
    n = max(1, sum(fits))
    if n >= len(others):
        yield table
        return
    first = [[row[0], *row[1 : n + 1]] for row in table.rows]
    rest = [[row[0], *row[n + 1 :]] for row in table.rows]
    yield replace(table, headers=table.headers[: n + 1], rows=first, notes=())
    yield from split_columns(replace(table, headers=[table.headers[0], *table.headers[n + 1 :]], rows=rest), width)


def widths(table: TextTable, width: int) -> list[int]:
    """Return the width of each column: what it would take, less where there is no room, from the widest on."""
    fitted = [max(map(cell_len, column)) for column in table.columns]
    least = least_widths(table)
    room = width - frame(len(fitted))
    least[0] = min(least[0], max(NAME_WIDTH, room - sum(least[1:])))
    while sum(fitted) > room and (wider := [column for column, one in enumerate(fitted) if one > least[column]]):
        fitted[max(wider, key=lambda column: fitted[column])] -= 1
    return fitted


def least_widths(table: TextTable) -> list[int]:
    """Return the narrowest that each column can be without a break in a word, in numbers, or under a header of one."""
    least = []
    for header, *cells in table.columns:
        unbroken = header.split()
        for cell in cells:
            is_broken = " " in header and not any(map(str.isdigit, cell))
            unbroken += cell.split() if is_broken else [cell]
        least.append(max(map(cell_len, unbroken), default=0))
    return least


def frame(n_columns: int) -> int:
    """Return what the space at the edges of a table and between its columns takes."""
    return 3 * n_columns - 1


def as_markdown(table: TextTable) -> str:
    """Return a table of Markdown under a heading."""
    head, *rows = [[plain(cell) for cell in row] for row in (table.headers, *table.rows)]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    notes = [f"\n{plain(note)}" for note in table.notes]
    return "\n".join([f"### {plain(table.title)}\n", *lines, *notes, ""])


def as_latex(table: TextTable) -> str:
    """Return a ``tabular`` environment in the style of booktabs."""
    rows = [" & ".join(map(_in_latex, row)) + r" \\" for row in table.rows]
    if table.has_mean:
        rows.insert(-1, r"\midrule")
    head = " & ".join(map(_in_latex, table.headers)) + r" \\"
    columns = "l" + "r" * (len(table.headers) - 1)
    notes = [f"% {on_a_line(note)}" for note in (table.title, *table.notes)]
    lines = [*notes, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def plain(text: str) -> str:
    """Return text without a meaning in Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_|<>[]#" else letter for letter in on_a_line(text))


def _in_latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in on_a_line(text))


def counted(number: int, word: str) -> str:
    """Write how many there are of something.

    >>> counted(1, "error"), counted(2, "case")
    ('1 error', '2 cases')
    """
    return f"{number} {word}{'s' if number != 1 else ''}"


def few(names: Sequence[str], most: int = 5) -> str:
    """Write the first names, and how many more there are.

    >>> few("abc"), few("abcdef", most=2)
    ('a, b, c', 'a, b and 4 more')
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
