"""Errors meant for the user: what is wrong, where, which value was given, what is allowed, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def listing(problems: Iterable[str], *, most: int = 20) -> str:
    """Join problems as an indented list, the rest counted when there are more than ``most``."""
    problems = list(problems)
    rest = [f"... and {len(problems) - most} more"] if len(problems) > most else []
    return "\n".join(f"  - {problem}" for problem in problems[:most] + rest)
