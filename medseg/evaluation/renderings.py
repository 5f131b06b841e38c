"""Tables of text as Markdown, as LaTeX and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medseg.evaluation.tables import TextTable

if TYPE_CHECKING:
    from rich.table import Table

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def for_terminal(table: TextTable) -> Table:
    """Return a table for a terminal of 80 columns or more."""
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
    for place, header in enumerate(table.headers):
        if place:
            shown.add_column(escape(header), justify="right", overflow="fold", no_wrap=" " not in header)
        else:
            shown.add_column(escape(header), overflow="fold", min_width=8)
    for row in table.rows:
        is_mean = row is table.rows[-1] and row[0] == "mean"
        if is_mean:
            shown.add_section()
        shown.add_row(*map(escape, row), style="bold" if is_mean else None)
    return shown


def as_markdown(table: TextTable) -> str:
    """Return a table of Markdown under a heading."""
    lines = [_line(table.headers), _line(["---", *["---:"] * (len(table.headers) - 1)])]
    lines += [_line([_plain(cell) for cell in row]) for row in table.rows]
    notes = [f"\n{_plain(note)}" for note in table.notes]
    return "\n".join([f"### {_plain(table.title)}\n", *lines, *notes, ""])


def as_latex(table: TextTable) -> str:
    """Return a ``tabular`` environment in the style of booktabs."""
    rows = [" & ".join(map(_in_latex, row)) + r" \\" for row in table.rows]
    if rows and table.rows[-1][0] == "mean":
        rows.insert(-1, r"\midrule")
    head = " & ".join(map(_in_latex, table.headers)) + r" \\"
    columns = "l" + "r" * (len(table.headers) - 1)
    notes = [f"% {note}" for note in (table.title, *table.notes)]
    lines = [*notes, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text without a meaning in Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_|<>[]#" else letter for letter in text)


def _in_latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
