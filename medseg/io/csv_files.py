r"""The CSV files that medseg writes, and reads back: safe in spreadsheets and on terminals, whatever names they hold.

A text that a spreadsheet would take for a formula gets an apostrophe before it, as does one that begins with
apostrophes before such a character. Control characters and bytes that are not UTF-8 are written as ``\u001b``, and so
is a backslash that would begin such an escape. ``read_csv`` gives back the very texts; numbers stay as they are.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from medseg.system.files import check_plain_file
from medseg.system.printable import STEERING, escaped

FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How texts begin that spreadsheets compute; full-width signs count."""
NUMBER = re.compile(r"[+-](\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-](inf|nan)", re.IGNORECASE)
ESCAPED = re.compile(rf"[{STEERING}]|\\(?=u[0-9a-f]{{4}})")
ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table: a header and rows. What a row lacks is an empty cell; further columns of it are left out."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(cell_of, columns))
    writer.writerows([cell_of(row.get(column, "")) for column in columns] for row in rows)
    return text.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table that ``as_csv`` made.

    Raises OSError, ValueError or csv.Error where it cannot be read.
    """
    check_plain_file(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, restval="", strict=True)
        names = {name: text_of(name) for name in rows.fieldnames or ()}
        return [{names[name]: text_of(cell) for name, cell in row.items() if name is not None} for row in rows]


def cell_of(value: Any) -> Any:
    r"""Return a value as it stands in a cell.

    >>> cell_of("=1+1"), cell_of("-5"), cell_of(-5.0), cell_of("a\x1b"), cell_of("'a")
    ("'=1+1", '-5', -5.0, 'a\\u001b', "'a")
    """
    if not isinstance(value, str):
        return value
    quote = "'" if FORMULA.match(value) and not NUMBER.fullmatch(value) else ""
    return quote + ESCAPED.sub(escaped, value)


def text_of(cell: str) -> str:
    """Return the text that ``cell_of`` made a cell of.

    >>> text_of("'=1+1"), text_of("'a")
    ('=1+1', "'a")
    """
    text = ESCAPE.sub(lambda match: chr(int(match[1], 16)), cell) if "\\" in cell else cell
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
