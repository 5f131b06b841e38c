"""Errors meant for the user: what is wrong, where, which value was given, what is allowed, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class MedsegError(Exception):
    """A problem that the user can mend. Its message is all that the command line shows: no traceback.

    >>> try:
    ...     medseg.read_scan("scans/c.png")
    ... except medseg.MedsegError as error:
    ...     print(error)
    scans/c.png: there is no such file. Did you mean 'b.png'?
    """


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return a hint at the closest allowed name, or an empty string.

    >>> nearest("dept", ["depth", "strides"])
    " Did you mean 'depth'?"
    """
    close = get_close_matches(name, list(allowed), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def nearest_path(path: Path) -> str:
    """Return a hint at the path that one which is not there may stand for, or an empty string.

    The first of its folders that is not there is taken for the closest that is.
    """
    absent = next((each for each in (*reversed(path.parents), path) if not each.exists()), path)
    try:
        names = [entry.name for entry in absent.parent.iterdir()] if absent.parent.is_dir() else []
    except PermissionError:  # what may not be listed cannot be suggested
        return ""
    if not (close := get_close_matches(absent.name, names, n=1)):
        return ""
    found = absent.with_name(close[0])
    below = found / path.relative_to(absent)
    return f" Did you mean '{below if below.exists() else found}'?"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def listing(problems: Iterable[str], *, most: int = 20) -> str:
    """Join problems as an indented list, the rest counted when there are more than ``most``."""
    problems = list(problems)
    rest = [f"... and {len(problems) - most} more"] if len(problems) > most else []
    return "\n".join(f"  - {problem}" for problem in problems[:most] + rest)
