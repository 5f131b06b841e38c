"""Headers of lines of text, as MetaImage and NRRD have them: read to a limit, and their numbers."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

LONGEST_LINE, MOST_LINES, MOST_BYTES = 1 << 20, 20_000, 1 << 24  # 3D Slicer writes lines of some 100 kB

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


def following_lines(path: Path, start: int) -> Iterator[str]:
    """Yield the lines of text, but empty ones, that follow a header, such as the names of data files."""
    with path.open("rb") as stream:
        stream.seek(start)
        content = stream.read(MOST_BYTES)
    yield from filter(None, (line.strip() for line in content.decode("utf-8", "replace").splitlines()))


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
