"""Checking medseg's own configuration keys, filling their nulls, and resolving interpolations."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from medseg.config import schema
from medseg.config.schema import Key, T, arguments, seconds, typed
from medseg.config.settings import KEYS, KEYS_OF, OPEN
from medseg.errors import MedsegError, listing, nearest

MISSING = "???"

ALMOST = 0.9
"""Ratio of equal letters from which on a key is another one, misspelt."""

USUAL = {
    **dict.fromkeys(("learning_rate", "lr0", "base_lr", "initial_lr"), "optimizer.lr"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("batch_size", "batch", "bs"), "plan.batch_size"),
    **dict.fromkeys(("classes", "num_classes", "n_classes", "class_names"), "dataset.labels"),
    **dict.fromkeys(("gpus", "gpu", "num_gpus", "n_gpus"), "trainer.devices"),
    **dict.fromkeys(("num_workers", "n_workers"), "trainer.workers"),
    **dict.fromkeys(("data", "data_dir", "data_path"), "dataset.root"),
    **dict.fromkeys(("out_dir", "output_dir", "save_dir"), "run_dir"),
    **dict.fromkeys(("amp", "fp16"), "trainer.precision"),
}
"""What other tools call a key, by its last name."""


def check_values(config: dict[str, Any]) -> list[str]:
    """Return what is wrong with a composed config: missing, unknown and mistyped keys, values out of range.

    Interpolations and the arguments of other packages' classes pass; both are checked where they are used.
    """
    return list(problems(config).values())


def problems(config: dict[str, Any]) -> dict[str, str]:
    """Return ``check_values``'s messages by dotted key."""
    table = table_of(config)
    found = ((path, wrong(path, key, value, table)) for path, key, value in leaves(config, table))
    return {path: problem for path, problem in found if problem}


def table_of(config: dict[str, Any]) -> dict[str, Key]:
    """Return the keys that a config may have: those of its command, and of others, which it ignores."""
    return KEYS | KEYS_OF.get(str(config.get("command")), {})


def leaves(node: Any, table: Mapping[str, Key] | None = KEYS, path: str = "") -> Iterator[tuple[str, Key | None, Any]]:
    """Yield (dotted path, key, value) for all that has to be checked.

    ``table`` holds the keys valid inside ``node``; it is None in other packages' objects, of which only missing values
    and objects of medseg's own are of interest. The key is None where the table does not know the path.
    """
    is_open = table is None
    if isinstance(node, dict) and "_target_" in node:
        own = arguments().get(node["_target_"])
        is_open = own is None or node["_target_"].startswith(OPEN)
        table = None if own is None else {f"{path}.{name}": key for name, key in own.items()}
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        child = f"{path}.{name}" if path else str(name)
        key = table.get(child) if table is not None else None
        branch = isinstance(value, dict) and (key is None or key.kind == schema.NODE)
        branch |= isinstance(value, list) and (is_open if key is None else key.kind == schema.NODES)
        if key or value == MISSING or (not is_open and not branch and name != "_target_"):
            yield child, key, value
        if branch:
            yield from leaves(value, None if is_open else table, child)


def wrong(path: str, key: Key | None, value: Any, known: Iterable[str] = KEYS) -> str | None:
    """Return what is wrong with the value of one key, or None; ``known`` are keys that an unknown one may stand for."""
    meaning = f"{limits(key)}: {key.meaning}" if key else "required by its class"
    if isinstance(value, str) and value == MISSING:
        return f"{path}: missing. Give {path}=... ({meaning})."
    if key is None:
        return f"{path}: unknown key.{nearest_key(path, known)}"
    if (key.null and value is None) or is_interpolation(value):
        return None
    if not fits(key, value):
        null = f" Or null: {key.null}." if key.null else ""
        return f"{path}={written(value)}: must be {meaning}.{hint(key, value)}{null}"
    return None


def limits(key: Key) -> str:
    """Return in words what a key may hold."""
    if isinstance(key.allowed, str):
        return f"{key.kind} in {key.allowed}"
    if not key.allowed:
        return key.kind
    choices = ", ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in key.allowed)
    return {schema.TEXTS: "a list of ", schema.TEXT_OR_TEXTS: "one, or a list, of "}.get(key.kind, "one of ") + choices


def written(value: Any) -> str:
    """Return a value as it is written in a config, but for the quotes that tell texts from numbers."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def hint(key: Key, value: Any) -> str:
    """Return advice about a wrong value, where it is not obvious."""
    if key.kind == schema.DURATION:
        return " Ten minutes are 00:00:10:00. Quote it in a file: unquoted, YAML reads it as a number to base 60."
    if key.kind in (schema.TEXT, schema.BOOL_OR_TEXT, schema.TEXT_OR_TEXTS) and isinstance(value, str):
        return nearest(value, map(str, key.allowed)) if not isinstance(key.allowed, str) else ""
    return ""


def fits(key: Key, value: Any) -> bool:
    """Return whether a value has the key's type and lies within its limits."""
    if not TYPES[key.kind](value):
        return False
    value = list(value.values()) if isinstance(value, dict) else value
    items = flat(value) if isinstance(value, list) else [value]
    if isinstance(key.allowed, str):
        return all(is_within(item, key.allowed) for item in items)
    return not key.allowed or all(item in key.allowed for item in items)


def is_within(number: float, interval: str) -> bool:
    """Return whether a number lies in an interval written as ``"[0, 1)"``.

    >>> is_within(1, "[0, 1)"), is_within(0, "[0, 1)")
    (False, True)
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    return above and (number <= high if interval[-1] == "]" else number < high)


def is_int(value: Any) -> bool:
    """Return whether a value is a whole number; true and 3.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return is_int(value) or (isinstance(value, float) and math.isfinite(value))


def is_text(value: Any) -> bool:
    """Return whether a value is text."""
    return isinstance(value, str)


def is_list(value: Any, is_item: Callable[[Any], bool]) -> bool:
    """Return whether a value is a list, nested or not, of such items."""
    return isinstance(value, list) and all(map(is_item, flat(value)))


def is_object(value: Any) -> bool:
    """Return whether a value describes an object."""
    return isinstance(value, dict) and "_target_" in value


def is_regex(value: Any) -> bool:
    """Return whether a value is a regular expression."""
    try:
        re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError):
        return False
    return True


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """Return the texts of a key that takes none, one, or a list of them."""
    return [value] if isinstance(value, str) else list(value or ())


def lies_below(key: str, parents: Iterable[str]) -> bool:
    """Return whether a dotted key is one of ``parents`` or lies below one."""
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def look_up(config: Any, names: Iterable[str | int]) -> tuple[bool, Any, str | None]:
    """Return whether a config has a path, its value, and the target of the innermost object that it belongs to."""
    node, owner = config, None
    for name in names:
        if isinstance(node, dict):
            owner = node.get("_target_", owner)
        if isinstance(node, list) and str(name).isdecimal() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            return False, None, owner
    return True, node, owner


def dotted(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of all that nested mappings hold, a mapping before what is in it."""
    for name, value in node.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")


def flat(value: list[Any]) -> Iterator[Any]:
    """Yield the items of nested lists."""
    for item in value:
        yield from flat(item) if isinstance(item, list) else [item]


TYPES: dict[str, Callable[[Any], bool]] = {
    schema.BOOL: lambda value: isinstance(value, bool),
    schema.INT: is_int,
    schema.NUMBER: is_number,
    schema.TEXT: is_text,
    schema.BOOL_OR_TEXT: lambda value: is_text(value) or isinstance(value, bool),
    schema.PATH: is_text,
    schema.PATHS: lambda value: is_text(value) or (is_list(value, is_text) and bool(value)),
    schema.REGEX: is_regex,
    schema.DURATION: lambda value: is_text(value) and seconds(value) > 0,
    schema.INTS: lambda value: is_list(value, is_int),
    schema.NUMBERS: lambda value: is_list(value, is_number),
    schema.TEXTS: lambda value: is_list(value, is_text),
    schema.INT_OR_INTS: lambda value: is_int(value) or is_list(value, is_int),
    schema.TEXT_OR_TEXTS: lambda value: is_text(value) or is_list(value, is_text),
    schema.DEVICES: lambda value: (
        value in ("auto", -1)
        or (is_int(value) and value > 0)
        or (is_list(value, is_int) and len(value) > 0 and min(value) >= 0)
    ),
    schema.MAPPING: lambda value: isinstance(value, dict),
    schema.NUMBERS_BY_NAME: lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
    schema.NODE: is_object,
    schema.NODES: lambda value: isinstance(value, list) and all(map(is_object, value)),
}


def nearest_key(path: str, known: Iterable[str]) -> str:
    """Return a hint at the known keys that an unknown one may stand for.

    That is one that differs by a letter or two; or else all of the same last name, that of ``USUAL`` first; or else the
    closest by the whole path, or by the last name.

    >>> nearest_key("depth", ["model.depth", "seed"])
    " Did you mean 'model.depth'?"
    >>> nearest_key("trainer.batch_size", ["inference.batch_size", "plan.batch_size"])
    " Did you mean 'plan.batch_size' or 'inference.batch_size'?"
    """
    keys = list(known)
    last = path.rsplit(".", 1)[-1]
    by_name: dict[str, list[str]] = {}
    for key in keys:
        by_name.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    usual = [key for key in [USUAL.get(last)] if key in keys]
    close = (
        get_close_matches(path, keys, 1, ALMOST)
        or list(dict.fromkeys([*usual, *by_name.get(last, [])]))
        or get_close_matches(path, keys, 1)
        or [key for name in get_close_matches(last, by_name, 1) for key in by_name[name]]
    )
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def is_interpolation(value: Any) -> bool:
    r"""Return whether a value is text with an interpolation: ``${plan.strides}``, but not ``\${plan.strides}``."""
    return isinstance(value, str) and re.search(r"(?<!\\)(\\\\)*\$\{", value) is not None


def escape(value: Any) -> Any:
    r"""Make every ``${`` of plain values literal text, as OmegaConf writes it: ``\${``."""
    if isinstance(value, dict):
        return {name: escape(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [escape(child) for child in value]
    return re.sub(r"(?<!\\)(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def is_explicit(config: dict[str, Any], key: str) -> bool:
    """Return whether the user chose the value of a key, or of one above or below it, be it the default or not."""
    return is_chosen(config.get("explicit_keys", ()), key)  # runs of older versions have none


def is_chosen(explicit_keys: Collection[str], key: str) -> bool:
    """Return whether a key, or one above or below it, is one of those that the user chose the values of."""
    return lies_below(key, explicit_keys) or any(lies_below(name, [key]) for name in explicit_keys)


def resolve(config: dict[str, Any], overlay: dict[str, Any] | None = None) -> dict[str, Any]:
    r"""Fill a config's nulls from an overlay, resolve its interpolations, and return plain containers.

    Args:
        config: as composed, with ``${…}`` still in it; ``\${`` stands for a literal ``${``.
        overlay: plain values, such as a plan or a checkpoint's config, whose ``${`` is literal. It replaces nulls and
            adds keys that are absent, but leaves what an object (a ``_target_`` node) lacks to its own defaults.

    Raises:
        MedsegError: an interpolation leads nowhere.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    merged = OmegaConf.create(fill(config, escape(overlay or {})))
    try:
        plain = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise MedsegError(f"config: {error}") from error
    return plain  # type: ignore[return-value]


def read_settings(group: type[T], config: dict[str, Any]) -> T:
    """Return the settings of a composed config, whose values have been checked but for what ``${...}`` leads to.

    Raises:
        MedsegError: a reference leads nowhere or to a value that the key cannot have, or a setting is missing.
    """
    resolved = resolve(config)
    references = [
        (path, key) for path, key, value in leaves(config, table_of(config)) if key and is_interpolation(value)
    ]
    led_to = ((path, key, look_up(resolved, path.split("."))[1]) for path, key in references)
    if found := [text for path, key, value in led_to if (text := wrong(path, key, value))]:
        raise MedsegError(f"these settings are wrong:\n{listing(found)}" if len(found) > 1 else found[0])
    return typed(group, resolved)


def planned(config: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with every null filled by the plan, which has the whole of ``preprocessing``."""
    return resolve(config | {"preprocessing": escape(plan["preprocessing"])}, plan)


def fill(config: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Return ``config`` with its nulls, and the keys that it lacks, taken from ``overlay``."""
    filled = dict(config)
    for name, value in overlay.items():
        present = config.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            filled[name] = fill(present, value)
        elif present is None and (name in config or "_target_" not in config):
            filled[name] = value
    return filled
