"""What a report tells of the run: its data, split, config and environment, from the files of its run directory."""

import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medseg.config.untrusted import read_json_object, read_yaml
from medseg.errors import MedsegError
from medseg.evaluation.pages.page import folded, preformatted, table, terms
from medseg.evaluation.pages.text_table import NONE, TextTable

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a run; one that is not there is empty, and a damaged one, with a line in the log."""
    return _read(read_json_object, path)


def read_config(path: Path) -> dict[str, Any]:
    """Read a run's ``config.yaml``; one that is not there is empty, and a damaged one, with a line in the log."""
    return _read(read_yaml, path)


def node(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a mapping inside a file's content, empty where there is none."""
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def data_name(node: Mapping[str, Any]) -> str:
    """Return what a config's ``dataset`` node calls the data: its folder, where it has one, tells more than its layout.

    >>> data_name({"name": "decathlon", "root": "data/Task04_Hippocampus"}), data_name({"name": "phantom"})
    ('Task04_Hippocampus', 'phantom')
    """
    return Path(str(node.get("root") or "")).name or str(node.get("name") or "")


def training_data(run: Path) -> list[str]:
    """Return what the training scans are like, and the plan made of it."""
    ranges = read_json(run / "training_data.json")
    rows = [
        [name, *(f"{value:.4g}" for value in values)]
        for name, values in ranges.items()
        if isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    ]
    headers = ["of the training cases", "lowest", "highest", "familiar from", "familiar to"]
    plan = read_json(run / "plan.json")
    told = {
        key.replace("_", " "): written(value)
        for part in ("preprocessing", "plan")
        for key, value in node(plan, part).items()
    }
    return [
        *([table(TextTable("Fingerprint", headers, rows))] if rows else []),
        *([folded("The plan made of the data", terms(told))] if told else []),
    ]


def split(run: Path) -> list[str]:
    """Return the sizes of the parts of a split, and which cases they hold."""
    parts = read_json(run / "splits.json")
    if not parts:
        return []
    cases = {part: [str(name) for name in parts[part]] if isinstance(parts.get(part), list) else [] for part in PARTS}
    rows = [[part, str(len(cases[part]))] for part in PARTS]
    named = (
        folded(f"The cases of {part}", preformatted("\n".join(cases[part]), part)) for part in PARTS if cases[part]
    )
    return [table(TextTable(f"Split, seed {parts.get('seed', NONE)}", ["part", "cases"], rows)), *named]


def configs(runs: Mapping[str, Path]) -> list[str]:
    """Return the config of each run as YAML."""
    files = {name: run / "config.yaml" for name, run in runs.items()}
    return [
        folded(
            f"config.yaml of the {name}",
            preformatted(path.read_text(encoding="utf-8", errors="replace"), f"config of the {name}"),
        )
        for name, path in files.items()
        if path.is_file()
    ]


def environments(runs: Mapping[str, Path]) -> list[str]:
    """Return how each run was called, on what, and how it ended."""
    html = []
    for name, run in runs.items():
        environment, result = read_json(run / "environment.json"), read_json(run / "result.json")
        if not environment:
            continue
        arguments = environment.pop("arguments", [])
        arguments = arguments if isinstance(arguments, list) else [arguments]
        facts = {"command": "medseg " + shlex.join(map(str, arguments))}
        facts |= {key: written(value) for key, value in environment.items() if key != "versions"}
        facts |= {"versions": written(environment["versions"])} if "versions" in environment else {}
        facts |= {key: written(result[key]) for key in ("reason", "selection", "seconds") if result.get(key)}
        html += [f"<h3>{name.capitalize()}</h3>", terms(facts)]
    return html


def written(value: Any) -> str:
    """Write a value of a config in a line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {written(part)}" for key, part in value.items())
    if isinstance(value, list):
        joint = " × " if value and all(isinstance(part, int | float) for part in value) else ", "
        return joint.join(map(written, value)) or NONE
    return NONE if value is None else str(value)


def _read(reader: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    try:
        return reader(path) if path.is_file() else {}
    except MedsegError as error:
        log.warning("the report goes without it: %s", error)
        return {}
