"""File names made of any texts: one path component, allowed everywhere, and each its own."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.system.file_names import LONGEST, file_name, file_names

TEXTS = st.text(st.characters()) | st.from_regex(r"(\.\./|/|a:|CON|nul\.|é|\.| ){0,9}[aA]?", fullmatch=True)
"""Surrogates, control characters and combining marks among them."""

DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}


def assert_is_safe(name: str) -> None:
    """The rules of POSIX, Windows and macOS together, written down apart from the code."""
    assert name == name.strip(" .")
    assert 0 < len(name.encode()) <= LONGEST < 143 - len(".01234567-.seg.nrrd")
    assert not set(name) & set('/\\:*?"<>|')
    assert all(unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp") for letter in name)
    assert name.partition(".")[0].strip().lower() not in DEVICES


@given(TEXTS)
def test_any_text_becomes_one_safe_name(text):
    assert_is_safe(file_name(text))


@given(TEXTS)
def test_a_safe_name_stays_as_it_is(text):
    name = file_name(text)
    assert file_name(name) == name


@given(st.lists(TEXTS | st.sampled_from(["a", "A", "a-2", "A-2", "a/", "a:", "x" * 300, "X" * 299]), max_size=12))
def test_names_are_unique_without_regard_to_case_and_whatever_the_order(texts):
    names = file_names(texts)
    assert names == file_names(reversed(texts))
    assert {*names} == {*texts}
    for name in names.values():
        assert_is_safe(name)
    keys = [unicodedata.normalize("NFD", name.casefold()) for name in names.values()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("liver", "liver"),
        ("Schädel 1.5 mm", "Schädel 1.5 mm"),
        ("肝臓", "肝臓"),
        ("tumour/core", "tumour_core"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("/etc/passwd", "_etc_passwd"),
        ("C:\\Windows", "C__Windows"),
        ("..", "_"),
        ("", "_"),
        (".hidden", "hidden"),
        ("CON", "_CON"),
        ("com1.nii", "_com1.nii"),
        ("caf\udce9", "caf_"),
        ("a\x1b[2J\n", "a_[2J_"),
        ("é" * 300, "é" * (LONGEST // 2)),
        ("e\u0301", "é"),
    ],
)
def test_what_becomes_of_a_text(text, name):
    assert file_name(text) == name


def test_safe_texts_keep_their_names_beside_others():
    assert file_names(["a:b", "a_b", "A_b"]) == {"A_b": "A_b", "a_b": "a_b-2", "a:b": "a_b-3"}
