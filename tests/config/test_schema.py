"""Declarations of settings: their types, what null means, and typed settings made of a config."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from medseg.config.schema import (
    INT,
    NUMBER,
    PATHS,
    TEXT,
    Key,
    Seconds,
    Setting,
    arguments_of,
    keys_of,
    seconds,
    setting,
    typed,
)
from medseg.errors import MedsegError


@dataclass(frozen=True, kw_only=True)
class Inner:
    kind: Literal["a", "b"] = setting("a choice")
    new: int | None = setting("what came later", "[1, inf)", null="none", default=None)


@dataclass(frozen=True, kw_only=True)
class Outer:
    files: tuple[Path, ...] = setting("files", null="none")
    time: Seconds | None = setting("a time", null="no limit")
    inner: Inner


def test_keys_are_read_off_the_declarations():
    assert keys_of(Outer) == {
        "files": Key("files", null="none", kind=PATHS),
        "time": Key("a time", null="no limit", kind="a duration 'DD:HH:MM:SS'"),
        "inner.kind": Key("a choice", ("a", "b"), kind=TEXT),
        "inner.new": Key("what came later", "[1, inf)", "none", kind=INT),
    }


def test_settings_have_the_declared_types():
    config = {"files": "a b", "time": "00:00:01:30", "inner": {"kind": "a"}}
    assert typed(Outer, config) == Outer(files=(Path("a b"),), time=Seconds(90), inner=Inner(kind="a", new=None))
    assert typed(Outer, config | {"files": None, "time": None}) == Outer(files=(), time=None, inner=Inner(kind="a"))
    assert typed(Outer, config | {"files": ["a", "b"]}).files == (Path("a"), Path("b"))


def test_what_a_config_of_another_version_lacks_is_named_in_full():
    with pytest.raises(MedsegError, match=r"does not say inner\.kind: it is of another version"):
        typed(Outer, {"files": None, "time": None, "inner": {}})


@pytest.mark.parametrize(("annotation", "null"), [(int | None, ""), (int, "none"), (list[str], "none")])
def test_a_type_that_does_not_agree_with_what_null_means_is_a_mistake(annotation: Any, null: str):
    made = type("Made", (), {"__annotations__": {"key": annotation}, "key": setting("a key", null=null)})
    with pytest.raises(TypeError, match="key: its type and what null means do not agree"):
        keys_of(dataclass(frozen=True, kw_only=True)(made))


def test_arguments_are_those_with_a_declaration():
    def build(
        *,
        depth: Annotated[int, Setting("levels", "[1, 7]")],
        rate: Annotated[float | None, Setting("r", null="0")] = None,
        other: int = 3,
    ) -> None: ...

    assert arguments_of(build) == {"depth": Key("levels", "[1, 7]", kind=INT), "rate": Key("r", null="0", kind=NUMBER)}


@pytest.mark.parametrize(
    ("duration", "expected"),
    [("00:00:02:00", 120), ("01:01:01:01", 90061), ("10:00:00:00", 864000), ("0:0:0:1", 1), ("1:00", 0)],
)
def test_seconds(duration, expected):
    assert seconds(duration) == expected
