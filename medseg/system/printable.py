"""Texts of files and users, made safe to print and write: what steers a terminal or reverses a name is escaped."""

import logging
import re

STEERING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""Control characters but line feed and tab, marks that reorder text, and bytes of file names that are not UTF-8.

They are written in a class of a regular expression.
"""

UNPRINTABLE = re.compile(f"[{STEERING}]")
UNPRINTABLE_ON_A_LINE = re.compile(f"[\t\n{STEERING}]")


def printable(text: str) -> str:
    r"""Return a text of one or more lines with escapes such as ``\\u001b``, which JSON reads as the character itself.

    >>> print(printable("liver\x1b[2J"))
    liver\u001b[2J
    """
    return UNPRINTABLE.sub(escaped, text)


def on_a_line(text: str) -> str:
    """Return a name as ``printable`` does, and on one line."""
    return UNPRINTABLE_ON_A_LINE.sub(escaped, text)


def escaped(match: re.Match[str]) -> str:
    """Return the escape of the one character of a match."""
    return f"\\u{ord(match[0]):04x}"


class PrintableFormatter(logging.Formatter):
    """Formats records for terminals and log files, whatever names they contain; times are of one kind in all."""

    default_time_format = "%Y-%m-%d %H:%M:%S"
    default_msec_format = None

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, a traceback included."""
        return printable(super().format(record))
