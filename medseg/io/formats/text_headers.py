"""Headers of lines of text, as MetaImage and NRRD have them: read to a limit, their numbers, and their data files."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

LONGEST_LINE, MOST_LINES, MOST_BYTES = 1 << 20, 20_000, 1 << 24  # 3D Slicer writes lines of some 100 kB

MOST_FILES, LONGEST_NAME = 100_000, 4096
NUMBERED = re.compile(r"(?P<before>[^%]*)%(?P<width>0?\d{0,2})d(?P<after>[^%]*)")
"""A numbered name, such as ``slice%03d.raw``. Wider numbers than 99 digits are none."""

MM = {"um": 1e-3, "µm": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1e3}
"""Length of the units that a header may name."""

Fields = dict[str, str]
Number = TypeVar("Number", int, float)


def header_lines(path: Path, is_last: Callable[[str], bool]) -> tuple[list[str], int]:
    """Return the lines of a header without their ends, and where what follows begins.

    Args:
        path: the file.
        is_last: whether the header ends with a line; at the end of the file it ends anyway.

    Raises:
        ValueError: no header is so long.
    """
    lines: list[str] = []
    with path.open("rb") as stream:
        while line := stream.readline(LONGEST_LINE):
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if len(line) == LONGEST_LINE or len(lines) > MOST_LINES or stream.tell() > MOST_BYTES:
                raise ValueError("its header does not end")
            if is_last(lines[-1]):
                break
        return lines, stream.tell()


def files_named(path: Path, name: str, field: str, start: int) -> list[Path]:
    """Return the data files that a field of a header at ``path`` names, there or not.

    Args:
        path: the file of the header, beside which they are.
        name: the field's value: a file; a numbered name, such as ``slice%03d.raw 1 20 1``, with first, last and step;
            or LIST, where the names follow the header, a line each.
        field: its name, for messages.
        start: where the header ends.

    Raises:
        ValueError: it names none, or more files than images have.
    """
    if name.split()[:1] == ["LIST"]:
        with path.open("rb") as stream:
            stream.seek(start)
            lines = stream.read(MOST_BYTES).decode("utf-8", "replace").splitlines()
        if len(lines) > MOST_FILES:
            raise ValueError(f"{field} lists {len(lines)} files, allowed are {MOST_FILES}")
        return [path.parent / line.strip() for line in lines if line.strip()]
    if len(name) > LONGEST_NAME:  # which would be searched for numbers for long
        raise ValueError(f"{field} has {len(name)} characters, and names no file")
    if numbered := re.fullmatch(r"(\S.*%\S*)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(\s+\d+)?", name):
        first, last, step = (int(numbered[group]) for group in (2, 3, 4))
        match = NUMBERED.fullmatch(numbered[1])
        numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
        if match is None or not 0 < len(numbers) <= MOST_FILES:
            raise ValueError(
                f"the data files {numbered[1]!r} from {first} to {last} by {step} are no list of 1 to {MOST_FILES}"
                " files"
            )
        return [path.parent / f"{match['before']}{number:{match['width']}d}{match['after']}" for number in numbers]
    if not name:
        raise ValueError(f"{field} names no file")
    return [path.parent / name]


def whole_numbers(fields: Fields, name: str, count: int | None = None, least: int = 1) -> tuple[int, ...]:
    """Return the whole numbers of a field; ValueError where they are not ``count``, or one is below ``least``."""
    numbers = _parsed(fields, name, count, int)
    if min(numbers, default=least) < least:
        raise ValueError(f"{name} is {fields[name]}, allowed are whole numbers from {least}")
    return numbers


def finite_numbers(fields: Fields, name: str, count: int | None = None) -> tuple[float, ...]:
    """Return the numbers of a field; ValueError where they are not ``count``, or one is not finite."""
    numbers = _parsed(fields, name, count, float)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} is {fields[name]}, allowed are finite numbers")
    return numbers


def _parsed(fields: Fields, name: str, count: int | None, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    if name not in fields:
        raise ValueError(f"its header has no {name}")
    words = fields[name].split()
    try:
        numbers = tuple(kind(word) for word in words)
    except ValueError as error:
        raise ValueError(f"{name} is {fields[name][:80]!r}, which are no numbers") from error
    if count is not None and len(numbers) != count:
        raise ValueError(f"{name} is {fields[name][:80]!r}, which should be {count} numbers")
    return numbers
