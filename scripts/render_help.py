"""Render ``conf/help``: to be run after a change of ``conf/``, ``medseg/config/settings.py`` or an object's arguments.

It holds the help texts, and in ``arguments.json`` what medseg's own objects take, so that neither help nor the checks
of a command line need to import them.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from medseg.cli.sources import Sources, compose
from medseg.config.check import leaves, limits
from medseg.config.instantiate import locate
from medseg.config.schema import CONF, Key, arguments, arguments_of
from medseg.config.settings import KEYS_OF
from medseg.config.untrusted import read_yaml

HEADER = """\
medseg: from a folder of scans and masks to a trained, tested and usable segmentation model.

  medseg train    dataset=folder dataset.root=DIR     train, then test the best checkpoint
  medseg pretrain dataset=scans dataset.root=DIR      learn from scans without masks, to fine-tune from
  medseg eval     checkpoint=RUN                      a report of it, or of masks made elsewhere
  medseg predict  checkpoint=RUN input=DIR output=DIR masks for new scans
  medseg compare  runs=[A,B]                          runs side by side: what is better, and what may be chance
  medseg inspect  dataset=folder dataset.root=DIR     what is in a data set, what is wrong with it, and the plan
  medseg export   checkpoint=RUN output=model.onnx    the network as an ONNX file, checked on a scan
  medseg cache    clean=true                          what the cache of preprocessed scans holds, and its cleaning
  medseg doctor                                       what works on this machine, and what to do where not

  medseg COMMAND --help       the settings of a command
  medseg COMMAND --cfg job    the config that a command line composes
  medseg --version
"""

USAGE = {
    "train": "Train a network on a data set, keep the best checkpoint, test it and write the report.",
    "pretrain": "Train a network to reconstruct hidden parts of scans, without masks, for train to begin with.",
    "eval": "Compare masks of checkpoints, or made elsewhere, with the true ones: metrics, statistics, a report.",
    "predict": "Write masks for a scan or a folder of scans, from a checkpoint alone.",
    "compare": "Compare runs on the same test cases: paired tests, differences with intervals, a ranking.",
    "inspect": "Show what is in a data set, what is wrong with it, and the plan that train would use.",
    "export": "Write a checkpoint, or an ensemble, as an ONNX file, checked on a scan against the checkpoint itself.",
    "cache": "Show what the cache of preprocessed scans holds, or, with clean=true, remove it or a part of it.",
    "doctor": "Show which devices, compilers and disks of this machine work, and what to do where one does not.",
}

WITH_DATASET = ("train", "pretrain", "inspect")
"""Commands that take a data set of any layout, and nothing from a checkpoint."""

FLAGS = """\
  -m                  a sweep: model.depth=3,4 loss=dice_ce,ce runs four jobs, ranked at the end
  --cfg job           show the composed config and stop
  --config-dir DIR    add groups and code of your own
  --info, --hydra-help  Hydra's own
  Completion: eval "$(medseg -sc install=bash)"
"""


REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def main() -> None:
    """Write every file."""
    folder = CONF / "help"
    folder.mkdir(exist_ok=True)
    (folder / "arguments.json").write_text(arguments_text(), encoding="utf-8")
    arguments.cache_clear()  # the help shows them
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")


def arguments_text() -> str:
    """Return ``arguments.json``: the arguments that ``conf/`` gives medseg's own objects, by target.

    One that refers to a setting (``${plan.strides}``) may be what that may be; others are declared in the signature.
    """
    table: dict[str, dict[str, Key]] = {}
    references: dict[str, dict[str, Key]] = {}
    nodes = [node for path in sorted(CONF.rglob("*.yaml")) for node in own_objects(read_yaml(path))]
    for node in nodes:
        for name, value in node.items():
            if isinstance(value, str) and (found := REFERENCE.fullmatch(value)) and found[1] in KEYS_OF["train"]:
                references.setdefault(node["_target_"], {})[name] = KEYS_OF["train"][found[1]]
    for node in nodes:
        target = node["_target_"]
        keys = references.get(target, {}) | arguments_of(locate(target))
        given = {name for name, value in node.items() if not (isinstance(value, dict) and "_target_" in value)}
        if undeclared := sorted(given - {"_target_", *keys}):
            names = ", ".join(undeclared)
            sys.exit(f"{target} takes {names} in conf/: declare it in its signature by Annotated[..., Setting(...)]")
        table.setdefault(target, {}).update({name: keys[name] for name in node if name in given - {"_target_"}})
    plain = {
        target: {name: {part: value for part, value in vars(key).items() if value} for name, key in keys.items()}
        for target, keys in sorted(table.items())
    }
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def own_objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every description of an object of medseg's own in a config."""
    if isinstance(node, dict) and str(node.get("_target_", "")).startswith("medseg."):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from own_objects(child)


def texts() -> dict[str, str]:
    """Return the content of every file by its name."""
    return {"arguments.json": arguments_text(), "medseg.txt": HEADER} | {
        f"{command}.txt": render(command) for command in USAGE
    }


def render(command: str) -> str:
    """Return the help of one command: its groups, its keys with default, type and meaning, its flags."""
    groups = "\n".join(group_line(name, default) for name, default in sorted(groups_of(command).items()))
    return "\n".join(
        [
            f"medseg {command} [key=value ...]\n\n{USAGE[command]}\n",
            *([f"Groups of settings:\n{groups}\n"] if groups else []),
            "Settings with their defaults:\n" + "\n".join(key_lines(command)) + "\n",
            f"Flags:\n{FLAGS}",
        ]
    )


def groups_of(command: str) -> dict[str, str]:
    """Return the groups that a command chooses from, with the option that it takes by default."""
    from hydra.types import RunMode

    config = Sources(CONF, command).loader().load_configuration(command, [], RunMode.RUN)
    defaults = [item for item in read_yaml(CONF / f"{command}.yaml").get("defaults", ()) if isinstance(item, dict)]
    empty = {name: None for item in defaults for name, option in item.items() if option == []}  # which Hydra leaves out
    choices = empty | dict(config.hydra.runtime.choices)
    chosen = {name: option for name, option in choices.items() if not name.startswith("hydra/")}
    return {name: option or "null" for name, option in chosen.items() if "@" not in name}  # else a part of a file


def group_line(name: str, default: str) -> str:
    """Return the line of one group: its options, the default first."""
    others = sorted(path.stem for path in (CONF / name).glob("*.yaml") if path.stem not in (default, "saved"))
    chosen = f"{name}=..." if default == "null" else f"{name}={default}"
    return f"  {chosen:<22} {'' if default == 'null' or not others else 'or '}{', '.join(others)}".rstrip()


def key_lines(command: str) -> Iterator[str]:
    """Yield the lines of every key that some choice of data set brings, in the order of their declaration."""
    order = {path: index for index, path in enumerate(KEYS_OF[command])}
    known = {path: (key, value) for path, key, value in reversed(list(all_keys(command))) if key and path != "command"}
    for path in sorted(known, key=lambda path: (order.get(path, len(order)), path)):
        key, value = known[path]
        yield f"  {path}={default_text(value)}"
        yield fill(meaning(key), 96, initial_indent="      ", subsequent_indent="      ")


def all_keys(command: str) -> Iterator[tuple[str, Key | None, Any]]:
    """Yield (path, key, default) of every key that is no fixed reference to another."""
    sources = Sources(CONF, command)
    datasets = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    choices = [[f"dataset={name}"] for name in datasets if name != "saved"] if command in WITH_DATASET else [[]]
    for choice in sorted(choices, key=lambda choice: choice == ["dataset=phantom"]):  # whose defaults are its own
        config = compose(sources, sources.loader(), choice)
        for path, key, value in leaves(config, KEYS_OF[command]):
            if not path.startswith("dataset.layout") and "augment.intensity." not in path:
                yield path, key, value
        optimizer = dict(config.get("optimizer") or {})
        foreign = Key(f"as {optimizer.pop('_target_', '')} takes it", kind="checked by the class")
        yield from ((f"optimizer.{name}", foreign, value) for name, value in optimizer.items())


def default_text(value: Any) -> str:
    """Write a default as on the command line; a list of objects by its length."""
    if value == {}:
        return "{}"
    if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
        return "..."
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def meaning(key: Key) -> str:
    """Say what a key means, what it may hold, and what null means."""
    return f"{key.meaning} ({limits(key)}{f'; null: {key.null}' if key.null else ''})"


if __name__ == "__main__":
    main()
    print(f"wrote {Path('conf/help')}")
