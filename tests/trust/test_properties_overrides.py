"""Paths and other free texts of the command line reach the config as they were typed, whatever is in them."""

import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import assume, given
from hypothesis import strategies as st

from medseg.cli.quoting import FREE_TEXT, QUOTED_VALUE, quote, quoted
from medseg.config import schema
from medseg.config.check import resolve
from medseg.config.settings import KEYS

SPECIAL = r"""'"\${}[](),:=#~@ .*?!&|<>;%^`+-/""" + "\t\u00e9\u4e2d"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30) | st.text(
    st.sampled_from(SPECIAL + "ab0"), max_size=20
)
WORDS = st.sampled_from(
    ["true", "1e5", "0x1", "inf", "NaN", "${x}", r"\${x}", "a,b", "[a]", "{a: 1}", "range(3)", "~", "None"]
)
FREE_KEYS = sorted(name for name, key in KEYS.items() if key.kind in FREE_TEXT)
LISTS = sorted(name for name, key in KEYS.items() if key.kind == schema.PATHS)
PARSER = OverridesParser.create()


def arrives(setting: str) -> object:
    """What a job gets of one setting, by Hydra's parser and OmegaConf's interpolation."""
    override = PARSER.parse_override(setting)
    assert not override.is_sweep_override()
    return resolve({"value": override.value()})["value"]


@given(TEXTS | WORDS)
def test_a_quoted_text_is_itself(text):
    assert arrives(f"input={quote(text)}") == text


@given(st.sampled_from(FREE_KEYS), TEXTS | WORDS, st.sampled_from(["", "+", "++"]))
def test_a_path_arrives_as_it_was_typed(key, text, plus):
    assume(text not in ("", "[]", "null", "???") and not QUOTED_VALUE.fullmatch(text))
    assume(not (KEYS[key].kind == schema.PATHS and re.fullmatch(r"\[.+\]", text)))  # a list
    assert arrives(quoted(f"{plus}{key}={text}")) == text


@given(st.sampled_from(FREE_KEYS), TEXTS | WORDS)
def test_a_setting_is_quoted_once(key, text):
    once = quoted(f"{key}={text}")
    assert quoted(once) == once


@given(
    st.sampled_from(LISTS), st.lists(st.text(st.sampled_from(SPECIAL + "ab0")).map(str.strip), min_size=1, max_size=4)
)
def test_a_list_of_paths_without_commas_and_quotes_arrives_as_a_list(key, names):
    assume(all(name and not set(name) & set(",'\"") for name in names))
    written = f"[{','.join(names)}]"
    assume(not Path(written).exists())
    assert arrives(quoted(f"{key}={written}")) == names


@given(st.sampled_from(FREE_KEYS), st.lists(TEXTS | WORDS, min_size=2, max_size=4))
def test_quoted_paths_sweep(key, texts):
    setting = f"{key}={','.join(map(quote, texts))}"
    assert quoted(setting) == setting
    override = PARSER.parse_override(setting)
    assert override.is_sweep_override()
    swept = [PARSER.parse_override(f"{key}={value}") for value in override.sweep_string_iterator()]
    assert [resolve({"value": job.value()})["value"] for job in swept if isinstance(job, Override)] == texts
