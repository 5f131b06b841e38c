"""Settings given in Python: by the names of the command line, nested or dotted, and checked as it checks them."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.cli.arguments import parse_flags
from medseg.cli.hydra_main import completed
from medseg.cli.job import refuse
from medseg.cli.overrides import absent_paths, check
from medseg.cli.quoting import BY_NAME, key_of, merging, quote
from medseg.cli.resume import resumed
from medseg.cli.sources import RESUMED, Sources, compose, own_sources
from medseg.config.extras import missing_extras
from medseg.errors import MedsegError


def config_of(
    command: str, settings: Mapping[str, Any], config_dir: str | Path | None = None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the config of one job, and the command line that composes the same.

    Nothing of Hydra's global state is needed or changed. There is no config where ``resume="auto"`` finds a run of
    which nothing is left to do.

    Args:
        command: such as "train".
        settings: values by the names of the command line: ``{"trainer.max_epochs": 5}`` or
            ``{"trainer": {"max_epochs": 5}}``; an option of a group is text: ``{"model": "unet"}``.
        config_dir: a folder with config files and modules of the user's own.

    Raises:
        MedsegError: with what the command line would say of the settings.
    """
    from hydra.core.config_store import ConfigStore

    flags = ["--config-dir", str(config_dir)] if config_dir else []
    options = parse_flags(["--config-name", command, *flags])
    if config_dir and (folder := str(Path(config_dir).resolve())) not in sys.path:
        sys.path.append(folder)
    sources = Sources.of(options) if config_dir else own_sources(command)
    words = [word(name, value, sources.groups) for name, value in flattened(settings)]
    if many := [text for text in words if text.startswith(("search=", "hydra")) or text == "split.fold='all'"]:
        raise MedsegError(f"{', '.join(many)}: several trainings are started from the command line: medseg {command} …")
    try:
        left, _, _ = resumed(command, [merging(text) for text in words], [], options)
        if options.multirun:
            raise MedsegError(f"a sweep goes on from the command line: medseg {' '.join([command, *words])}")
        if left is None:
            return None, words
        if options.config_name == RESUMED:
            sources = Sources.of(options)
        checked = check(sources, left)
        refuse(list(checked.problems.values()))
        refuse([*absent_paths(checked), *missing_extras(checked.composed[0])])
        config = completed(compose(sources, sources.loader(), left), sources, left)
    finally:
        ConfigStore.instance().repo.pop(f"{RESUMED}.yaml", None)
    return config, [command, *words, *flags]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of all settings.

    >>> dict(flattened({"model": {"depth": 3}, "trainer.max_epochs": 5, "dataset": {"labels": {"cell": 255}}}))
    {'model.depth': 3, 'trainer.max_epochs': 5, 'dataset.labels': {'cell': 255}}
    """
    for name, value in settings.items():
        key = key_of(f"{prefix}{name}")
        if isinstance(value, Mapping) and not (key and key.kind in BY_NAME):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def word(name: str, value: Any, groups: set[str]) -> str:
    """Return a setting as it is written on the command line, so that every text stays as it is.

    >>> print(word("model", "unet", {"model"}), word("run_dir", "a, b", set()), word("dataset.labels", {"é": 1}, set()))
    model=unet run_dir='a, b' dataset.labels='{"é": 1}'
    """
    if name in groups and isinstance(value, str):
        return f"{name}={value}"
    if name in groups and isinstance(value, Sequence):
        return f"{name}=[{','.join(map(str, value))}]"
    if isinstance(value, Mapping):  # in quotes, without what could be taken for an interpolation
        return f"{name}={quote(json.dumps(value, ensure_ascii=False).replace('$', chr(92) + 'u0024'))}"
    return f"{name}={literal(name, value)}"


def literal(name: str, value: Any) -> str:
    """Return a value in Hydra's grammar.

    Raises:
        MedsegError: it is of a kind that no setting has.
    """
    if hasattr(value, "tolist"):  # a number or an array of NumPy's
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str | Path):
        return quote(str(value))
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{literal(name, each)}' for key, each in value.items())}}}"
    if isinstance(value, Sequence):
        return f"[{','.join(literal(name, each) for each in value)}]"
    raise MedsegError(f"{name}={value!r}: a setting is a number, a text, a path, True, False, None, or a list or dict.")
