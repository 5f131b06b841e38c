"""The reference of all settings: pages that ``mkdocs build`` makes of what ``medseg COMMAND --help`` is made of.

A hook of ``mkdocs.yml``. Keys, what they may hold, their meaning and their defaults come from the composed configs and
``medseg/config/settings.py``, as in ``scripts/render_help.py``, so that the pages cannot fall behind.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from render_help import FLAGS, USAGE, WITH_DATASET, all_keys, default_text, groups_of

from medseg.cli.sources import Sources, compose
from medseg.config.check import leaves, limits
from medseg.config.schema import CONF, SAVED, Key
from medseg.config.settings import KEYS_OF

FOLDER = "reference/settings"

CHOICES = {
    "dataset": "How the files of a data set lie.",
    "model": "The network. [Networks](../networks.md) says where each is from, and how large it is.",
    "loss": "What a training minimises.",
    "optimizer": "How a step is made of a gradient.",
    "scheduler": "How the learning rate changes in a training.",
    "augment": "What is done to training patches. [Augmentation](../../understand/augmentation.md) says why.",
    "logger": "Where curves and pictures of a training go; several as a list.",
    "pretext": "What `medseg pretrain` hides, to be reconstructed.",
}
"""Groups of which an option decides which keys there are."""

RECIPES = {
    "experiment": "Whole recipes: `experiment=NAME`. What the command line gives counts more.",
    "search": "What a search tries: `search=NAME`, or several as a list. [How to search](../../how-to/search.md).",
}
"""Groups whose options set keys of other groups."""

QUOTES = '""'

OF_SOME = "..."
"""Stands for the default of a key that only some options of other groups bring."""

Setting = tuple[str, Key, Any]
"""Dotted path, declaration, default."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that lie in ``docs/``."""
    for name, text in pages().items():
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Return the text of every page by its name."""
    commands = {command: command_page(command) for command in USAGE if command != "inspect"}
    choices = {group: choice_page(group, meaning) for group, meaning in CHOICES.items()}
    return {"index": index_page(), "recipes": recipe_page()} | commands | choices


def index_page() -> str:
    """Say how settings are written, and list commands and groups."""
    page = dict.fromkeys(USAGE) | {"inspect": "train"}
    commands = [f"* [`medseg {name}`]({page[name] or name}.md): {use}" for name, use in USAGE.items()]
    groups = sorted({group for command in USAGE for group in groups_of(command)})
    return "\n".join(
        [
            "# Settings\n",
            "A setting is a word of the command line: `key=value`, or `group=option`. `medseg COMMAND --help` prints",
            "the same lists; both are made of the declarations that a command line is checked with. A typo is answered",
            "with the nearest name before anything starts. `--cfg job` prints the config that a line makes.\n",
            "## Commands\n\n" + "\n".join(commands) + "\n",
            "## Groups\n",
            "An option of a group stands for many keys. Several keys of one group are given one by one.\n",
            *(f"* {group_link(group)}: {', '.join(f'`{option}`' for option in options(group))}" for group in groups),
            f"\n## Flags\n\n```text\n{FLAGS.rstrip()}\n```\n",
        ]
    )


def group_link(group: str) -> str:
    """Return the name of a group, linked to the page that lists its keys."""
    page = group if group in CHOICES else "recipes" if group in RECIPES else f"train.md#{group}"
    return f"[`{group}`]({page if '.md' in page else f'{page}.md'})"


def options(group: str) -> list[str]:
    """Return the options of a group that a user may choose."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.stem != SAVED)


def command_page(command: str) -> str:
    """List the keys of a command; of a group with options of other keys, refer to its page."""
    known = {path: (path, key, OF_SOME) for path, key in KEYS_OF[command].items() if path != "dataset.layout"}
    known |= {path: (path, key, value) for path, key, value in reversed(list(all_keys(command))) if key}
    order = {path: index for index, path in enumerate(KEYS_OF[command])}
    sections: dict[str, list[Setting]] = {}
    for path in sorted(known.keys() - {"command"}, key=lambda path: order.get(path, len(order))):
        sections.setdefault(path.partition(".")[0] if "." in path else "Without a group", []).append(known[path])
    lines = [f"# medseg {command}\n", USAGE[command] + "\n"]
    if command == "train":
        lines.append(f"`medseg inspect` takes the same settings. {USAGE['inspect']}\n")
    for section, settings in sections.items():
        lines.append(f"## {section}\n")
        if command in WITH_DATASET and section in CHOICES:
            lines.append(f"The keys depend on the option: [{section}]({section}.md).\n")
        else:
            lines += entries(settings)
    return "\n".join(lines)


def entries(settings: Iterable[Setting], prefix: str = "") -> Iterator[str]:
    """Yield an entry for each key; ``prefix`` tells those of the options of one page apart in addresses."""
    for path, key, value in settings:
        yield f"### `{path}` {{ #{prefix}{path} }}\n"
        yield f"{key.meaning[0].upper()}{key.meaning[1:]}.\n"
        allowed = limits(key).replace("_target_", "`_target_`")
        null = f"`null`: {key.null}" if key.null else ""
        parts = [allowed, f"default {null}"] if value is None and null else [allowed, default(value), null]
        yield " · ".join(part for part in parts if part) + "\n{ .limits }\n"


def default(value: Any) -> str:
    """Say what a key is where nobody gives it; nothing of mappings and lists of objects, whose keys have entries."""
    text = "" if value == "" else default_text(value)
    return "required" if value == "???" else "" if text == "..." else f"default `{text or QUOTES}`"


def choice_page(group: str, meaning: str) -> str:
    """List the keys that all options of a group have, then those of each."""
    command = "pretrain" if group == "pretext" else "train"
    configs = {option: config_of(group, option, command) for option in options(group)}
    settings = {option: list(keys_of_group(group, config, KEYS_OF[command])) for option, config in configs.items()}
    first, *others = [each for each in settings.values() if each]
    common = [setting for setting in first if others and all(setting in other for other in others)]
    lines = [f"# {group}\n", meaning + "\n"]
    if common:
        lines += ["## All options\n", *entries(common)]
    for option, own in settings.items():
        node = configs[option].get(group)
        target = node.get("_target_") if isinstance(node, dict) else None
        lines.append(f"## {group}={option} {{ #{option} }}\n")
        lines += [f"{text}\n" for text in (comment(CONF / group / f"{option}.yaml"), target and f"`{target}`") if text]
        lines += entries([setting for setting in own if setting not in common], prefix=f"{option}.")
    return "\n".join(lines)


def config_of(group: str, option: str, command: str) -> dict[str, Any]:
    """Return what an option gives its group: of a file that is composed of others, the config of the whole command."""
    text = (CONF / group / f"{option}.yaml").read_text("utf-8")
    if "defaults:" not in text and "@package" not in text:
        return {group: yaml.safe_load(text)}
    sources = Sources(CONF, command)
    return compose(sources, sources.loader(), [f"{group}={option}"])


def keys_of_group(group: str, config: dict[str, Any], table: dict[str, Key]) -> Iterator[Setting]:
    """Yield the keys of one group in a composed config, and the arguments of another package's class."""
    for path, key, value in leaves(config, table):
        if path.startswith(f"{group}.") and key and not path.startswith("dataset.layout"):
            item = re.match(rf"{group}\.intensity\.(\d+)\.", path)
            name = config[group]["intensity"][int(item[1])]["_target_"].rpartition(".")[2] if item else ""
            yield path, replace(key, meaning=f"{name}: {key.meaning}") if item else key, value
    node = config.get(group)
    if isinstance(node, dict) and not node.get("_target_", "medseg.").startswith("medseg."):
        meaning = f"the argument of this name of {node['_target_']}"
        named = {f"{group}.{name}": value for name, value in node.items() if name != "_target_"}
        yield from ((path, Key(meaning, kind="checked by the class"), value) for path, value in named.items())


def recipe_page() -> str:
    """Show the files of the recipes, with what they say of themselves."""
    lines = ["# Recipes\n"]
    for group, meaning in RECIPES.items():
        lines += [f"## {group}\n", meaning + "\n"]
        for option in options(group):
            path = CONF / group / f"{option}.yaml"
            content = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
            lines += [f"### `{group}={option}` {{ #{group}.{option} }}\n", comment(path) + "\n"]
            lines += ["```yaml", "\n".join(content).strip(), "```\n"]
    return "\n".join(lines)


def comment(path: Path) -> str:
    """Return the comment at the head of a config file, less Hydra's directives, with links to pages that it names."""
    head = takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in head if not line.startswith("# @package"))
    return re.sub(r"docs/(\S+?/(\S+?)\.md)", r"[\2](../../\1)", text)
