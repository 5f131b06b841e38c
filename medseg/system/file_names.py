"""File names made from texts: case ids, class names, and the names of data sets and runs."""

import re
import unicodedata
from collections.abc import Iterable

from medseg.system.printable import STEERING

LONGEST = 120
"""Bytes. File systems take 255, encrypted ones 143; suffixes and the prefix of temporary files come on top."""

UNSAFE = re.compile(rf'[/\\:*?"<>|\t\n{STEERING}]')
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any suffix."""


def file_name(text: str) -> str:
    """Return a text as the name of one file or folder, without a suffix, on any system.

    Safe texts stay as they are. The name is never empty, hidden, a path, or longer than ``LONGEST`` bytes.

    >>> file_name("lesion: new/old"), file_name("../../etc"), file_name("aux.1")
    ('lesion_ new_old', '_.._etc', '_aux.1')
    """
    name = cut(UNSAFE.sub("_", unicodedata.normalize("NFC", text)).strip(" ."), LONGEST)
    return f"_{name}" if not name or RESERVED.fullmatch(name) else name


def file_names(texts: Iterable[str]) -> dict[str, str]:
    """Map texts to file names that are unique, without regard to case, too. Their order does not matter.

    >>> file_names(["a/b", "a:b", "A", "a"])
    {'A': 'A', 'a': 'a-2', 'a/b': 'a_b', 'a:b': 'a_b-2'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for text in sorted(set(texts), key=lambda text: (file_name(text) != text, text)):  # safe texts keep their names
        names[text] = unique(file_name(text), taken)
    return names


def unique(name: str, taken: set[str]) -> str:
    """Return a file name, numbered where it is taken already, and add it to the ``taken``."""
    numbered, number = name, 1
    while (key := unicodedata.normalize("NFC", numbered.casefold())) in taken:
        number += 1
        numbered = f"{cut(name, LONGEST - len(f'-{number}'))}-{number}"
    taken.add(key)
    return numbered


def cut(name: str, length: int) -> str:
    """Cut a name to so many bytes, between characters."""
    return name.encode()[:length].decode(errors="ignore").rstrip(" .")
