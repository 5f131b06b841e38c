"""Texts of files and users, shown: nothing in them steers a terminal, and JSON reads them back."""

import io
import json
import logging
import unicodedata

import yaml
from hypothesis import given
from hypothesis import strategies as st

from medseg.jobs.rundir import logged_to, write_config
from medseg.system.files import write_json
from medseg.system.printable import on_a_line, printable
from medseg.system.terminal import Terminal

TEXTS = st.text(st.characters())
NAME = "a\x1b[31m\x9b2Jb\u202ec\udce9"
"""Colours, a cleared screen, reversed text, and a byte that is not UTF-8."""
SHOWN = "a\\u001b[31m\\u009b2Jb\\u202ec\\udce9"


@given(TEXTS)
def test_no_text_steers_a_terminal(text):
    for shown in (printable(text), on_a_line(text)):
        assert all(letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs") for letter in shown)
        shown.encode()
        assert printable(shown) == shown
    assert "\n" not in on_a_line(text)


def test_plain_texts_are_shown_as_they_are():
    text = "Leber, 肝臓: 5 mm² ± 3 %\n\té 👩‍⚕️"
    assert printable(text) == text


@given(st.dictionaries(TEXTS, TEXTS | st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_json_and_configs_give_the_texts_back(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "content"
    expected = json.loads(json.dumps(content))  # where two surrogates make one character
    write_json(path, content)
    assert json.loads(path.read_text("utf-8")) == expected
    assert printable(path.read_text("utf-8")) == path.read_text("utf-8")


def test_a_config_is_read_back(tmp_path):
    config = {"dataset": {"root": f"/data/{NAME}", "name": "Müller"}}
    write_config(tmp_path / "config.yaml", config)
    assert "\x1b" not in (tmp_path / "config.yaml").read_text("utf-8")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text("utf-8")) == config


def test_a_log_file_holds_what_can_be_shown(tmp_path):
    logger = logging.getLogger("medseg.test")
    with logged_to(tmp_path / "train.log"):
        logger.warning("%s is broken", NAME)
    assert f"{SHOWN} is broken" in (tmp_path / "train.log").read_text("utf-8")


def test_a_terminal_gets_no_codes_but_richs_own():
    file = io.StringIO()
    console = Terminal(file=file, force_terminal=True, width=80, color_system="truecolor")
    console.print(f"[bold]{NAME}[/bold]", highlight=False)
    assert file.getvalue() == f"\x1b[1m{SHOWN}\x1b[0m\n"
