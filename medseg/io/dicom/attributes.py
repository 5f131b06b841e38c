"""Attributes of patient and study in DICOM files, in the form that the standard demands of objects made from them.

Anonymisers and old scanners write these attributes freely. A valid value is copied, one in another form that can mean
only one thing is brought into DICOM's form, and any other is left empty, which all of them may be (type 2, PS3.3 7.4):
a wrong birth date or a truncated identifier would be worse than none.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any

from medseg.io.dicom.headers import listed

LONGEST_GROUP = 64
"""Characters of one of a name's groups: alphabetic, ideographic, phonetic (PS3.5, 6.2)."""

SEXES = {
    "M": [
        *("m", "male", "man", "männlich", "maennlich", "mann", "masculin", "masculino", "maschile", "homme", "hombre"),
        "uomo",
    ],
    "F": [
        *("f", "female", "woman", "w", "weiblich", "frau", "féminin", "feminin", "femenino", "feminino", "femminile"),
        *("femme", "mujer", "donna"),
    ],
    "O": ["o", "other", "divers"],
}
"""The values of PatientSex, and the words for each."""

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
EARLIEST = 1800
"""The year before which a date is a placeholder, such as 00010101."""
DATES = (
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)([T ]?\d\d:?\d\d.*)?",
    r"(?P<year>\d{4})(?P<mark>[-./ ])(?P<month>\d\d?)(?P=mark)(?P<day>\d\d?)([T ]\d\d?:\d\d.*)?",
    r"(?P<day>\d\d?)(?P<mark>[-./ ])(?P<month>\d\d?|[a-z]{3})(?P=mark)(?P<year>\d{4})([T ]\d\d?:\d\d.*)?",
    r"(?P<month>\d\d?)(?P<mark>[-./ ])(?P<day>\d\d?)(?P=mark)(?P<year>\d{4})([T ]\d\d?:\d\d.*)?",
)
"""The orders in which people write dates. One that fits two of them with different results is not certain."""
TIMES = (
    r"(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d+))?)? ?([AaPp]\.?[Mm]\.?)?(?:Z|[+-]\d\d:?\d\d)?",
    r"(\d\d)(?:(\d\d)(?:(\d\d)(?:[.,](\d+))?)?)?()(?:Z|[+-]\d{4})?",
)


def text_of(dataset: Any, keyword: str) -> str:
    """Return an attribute as text, "" where it is missing, has different values, or cannot be decoded for certain."""
    value = dataset.get(keyword)
    values = [value] if isinstance(value, bytes) or hasattr(value, "family_name") else listed(value)
    texts = {str(each, "latin-1") if isinstance(each, bytes) else str(each) for each in values}
    texts = {text.strip(" \0\t\r\n") for text in texts}
    if len(texts) != 1:
        return ""
    (text,) = texts
    return text if any(listed(dataset.get("SpecificCharacterSet"))) else decoded(text)


def decoded(text: str) -> str:
    """Return text of an unknown character set, which pydicom takes for Latin-1; "" where it may be another.

    >>> decoded("Müller"), decoded("Müller".encode().decode("latin-1")), decoded("ÕÅ^Èý")
    ('Müller', 'Müller', '')
    """
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        pass
    # Bytes of other character sets are no letters in Latin-1, or are most letters of a word.
    letters = all(sign.isascii() or sign.isalpha() for sign in text)
    words = re.findall(r"[^\W\d_]+", text)
    return text if letters and all(2 * sum(map(str.isascii, word)) > len(word) for word in words) else ""


def label(longest: int) -> Callable[[str], str]:
    """Return what checks text of at most so many characters (LO, SH), which is not cut: it may be an identifier."""
    return lambda text: text if len(text) <= longest and is_plain(text) and "\\" not in text else ""


def is_plain(text: str) -> bool:
    """Recognise text without control characters and without signs that could not be decoded."""
    return "\ufffd" not in text and not any(sign < " " or "\x7f" <= sign < "\xa0" for sign in text)


def person_name(text: str) -> str:
    """Return a name (PN): at most three groups of at most five components; what follows these is not defined.

    >>> person_name("Müller^Jörg^^Dr.^^MD"), person_name("a=b=c=d")
    ('Müller^Jörg^^Dr.^MD', 'a=b=c')
    """
    if not is_plain(text) or "\\" in text:
        return ""
    groups = []
    for group in text.split("=")[:3]:
        parts = group.split("^")
        groups.append("^".join([*parts[:4], " ".join(filter(None, parts[4:]))]) if len(parts) > 5 else group)
    return "=".join(groups) if max(map(len, groups)) <= LONGEST_GROUP else ""


def day(text: str) -> str:
    """Return a date (DA) of a year, month and day in any order that is certain, with or without a time; "" otherwise.

    >>> [day(text) for text in ("1960-1-2", "1960.01.02", "31/12/1960", "2-JAN-1960", "19600102120000")]
    ['19600102', '19600102', '19601231', '19600102', '19600102']
    >>> [day(text) for text in ("1960", "01/02/1960", "00000000", "19600230", "19600101-19601231")]
    ['', '', '', '', '']
    """
    possible = set()
    for form in DATES:
        if match := re.fullmatch(form, text, re.IGNORECASE | re.ASCII):
            month = match["month"].lower()
            number = MONTHS.index(month) + 1 if month in MONTHS else int(month) if month.isdigit() else 0
            with suppress(ValueError):  # the calendar has no such day
                parsed = date(int(match["year"]), number, int(match["day"]))
                possible.add(f"{parsed:%Y%m%d}" if parsed.year >= EARLIEST else "")
    return possible.pop() if len(possible) == 1 else ""


def clock(text: str) -> str:
    """Return a time (TM), with or without colons, the date before it, or the zone behind it; "" if it is none.

    >>> [clock(text) for text in ("12:30", "9:05:03", "123015.1234567", "02:30 PM", "20200131120500")]
    ['1230', '090503', '123015.123456', '1430', '120500']
    >>> [clock(text) for text in ("25:00", "123", "noon", "12:60")]
    ['', '', '', '']
    """
    text = re.sub(r"^(\d{4}-?\d\d-?\d\d)[T ]|^\d{8}(?=\d{4})", "", text)
    match = next(filter(None, (re.fullmatch(form, text, re.ASCII) for form in TIMES)), None)
    if not match:
        return ""
    hour, minute, second, fraction, half = match.groups()
    number = int(hour)
    if half:
        number = number % 12 + 12 * (half[0] in "Pp") if 1 <= number <= 12 else 24
    if number > 23 or int(minute or 0) > 59 or int(second or 0) > 60:
        return ""
    return f"{number:02}{minute or ''}{second or ''}" + (f".{fraction[:6]}" if fraction else "")


def sex(text: str) -> str:
    """Return M, F or O; numbers have more than one meaning.

    >>> [sex(text) for text in ("f", "Male", "weiblich", "2")]
    ['F', 'M', 'F', '']
    """
    return next((letter for letter, words in SEXES.items() if decoded(text).casefold() in words), "")


FORMS: dict[str, tuple[str, Callable[[str], str]]] = {
    "PatientName": ("a name that can be decoded, of up to 64 characters", person_name),
    "PatientID": ("text of up to 64 characters", label(64)),
    "PatientBirthDate": ("a full date that has one meaning", day),
    "PatientSex": ("M, F or O", sex),
    "StudyDate": ("a full date that has one meaning", day),
    "StudyTime": ("a time of day", clock),
    "StudyID": ("text of up to 16 characters", label(16)),
    "AccessionNumber": ("text of up to 16 characters", label(16)),
    "ReferringPhysicianName": ("a name that can be decoded, of up to 64 characters", person_name),
}
"""What the standard wants of patient and study in every object (type 2 of PS3.3, C.7.1.1 and C.7.2.1), and nothing
that may be left out: its form in words, and what brings a value into it."""


def patient_and_study(dataset: Any) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the attributes in ``FORMS``, the keywords of those brought into form, and of those left empty."""
    values, mended, emptied = {}, [], []
    for keyword, (_, form) in FORMS.items():
        value = dataset.get(keyword)
        text = text_of(dataset, keyword)
        values[keyword] = form(text)
        if not values[keyword] and (text or value):
            emptied.append(keyword)
        elif values[keyword] != text:
            mended.append(keyword)
    return values, mended, emptied
