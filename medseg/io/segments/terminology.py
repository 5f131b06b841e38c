"""What is said of a class: the colour that it is shown in, and its name, value and codes in files of named segments."""

import colorsys
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from medseg.errors import MedsegError, nearest
from medseg.io.labels import LabelMap

Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = tuple(
    (code >> 16, code >> 8 & 255, code & 255)
    for code in (
        *(0xE69F00, 0x56B4E9, 0xF0E442, 0x009E73, 0xD55E00, 0x0072B2, 0xCC79A7, 0x5500FF),
        *(0x5566EE, 0x00FF88, 0xBB0033, 0x00FFFF, 0xAAEEBB, 0x991177, 0x88AA55, 0x7799FF),
        *(0x8800BB, 0x99DD55, 0xBB1100, 0x884455, 0xFF6688, 0xCC00AA, 0x5544EE, 0x22BBCC),
    )
)
"""Colours of the classes 1, 2, …: the seven of Okabe and Ito ("Color Universal Design", 2008), then, one by one, the
colour farthest in CIE Lab from all before it for normal, protanopic and deuteranopic eyes alike; none is near grey."""


def colour(index: int) -> Colour:
    """Return the colour of class ``index`` (from 1): the palette's, then one of a hue not met before."""
    if index <= len(PALETTE):
        return PALETTE[index - 1]
    hue = index * 0.618034 % 1  # steps of the golden ratio never meet an old hue
    red, green, blue = colorsys.hsv_to_rgb(hue, (1.0, 0.6)[index % 2], (1.0, 0.8, 0.6)[index % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


LONGEST_VALUE, LONGEST_MEANING = 16, 64
"""Characters that DICOM allows in a code (PS3.5, SH and LO)."""


@dataclass(frozen=True)
class Code:
    """A term of a terminology, such as ``Code("10200004", "SCT", "Liver")`` of SNOMED CT."""

    value: str
    scheme: str
    meaning: str


TISSUE = Code("85756007", "SCT", "Tissue")
"""The category of classes that the user gives none: it fits organs and lesions alike."""
PRIVATE = "99MEDSEG"
"""The scheme of classes without a code of the user's; DICOM has private ones begin with 99."""


@dataclass(frozen=True)
class ClassDescription:
    """A foreground class as files describe it; ``value`` is that of the training masks."""

    index: int
    name: str
    value: int
    colour: Colour
    code: Code
    category: Code = TISSUE

    @property
    def label(self) -> str:
        """The name as DICOM can hold it."""
        return dicom_label(self.name)


def describe(label_map: LabelMap, codes: Mapping[str, Any] | None = None) -> list[ClassDescription]:
    """Describe the foreground classes.

    ``codes`` gives the codes of classes: ``{"liver": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}}``,
    each with a further ``"category"`` of the same form if needed. Others get a private code made from their name.

    Raises:
        MedsegError: a class in ``codes`` does not exist, or a code is incomplete or too long for DICOM.
    """
    codes = codes or {}
    if unknown := [name for name in codes if name not in label_map.names[1:]]:
        raise MedsegError(
            f"codes: {unknown[0]!r} is none of the classes {', '.join(label_map.names[1:])}."
            f"{nearest(str(unknown[0]), label_map.names[1:])}"
        )
    result = []
    for index, (name, value) in enumerate(zip(label_map.names, label_map.values, strict=True)):
        if index:
            entry = codes.get(name)
            if entry is None:  # a private code that is the same for the same name wherever it is made
                code = Code(f"C{crc32(name.encode()):08X}", PRIVATE, dicom_label(name))
            else:
                code = code_of(entry, f"codes.{name}", {"category"})
            category = code_of(entry["category"], f"codes.{name}.category") if entry and "category" in entry else TISSUE
            result.append(ClassDescription(index, name, value, colour(index), code, category))
    return result


def dicom_label(name: str) -> str:
    """Return a name as a long string of DICOM (LO): of 64 characters, without backslashes and control characters.

    >>> dicom_label(r"left\\right")
    'left_right'
    """
    return re.sub(r"[\\\x00-\x1f\x7f-\x9f]", "_", name).strip()[:LONGEST_MEANING]


def code_of(entry: Any, where: str, further: frozenset[str] | set[str] = frozenset()) -> Code:
    """Check a code of the config."""
    fields = {"value", "scheme", "meaning"}
    if not isinstance(entry, Mapping) or not fields <= set(entry) <= fields | further:
        raise MedsegError(
            f"{where}={entry}: a code is {{value: ..., scheme: ..., meaning: ...}}, for example"
            " {value: '10200004', scheme: SCT, meaning: Liver}."
        )
    code = Code(*(str(entry[field]) for field in ("value", "scheme", "meaning")))
    longest = {code.value: LONGEST_VALUE, code.scheme: LONGEST_VALUE, code.meaning: LONGEST_MEANING}
    if wrong := [text for text, most in longest.items() if not 0 < len(text) <= most]:
        raise MedsegError(
            f"{where}: {wrong[0]!r} has {len(wrong[0])} characters; DICOM takes 1 to {longest[wrong[0]]}."
        )
    return code
