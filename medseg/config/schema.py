"""How a setting is declared: its type, what it may hold, what it means, and what null means where it is allowed.

``medseg.config.settings`` declares the settings of each command, a frozen dataclass a group. What objects such as a
network take is declared in their own signatures, by ``Annotated[float, Setting(...)]``, and read here from
``conf/help/arguments.json``, which ``scripts/render_help.py`` writes, so that the command line needs no torch.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from medseg.errors import MedsegError

HERE = Path(__file__).parents[1]
CONF = next(path for path in (HERE / "conf", HERE.parent / "conf") if path.is_dir())
"""The config groups: inside the package in a wheel, beside it in a checkout."""

Regex = NewType("Regex", str)
Seconds = NewType("Seconds", int)
"""Written as a duration 'DD:HH:MM:SS'."""
ObjectNode = NewType("ObjectNode", dict[str, Any])
"""What describes an object: a mapping with ``_target_``, the name of a class or function, and its arguments."""
Overrides = dict[str, Any]
"""Values of a group that replace those of a checkpoint, null where the checkpoint's stays."""

BOOL, INT, NUMBER, TEXT = "true or false", "a whole number", "a number", "text"
BOOL_OR_TEXT = "true, false or text"
PATH, PATHS = "a path", "a path or a list of paths"
REGEX = "a regular expression"
DURATION = "a duration 'DD:HH:MM:SS'"
DURATION_FORM = re.compile(r"(\d+):([01]?\d|2[0-3]):([0-5]?\d):([0-5]?\d)")
INTS, NUMBERS, TEXTS = "a list of whole numbers", "a list of numbers", "a list of texts"
INT_OR_INTS, TEXT_OR_TEXTS = "a whole number or a list of them", "text or a list of texts"
DEVICES = "a number of devices, auto or -1 (all GPUs), or a list of GPUs' numbers"
MAPPING, NUMBERS_BY_NAME = "a mapping", "a mapping of names to numbers"
NODE = "one object (a mapping with _target_)"
NODES = "a list of objects (mappings with _target_)"

KINDS: dict[Any, str] = {
    bool: BOOL,
    int: INT,
    float: NUMBER,
    str: TEXT,
    bool | str: BOOL_OR_TEXT,
    Path: PATH,
    tuple[Path, ...]: PATHS,
    Regex: REGEX,
    Seconds: DURATION,
    list[int]: INTS,
    list[list[int]]: INTS,
    list[float]: NUMBERS,
    list[str]: TEXTS,
    int | list[int]: INT_OR_INTS,
    int | str | list[int]: DEVICES,
    Sequence[int]: INTS,
    Sequence[float]: NUMBERS,
    Sequence[str]: TEXTS,
    Sequence[int] | int: INT_OR_INTS,
    str | Path: PATH,
    Mapping[str, float]: NUMBERS_BY_NAME,
    tuple[str, ...]: TEXT_OR_TEXTS,
    dict[str, Any]: MAPPING,
    dict[str, float]: NUMBERS_BY_NAME,
    ObjectNode: NODE,
    list[ObjectNode]: NODES,
}
"""What a setting of each type holds in YAML. A tuple may be given as one value, or as null: the empty one."""

PLANNED = "planned from the data"
TAKEN_OVER = "taken from the checkpoint"

SAVED = "saved"
"""The option of a group that stands for what a checkpoint holds: a default of eval and predict, never chosen."""

Allowed = str | tuple[str | int, ...]


@dataclass(frozen=True)
class Setting:
    """What a setting means and may hold.

    ``allowed`` is an interval such as ``"[0, 1)"`` or the choices; of a list it concerns every item. ``null`` says what
    null means where it is allowed, and is empty where it is not.
    """

    meaning: str
    allowed: Allowed = ()
    null: str = ""


@dataclass(frozen=True)
class Key(Setting):
    """A setting at its place in a config, with what it holds in YAML: one of ``KINDS``."""

    kind: str = field(kw_only=True)


def setting(meaning: str, allowed: Allowed = (), *, null: str = "", default: Any = NO_DEFAULT) -> Any:
    """Declare a field of a group of settings; see ``Setting``.

    Its value stands in ``conf/``. ``default`` is what runs did that were made before there was this setting, and which
    are to be resumed: every new setting needs one. Where null is allowed, the type has ``| None``, or is a tuple.
    """
    declared = {"setting": Setting(meaning, allowed, null)}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=declared)
    return field(default=default, metadata=declared)


def one_of(*kinds: type) -> Any:
    """Declare a group of which there are several kinds, each with settings of its own."""
    return field(metadata={"kinds": kinds})


def from_checkpoint(*kinds: type) -> Any:
    """Declare ``Overrides`` of a group: all its settings may be null, which is what the checkpoint has."""
    return field(metadata={"kinds": kinds, "null": TAKEN_OVER})


def keys_of(group: type, prefix: str = "", null: str = "") -> dict[str, Key]:
    """Return the keys of a group of settings by dotted path; ``null`` is what null means in all of them.

    What is declared as a mere node, such as the network, has keys of its own: ``arguments``.
    """
    keys: dict[str, Key] = {}
    hints = get_type_hints(group, include_extras=True)
    for each in fields(group):
        path, kind = f"{prefix}{each.name}", without_none(hints[each.name])
        if kinds := each.metadata.get("kinds") or ([kind] if is_dataclass(kind) else []):
            for one in kinds:
                keys |= keys_of(one, f"{path}.", each.metadata.get("null", null))
        elif declared := each.metadata.get("setting"):
            keys[path] = key_of(kind, declared, null)
            takes_none = kind is not hints[each.name] or get_origin(kind) is tuple
            if bool(declared.null) > takes_none or (kind is not hints[each.name] and not declared.null):
                raise TypeError(f"{path}: its type and what null means do not agree.")
    return keys


def key_of(annotation: Any, declared: Setting | None = None, null: str = "") -> Key:
    """Return what a field or an argument may hold, by its annotation, which may carry its ``Setting``.

    The choices of a ``Literal`` are what is allowed.
    """
    kind = without_none(annotation)
    if get_origin(kind) is Annotated:
        kind, declared = get_args(kind)[0], declared or get_args(kind)[1]
    kind = without_none(kind)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    types = {type(choice) for choice in choices}
    kind = bool | str if types == {bool, str} else types.pop() if choices else kind
    if declared is None or kind not in KINDS:
        raise TypeError(f"{annotation}: no type of a setting, or no Setting is given.")
    return Key(declared.meaning, choices or declared.allowed, null or declared.null, kind=KINDS[kind])


def without_none(annotation: Any) -> Any:
    """Return ``X`` of ``X | None``, and any other annotation as it is."""
    if get_origin(annotation) not in (Union, UnionType) or NoneType not in get_args(annotation):
        return annotation
    first, *others = (each for each in get_args(annotation) if each is not NoneType)
    for each in others:
        first = first | each
    return first


@cache
def arguments_of(target: Any) -> dict[str, Key]:
    """Return the arguments of a class or function that are declared as settings."""
    signature = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    hints, found = get_type_hints(signature, include_extras=True), {}
    for name, hint in hints.items():
        annotated = without_none(hint)
        if get_origin(annotated) is Annotated and isinstance(get_args(annotated)[1], Setting):
            found[name] = key_of(annotated)
    return found


@cache
def arguments() -> dict[str, dict[str, Key]]:
    """Return the keys of medseg's own objects by their names in ``conf/``, as rendered from their signatures."""
    table = json.loads((CONF / "help" / "arguments.json").read_text("utf-8"))
    return {target: {name: key_from(node) for name, node in keys.items()} for target, keys in table.items()}


def key_from(node: Mapping[str, Any]) -> Key:
    """Return a key that was written as JSON."""
    allowed = node.get("allowed", ())
    return Key(**{**node, "allowed": allowed if isinstance(allowed, str) else tuple(allowed)})


T = TypeVar("T")


def typed(group: type[T], node: Mapping[str, Any], where: str = "") -> T:
    """Return the settings that a resolved and checked config, or its node at ``where`` ("trainer."), holds.

    Raises:
        MedsegError: it lacks some, as that of a run of another version may.
    """
    hints, values, absent = get_type_hints(group), {}, []
    for each in fields(group):  # type: ignore[arg-type]
        if each.name in node:
            is_group = not each.metadata.get("null")
            value, path = node[each.name], f"{where}{each.name}."
            values[each.name] = converted(hints[each.name], value, path) if is_group else value
        elif each.default is NO_DEFAULT and each.default_factory is NO_DEFAULT:
            absent.append(f"{where}{each.name}")
    if absent:
        raise MedsegError(f"the config does not say {', '.join(absent)}: it is of another version, or damaged.")
    return group(**values)


def converted(annotation: Any, value: Any, where: str) -> Any:
    """Return a value of a config as the type that it is declared with."""
    kind = without_none(annotation)
    takes_none = kind is not annotation
    if get_origin(kind) is tuple:
        item, is_none = get_args(kind)[0], value is None or value == ""
        return tuple(item(one) for one in ([] if is_none else value if isinstance(value, list) else [value]))
    # An empty path is none, as a shell makes it of a variable that is not set; Path("") would be the working directory.
    if value is None or (value == "" and kind is Path and takes_none):
        return None
    if is_dataclass(kind):
        return typed(kind, value, where)  # type: ignore[arg-type]
    if kind is Seconds:
        return Seconds(seconds(value))
    return Path(value) if kind is Path else value


def seconds(duration: str) -> int:
    """Return the seconds of a duration written DD:HH:MM:SS, 0 for what is none.

    >>> seconds("00:01:30:00"), seconds("1:30")
    (5400, 0)
    """
    match = DURATION_FORM.fullmatch(duration)
    days, hours, minutes, rest = map(int, match.groups()) if match else (0, 0, 0, 0)
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
