"""Quoting the values of ``key=value`` settings that Hydra's grammar would choke on."""

import re
from pathlib import Path

from medseg.config import schema
from medseg.config.check import escape, lies_below
from medseg.config.schema import Key, arguments
from medseg.config.settings import KEYS, OBJECTS

FREE_TEXT = (schema.PATH, schema.PATHS, schema.REGEX)
BY_NAME = (schema.MAPPING, schema.NUMBERS_BY_NAME)
QUOTED = r"""('([^'\\]|\\.)*'|"([^"\\]|\\.)*"|null)"""
QUOTED_VALUE = re.compile(rf"\[?\s*{QUOTED}(\s*,\s*{QUOTED})*\s*\]?")  # one, a sweep, or a list


def merging(setting: str) -> str:
    """Return a setting of a mapping, or of an entry of one, so that it is merged with what the config has there.

    Hydra would look for the entries in the config, which has none: they are names of the user's classes and regions.
    """
    name = setting.partition("=")[0]
    parents = [name.rsplit(".", count)[0] for count in range(name.count(".") + 1)]
    mappings = {path for path, key in KEYS.items() if key.kind in BY_NAME}
    is_mapping = not mappings.isdisjoint(parents)
    is_entry = "=" in setting and (name not in KEYS or setting.partition("=")[2].lstrip().startswith("{"))
    return f"++{setting}" if is_mapping and is_entry else setting


def quoted(setting: str) -> str:
    """Quote the value of a ``key=value`` setting whose key holds a path or another free text: it passes exactly.

    What the user quoted already stays as it is, and so do an empty value and ``null``. Unquoted commas and brackets
    belong to the path: a list or a sweep of paths needs quotes round each of them. Where a list is allowed, brackets
    make one if there is no such path.
    """
    name, equals, value = setting.partition("=")
    key = key_of(name.lstrip("+"))
    if (
        key is None
        or key.kind not in FREE_TEXT
        or not equals
        or value in ("", "[]", "null", "???")
        or QUOTED_VALUE.fullmatch(value)
    ):
        return setting
    if key.kind == schema.PATHS and re.fullmatch(r"\[.+\]", value) and not Path(value).exists():
        return f"{name}=[{','.join(quote(part.strip()) for part in value[1:-1].split(','))}]"
    return f"{name}={quote(value)}"


def key_of(name: str) -> Key | None:
    """Return the key of a setting, or of an argument of some object of medseg's own."""
    of_objects = (keys.get(name.rpartition(".")[2]) for keys in arguments().values() if lies_below(name, OBJECTS))
    return KEYS.get(name) or next(filter(None, of_objects), None)


def quote(text: str) -> str:
    """Write text as a literal of Hydra's grammar that stays literal through OmegaConf's interpolation."""
    # Backslashes are special only before a quote or the end
    body = re.sub(r"(?<!\\)(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", r"\'"), escape(text))
    return f"'{body}'"
