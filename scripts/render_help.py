"""Render the help texts under ``conf/help``: to be run after a change of ``conf/`` or ``medseg/config/schema.py``."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from medseg.cli.overrides import Sources, compose
from medseg.config.check import leaves, limits
from medseg.config.instantiate import CONF
from medseg.config.schema import FROM_CHECKPOINT, KEYS, Key

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


def main() -> None:
    """Write every help text."""
    folder = CONF / "help"
    folder.mkdir(exist_ok=True)
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")


def texts() -> dict[str, str]:
    """Return the help texts by file name."""
    return {"medseg.txt": HEADER} | {f"{command}.txt": render(command) for command in USAGE}


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
    choices = config.hydra.runtime.choices
    chosen = {name: option for name, option in choices.items() if not name.startswith("hydra/")}
    return {name: option or "null" for name, option in chosen.items() if "@" not in name}  # else a part of a file


def group_line(name: str, default: str) -> str:
    """Return the line of one group: its options, the default first."""
    others = sorted(path.stem for path in (CONF / name).glob("*.yaml") if path.stem not in (default, "saved"))
    return f"  {name + '=' + default:<22} {('or ' + ', '.join(others)) if others else ''}".rstrip()


def key_lines(command: str) -> Iterator[str]:
    """Yield the lines of every key that some choice of data set brings, in the order of ``KEYS``."""
    order = {path: index for index, path in enumerate(KEYS)}
    known = {path: (key, value) for path, key, value in reversed(list(all_keys(command))) if key and path != "command"}
    for path in sorted(known, key=lambda path: (order.get(path, len(order)), path)):
        key, value = known[path]
        yield f"  {path}={default_text(value)}"
        yield fill(meaning(path, key, command), 96, initial_indent="      ", subsequent_indent="      ")


def all_keys(command: str) -> Iterator[tuple[str, Key | None, Any]]:
    """Yield (path, key, default) of every key that is no fixed reference to another."""
    sources = Sources(CONF, command)
    datasets = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    choices = [[f"dataset={name}"] for name in datasets if name != "saved"] if command in WITH_DATASET else []
    for choice in [[], *choices]:
        for path, key, value in leaves(compose(sources, sources.loader(), choice)):
            if not path.startswith("dataset.layout") and "augment.intensity." not in path:
                yield path, key, value


def default_text(value: Any) -> str:
    """Write a default as on the command line; a list of objects by its length."""
    if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
        return "..."
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def meaning(path: str, key: Key, command: str) -> str:
    """Say what a key means, what it may hold, and what null means."""
    null = key.null
    if command not in WITH_DATASET and path.startswith(FROM_CHECKPOINT):
        null = "taken from the checkpoint"
    return f"{key.meaning} ({limits(key)}{f'; null: {null}' if null else ''})"


if __name__ == "__main__":
    main()
    print(f"wrote {Path('conf/help')}")
