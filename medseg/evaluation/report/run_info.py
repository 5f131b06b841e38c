"""What a report shows of a run: its data, split, config and environment, from the files of its run directory."""

import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medseg.config.untrusted import read_json_object, read_yaml
from medseg.errors import MedsegError
from medseg.evaluation.pages.text_table import NONE, TextTable

log = logging.getLogger(__name__)

SUBSETS = ("train", "val", "test")


def read_part(path: Path, reader: Callable[[Path], dict[str, Any]] = read_json_object) -> dict[str, Any]:
    """Read a file of a run; one that is not there is empty, and a damaged one, with a line in the log."""
    try:
        return reader(path) if path.is_file() else {}
    except MedsegError as error:
        log.warning("the report goes without it: %s", error)
        return {}


def read_configs(runs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Read the ``config.yaml`` of each run."""
    return [read_part(run / "config.yaml", read_yaml) for run in runs.values()]


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


def fingerprint_table(run: Path) -> TextTable:
    """Return the ranges of what the training scans are like."""
    rows = [
        [name, *(f"{value:.4g}" for value in values)]
        for name, values in read_part(run / "training_data.json").items()
        if isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    ]
    return TextTable(
        "Fingerprint",
        ["of the training cases", "lowest", "highest", "in-distribution from", "in-distribution to"],
        rows,
    )


def plan_terms(run: Path) -> dict[str, str]:
    """Return the plan made of the training data; that of a first stage, where there is one, comes first."""
    plan = read_part(run / "plan.json")
    terms = node(plan, "preprocessing") | node(plan, "plan")
    if coarse := node(plan, "first_stage"):
        stage = node(read_part(run / "config.yaml", read_yaml), "first_stage") | coarse
        terms = {f"first_stage_{key}": value for key, value in stage.items()} | terms
    return {key.replace("_", " "): written(value) for key, value in terms.items()}


def split_of(run: Path) -> tuple[str, dict[str, list[str]]]:
    """Return the seed of a run's split, and the cases of each subset; no subset where the run has no split."""
    split = read_part(run / "splits.json")
    subsets = {name: split.get(name) for name in SUBSETS} if split else {}
    cases = {name: [str(case) for case in own] if isinstance(own, list) else [] for name, own in subsets.items()}
    return str(split.get("seed", NONE)), cases


def config_texts(runs: Mapping[str, Path]) -> dict[str, str]:
    """Return the ``config.yaml`` of each run that has one, as it is."""
    files = {name: run / "config.yaml" for name, run in runs.items()}
    return {name: path.read_text("utf-8", errors="replace") for name, path in files.items() if path.is_file()}


def environments(runs: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Return of each run how it was called, on what, and how it ended."""
    facts_of_run = {}
    for name, run in runs.items():
        environment, result = read_part(run / "environment.json"), read_part(run / "result.json")
        if not environment:
            continue
        arguments = environment.pop("arguments", [])
        arguments = arguments if isinstance(arguments, list) else [arguments]
        versions = {"versions": environment.pop("versions")} if "versions" in environment else {}
        ending = {key: result[key] for key in ("reason", "selection", "seconds") if result.get(key)}
        facts = {key: written(value) for key, value in (environment | versions | ending).items()}
        facts_of_run[name] = {"command": "medseg " + shlex.join(map(str, arguments)), **facts}
    return facts_of_run


def written(value: Any) -> str:
    """Write a value of a config in a line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {written(part)}" for key, part in value.items())
    if isinstance(value, list):
        joint = " × " if value and all(isinstance(part, int | float) for part in value) else ", "
        return joint.join(map(written, value)) or NONE
    return NONE if value is None else str(value)
