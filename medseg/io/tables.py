"""CSV tables about cases: patients, parts of a split, annotated classes, or whole data sets."""

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

from medseg.errors import MedsegError
from medseg.io.case import Case

Row = dict[str, str]


def read_table(path: Path, key: str, needed: Collection[str] = ()) -> list[Row]:
    """Read a CSV table with a header, in UTF-8; commas, semicolons and tabs part columns. ``key`` names it in errors.

    Raises:
        MedsegError: it cannot be read, lacks a needed column, has one twice, or a row of another length.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise MedsegError(f"{key}={path} is no file. Give a CSV table.")
        text = path.read_text(encoding="utf-8-sig")
        # the header has the needed columns, or else the most, by what separates them; names may hold the others
        headers = {delimiter: next(_rows(text, delimiter), []) for delimiter in ",;\t"}
        delimiter = max(headers, key=lambda each: (len({*needed} & {*headers[each]}), len(headers[each])))
        rows = list(_rows(text, delimiter))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise MedsegError(f'{key}={path}: line {line} is not UTF-8. Save the table as "CSV UTF-8".') from error
    except OSError as error:
        raise MedsegError(f"{key}={path} cannot be read: {error.strerror}.") from error
    except (ValueError, csv.Error) as error:
        raise MedsegError(f"{key}={path} cannot be read: {error}") from error
    columns, *body = rows or [[]]
    if missing := [name for name in needed if name not in columns]:
        raise MedsegError(
            f"{key}={path} needs the column{'s' * (len(missing) > 1)} {' and '.join(missing)},"
            f" it has {', '.join(columns) or 'none'}."
        )
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise MedsegError(f"{key}={path} has the column {twice[0]} twice.")
    wrong = [number for number, row in enumerate(body, 2) if row and len(row) != len(columns)]
    if wrong:
        raise MedsegError(f"{key}={path}: line {wrong[0]} has not {len(columns)} cells as the header. Quote commas.")
    return [dict(zip(columns, row, strict=True)) for row in body if any(row)]


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return ([cell.strip() for cell in row] for row in csv.reader(StringIO(text), delimiter=delimiter))


def read_annotated(cases: Iterable[Case], file: Path | None) -> tuple[Case, ...]:
    """Give the cases in a table (columns id and annotated) the classes that were annotated in them.

    ``annotated`` holds class names parted by ";" or "|", "all" or nothing for all of them, or "none"; cases that the
    table does not list keep what their layout says.

    Raises:
        MedsegError: the table cannot be used, lists a case twice, or one that does not exist.
    """
    cases = tuple(cases)
    if file is None:
        return cases
    rows = read_table(file, "dataset.annotated_file", ("id", "annotated"))
    classes = {row["id"]: class_names(row["annotated"]) for row in rows}
    times = Counter(row["id"] for row in rows)
    if twice := sorted({row["id"] for row in rows if times[row["id"]] > 1}):
        raise MedsegError(f"dataset.annotated_file={file} lists {', '.join(twice[:10])} more than once.")
    if unknown := sorted(classes.keys() - {case.id for case in cases}):
        raise MedsegError(f"dataset.annotated_file={file}: no case is called {', '.join(unknown[:10])}.")
    return tuple(replace(case, annotated=classes[case.id]) if case.id in classes else case for case in cases)


def class_names(cell: str) -> tuple[str, ...] | None:
    """Return the classes that a cell names; None: all.

    >>> class_names("liver; tumour"), class_names("all"), class_names(""), class_names("none")
    (('liver', 'tumour'), None, None, ())
    """
    if cell in ("", "all"):
        return None
    return tuple(name.strip() for name in cell.replace("|", ";").split(";") if name.strip() and cell != "none")
