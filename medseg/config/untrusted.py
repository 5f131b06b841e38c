"""What is read from a file is plain data: the only way from a file to a config, with every check on it.

A run's directory, a plan or a checkpoint may come from a stranger. Nothing in it may choose which code runs, read the
environment, or write outside the run: a ``_target_`` stands only where medseg's own configs have one and names only
what may stand there (see ``medseg.config.instantiate``), values have the types of ``medseg.config.schema``, and
``${...}`` refers to another key and calls no resolver. What does not fit is refused, not passed on.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from medseg.config.check import is_interpolation, is_number, lies_below, look_up, problems
from medseg.config.instantiate import raise_unknown_targets, unknown_targets, with_current_names
from medseg.config.schema import CONF
from medseg.config.settings import KEYS, OBJECTS
from medseg.errors import MedsegError, first_line, listing
from medseg.system.files import read_text

Node = dict[str, Any]

MAX_NODES, MAX_DEPTH, MAX_BITS = 1_000_000, 64, 64
"""Values in a file, with those that YAML's aliases repeat, how deep they may be nested, and bits of a whole number."""

MOST_PROCESSES = 256
"""Processes that load data, or that train."""

NOT_TAKEN = ("hydra", "defaults", "trust", "resume", "run_dir")
"""Keys of a run's ``config.yaml`` that are of the command line alone."""

RUN_NODES = {
    "dataset": ("name", "layout"),
    "model": ("_target_",),
    "optimizer": ("_target_",),
    "scheduler": ("_target_",),
    "augment": ("spatial", "intensity", "transforms"),
    "plan": (),
    "trainer": ("max_epochs", "max_time", "steps_per_epoch", "accelerator", "devices", "precision"),
    "split": ("val", "test", "file"),
    "preprocessing": ("spacing", "resize", "crop", "normalize", "denoise", "denoise_strength"),
}
"""The nodes of the config of every training, and what each must say."""

NOTHING: Mapping[str, Collection[str]] = {}

SWEEP = "sweep.json"
"""What a sweep's folder says of the jobs in it."""

LAUNCHING = ("hydra/launcher=", "hydra.launcher.")
"""How settings begin that say where the jobs of a sweep run."""

REFERENCE = re.compile(r"\$\{(\.*)([A-Za-z_][\w-]*(?:\.[\w-]+)*)\}")
"""A reference to another key, relative where it begins with dots."""

TRACKER_FOLDERS = ("save_dir", "run_dir", "folder")
"""The arguments of trackers that hold a path from the working directory, not a name in another folder."""

PLAN_NODES = {
    "model": (),
    "preprocessing": ("spacing", "resize", "crop", "normalize"),
    "plan": ("in_channels", "out_channels", "patch_size", "batch_size", "mirror_axes"),
    "trainer": (),
}
"""The nodes of a plan, and what each must say."""

DESCRIPTION_NODES = {
    "model": ("_target_",),
    "preprocessing": ("spacing", "resize", "crop", "normalize"),
    "plan": ("patch_size", "mirror_axes", "slice_axis", "context"),
    "inference": ("overlap", "tta", "threshold", "batch_size"),
    "postprocess": ("largest", "min_ml", "min_voxels", "fill_holes", "smooth_mm"),
    "dataset": ("geometry", "reference"),
    "trainer": ("precision",),
}
"""The nodes of the config in a checkpoint that prediction and further training take, and what each must say."""


class PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML without merges (``<<``), each of which copies a mapping: a few lines of them fill the memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Raise for a mapping that merges others."""
        if any(name.tag == "tag:yaml.org,2002:merge" for name, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "merges (<<) are not read", node.start_mark)
        super().flatten_mapping(node)


def read_json(path: Path, cure: str = "") -> Any:
    """Return what a JSON file holds; ``cure`` is the end of the error's message.

    Raises:
        MedsegError: it cannot be read, is damaged, or is nested too deeply.
    """
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise MedsegError(f"{path}: cannot be read as JSON ({reason(error)}).{cure and ' '}{cure}") from error
    return plain(content, path)


def read_json_object(path: Path, cure: str = "") -> Node:
    """Return the mapping that a JSON file holds; MedsegError as in ``read_json``, or where it holds anything else."""
    return mapping(read_json(path, cure), path, cure)


def read_yaml(path: Path, cure: str = "") -> Node:
    """Return the mapping that a YAML file holds; ``cure`` is the end of the error's message.

    Raises:
        MedsegError: it cannot be read, is damaged, or holds something else.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise MedsegError(f"{path}: cannot be read as YAML ({reason(error)}).{cure and ' '}{cure}") from error
    return mapping(parse_yaml(text, path, cure), path, cure)


def parse_yaml(text: str, source: Path | str, cure: str = "") -> Any:
    """Return what a text in YAML holds, which is plain.

    Raises:
        MedsegError: it is no YAML, or holds more than plain content.
    """
    try:
        content = yaml.load(text, PlainLoader)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, yaml.YAMLError) as error:
        # PyYAML converts scalars with tags, such as !!bool x, without a check
        raise MedsegError(f"{source}: cannot be read as YAML ({reason(error)}).{cure and ' '}{cure}") from error
    return plain(content, source)


def reason(error: Exception) -> str:
    """Return in a line why a file cannot be read."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or first_line(error)


def mapping(content: Any, source: Path | str, cure: str = "") -> Node:
    """Return a mapping whose keys are text; MedsegError where the content is anything else."""
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        kind = "nothing" if content is None else type(content).__name__
        raise MedsegError(f"{source}: it must hold a mapping of names to values, not {kind}.{cure and ' '}{cure}")
    return content


def plain(content: Any, source: Path | str) -> Any:
    """Return content of a file that is plain: containers, texts and numbers, of a size that can be gone through.

    Objects that it names have their present names.
    """
    left, count = [(content, 0)], 0
    while left:
        node, depth = left.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise MedsegError(f"{source}: over {MAX_NODES:,} values, or nested more than {MAX_DEPTH} deep.")
        if isinstance(node, dict):
            left += [(name, depth + 1) for name in node] + [(child, depth + 1) for child in node.values()]
        elif isinstance(node, list):
            left += [(child, depth + 1) for child in node]
        elif isinstance(node, int) and node.bit_length() > MAX_BITS:  # which no type of a machine holds
            raise MedsegError(f"{source}: it holds a whole number of {node.bit_length()} bits, over {MAX_BITS}.")
        elif node is not None and not isinstance(node, str | int | float):
            raise MedsegError(
                f"{source}: it holds {type(node).__name__}, which is neither text nor a number: {node!r}."
            )
    return with_current_names(content)


def config_of_run(
    run: Path,
    trust: Collection[str],
    changed: Collection[str] = (),
    needed: Mapping[str, Collection[str]] = NOTHING,
    part: str | None = None,
) -> Node:
    """Return the unresolved config of a run, from its ``config.yaml``, without what is of the command line alone.

    Args:
        run: the run's directory.
        trust: names that the user trusts (see ``medseg.config.instantiate.build``).
        changed: keys that this command line gives another value, which is the user's own.
        needed: the nodes that it must have, and what each must say.
        part: the only node that is wanted, with the values outside nodes; None: all, for a run that goes on.

    Raises:
        MedsegError: there is none, it is damaged, or it asks for what a file may not.
    """
    path = run / "config.yaml"
    cure = "Restore it, or begin a new training with the weights: finetune.checkpoint=RUN/checkpoints/best.ckpt."
    config = {name: value for name, value in read_yaml(path, cure).items() if name not in NOT_TAKEN}
    if part:
        others = {name for name, value in config.items() if isinstance(value, dict | list) or is_interpolation(value)}
        config = {name: value for name, value in config.items() if name == part or name not in others}
    lost = [name for name in needed if not isinstance(config.get(name), dict)]
    lost += [f"{name}.{key}" for name in needed if name not in lost for key in needed[name] if key not in config[name]]
    if lost:
        raise MedsegError(f"{path}: it does not say {', '.join(lost)}: the file is damaged or another one. {cure}")
    unknown = [(key, name) for key, name in all_unknown_targets(config, trust) if not lies_below(key, changed)]
    raise_unknown_targets(unknown, str(path))
    wrong = {**wrong_references(config), **({} if part else outside_paths(config, run) | too_many(config))}
    if left := [f"{key}: {text}" for key, text in wrong.items() if not lies_below(key, changed)]:
        raise MedsegError(
            f"{path} holds what a config may not that is read from a file:\n{listing(left)}\n"
            "Give these keys their values on this command line."
        )
    return {**config, "trust": [], "resume": None, "run_dir": None}


def all_unknown_targets(node: Any, trust: Collection[str], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the name of every target in a config that may not be built there."""
    if path in OBJECTS:
        yield from unknown_targets(node, path, trust)
        return
    if isinstance(node, dict) and "_target_" in node:
        yield path, str(node["_target_"])
    items = node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list) else ())
    for name, child in items:
        yield from all_unknown_targets(child, trust, f"{path}.{name}" if path else str(name))


def wrong_references(config: Node) -> dict[str, str]:
    """Return what is wrong with references, by key: a value has one at most, to another key, and none branches.

    Resolvers read the environment (``${oc.env:HOME}``), and references that branch grow without bound.
    """
    found = {}
    for keys, text in texts(config):
        if not is_interpolation(text):
            continue
        match = REFERENCE.search(text)
        if match is None or is_interpolation(text.replace(match[0], "", 1)):
            found[".".join(map(str, keys))] = f"{text!r} is more than one reference to another key"
        elif not ends(config, keys, match):
            found[".".join(map(str, keys))] = f"{text!r} refers to a key that refers to others in turn"
    return found


def ends(config: Node, keys: tuple[Any, ...], match: re.Match[str] | None) -> bool:
    """Return whether a reference leads to a value without one, past others or not."""
    for _ in range(MAX_DEPTH):
        if match is None:
            return True
        keys = (*(keys[: -len(match[1])] if match[1] else ()), *match[2].split("."))
        _, value, _ = look_up(config, keys)
        if isinstance(value, dict | list):
            return not any(is_interpolation(text) for _, text in texts(value))
        match = REFERENCE.search(value) if is_interpolation(value) else None
    return False


def texts(node: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield every text in a config, names of keys too, with its path."""
    if isinstance(node, str):
        yield keys, node
    items = node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list) else ())
    for name, child in items:
        if isinstance(name, str) and is_interpolation(name):
            yield keys, name
        yield from texts(child, (*keys, name))


def outside_paths(config: Node, run: Path) -> dict[str, str]:
    """Return the places outside a run that its config would have medseg write or send to, by key.

    Of trackers these are all but what ``conf/`` says itself: a text in the place of a text may lie in the run, while
    what is null or a switch there, such as a server, decides whether anything leaves this machine.
    """
    found = {}
    shipped = {node.get("_target_"): node for node in map(read_yaml, (CONF / "logger").glob("*.yaml"))}
    loggers = config.get("logger")
    for name, node in loggers.items() if isinstance(loggers, dict) else ():
        own = shipped.get(node.get("_target_")) if isinstance(node, dict) else None
        for key, value in node.items() if own else ():
            if own is None or key == "_target_" or value == own.get(key):
                continue
            if own.get(key, "") is None or isinstance(own.get(key), bool):
                found[f"logger.{name}.{key}"] = f"{value!r} is not what medseg's own file has"
            for keys, text in texts({key: value}):
                text = followed(config, ("logger", name, *keys), text)
                path = run / text.removeprefix("${run_dir}/")
                if keys[0] in TRACKER_FOLDERS and not text.startswith("${run_dir}/"):
                    path = Path(text)
                if not path.resolve().is_relative_to(run.resolve()):
                    found[".".join(map(str, ("logger", name, *keys)))] = f"{text!r} lies outside the run"
    cache = followed(config, ("cache_dir",), str(config.get("cache_dir", "")))
    leaves = Path(cache).is_absolute() or ".." in Path(cache).parts
    if leaves and not any(Path(cache).glob("v[0-9]*")):
        found["cache_dir"] = f"{cache!r} is no cache of medseg's"
    return found


def followed(config: Node, keys: tuple[Any, ...], text: str) -> str:
    """Return a text at a path of a config with what its references lead to in their place; ``${run_dir}`` stays.

    What refers to a mapping or a list, or to nothing, stays as well, and is no text then.
    """
    for _ in range(MAX_DEPTH):
        match = REFERENCE.search(text)
        if match is None or match[2] == "run_dir":
            break
        keys = (*(keys[: -len(match[1])] if match[1] else ()), *match[2].split("."))
        _, value, _ = look_up(config, keys)
        if value is None or isinstance(value, dict | list):
            break
        text = text.replace(match[0], str(value), 1)
    return text


def too_many(config: Node) -> dict[str, str]:
    """Return how many processes a run's config asks for, by key, where machines do not have so many."""
    found = {}
    for key in ("trainer.workers", "trainer.devices"):
        _, number, _ = look_up(config, key.split("."))
        if isinstance(number, int) and number > MOST_PROCESSES:
            found[key] = f"{number} processes, of which a file may ask for {MOST_PROCESSES}"
        elif is_interpolation(number):
            found[key] = f"{number!r} is no number of processes"
    return found


def plan_from(content: Any, source: Path | str) -> Node:
    """Return a plan that a file holds.

    Raises:
        MedsegError: it is none, or has keys or values that no plan has.
    """
    cure = "Give the plan.json of a run of this version."
    plan = mapping(content, source, cure)
    found = unfit(plan, PLAN_NODES, optional=("pretext", "measured", "first_stage"))
    for name in ("model", "pretext"):  # of any network: numbers, or lists of them
        node = plan.get(name, {})
        items = node.items() if isinstance(node, dict) else [("", node)]
        found += [f"{name}.{key}: {value!r}" for key, value in items if not is_flat(value)]
    measured = plan.get("measured", {})
    if not isinstance(measured, dict):
        found.append("measured: must be a mapping")
    else:
        if not is_number(measured.get("step", 0)):
            found.append(f"measured.step: must be a number, not {measured['step']!r}")
        for key, value in measured.items():  # plain, or a number for each width
            is_plain = all(map(is_number, value.values())) if isinstance(value, dict) else is_flat(value)
            found += [] if is_plain else [f"measured.{key}: {value!r}"]
    if found:
        raise MedsegError(f"{source}: no plan that can be used:\n{listing(found)}\n{cure}")
    plan["plan"].setdefault("coarse_channels", 0)  # which older ones lack
    return plan


def check_settings(settings: Node, source: Path | str) -> None:
    """Raise where the nodes of a config from a file have a key or a value that is none of medseg's.

    Raises:
        MedsegError: with the keys and what they may hold.
    """
    if found := unfit(settings, dict.fromkeys(settings, ())):
        raise MedsegError(f"{source}: its description holds what cannot be used:\n{listing(found)}")


def checked_description(content: Any, source: Path | str) -> Node:
    """Return the description in a checkpoint, of the present format, if every key and value is one of medseg's.

    Which class the network is of is left to ``build``: files can be looked at that cannot be trusted.

    Raises:
        MedsegError: with the keys and what they may hold.
    """
    content = plain(content, source)
    config = mapping(content["config"], f"{source}: its config")
    unused = () if content.get("classes") else ("inference", "postprocess")  # pre-trained: it predicts nothing
    needed = {name: keys for name, keys in DESCRIPTION_NODES.items() if name not in unused}
    needed |= {"first_stage": ("use", "margin")} if "first_stage" in config else {}  # which older ones lack
    found = unfit({name: config[name] for name in needed if name in config}, needed)
    kinds = {"classes": dict, "regions": dict, "region_order": list, "channels": list, "training_data": dict}
    for name, kind in kinds.items():
        value = content.get(name)
        if not isinstance(value, kind) and (value is not None or name == "classes"):
            found.append(f"{name}: must be {'a mapping' if kind is dict else 'a list'}, not {value!r}")
    if not found:
        for index, suffixes in enumerate(content.get("channels") or ()):
            if not (isinstance(suffixes, list) and suffixes and all(isinstance(text, str) for text in suffixes)):
                found.append(f"channels.{index}: must be a list of texts, not {suffixes!r}")
        for name, numbers in (content.get("training_data") or {}).items():
            if not (isinstance(numbers, list) and len(numbers) == 4 and all(map(is_number, numbers))):
                found.append(f"training_data.{name}: must be a list of four numbers, not {numbers!r}")
        if "tuned" in content:  # "before" has the options that tuning replaced
            before = content["tuned"].get("before") if isinstance(content["tuned"], dict) else None
            if isinstance(before, dict):
                needed = {name: DESCRIPTION_NODES[name] for name in ("inference", "postprocess")}
                found += [f"tuned.before.{text}" for text in unfit(before, needed)]
            else:
                found.append(f"tuned: must have the mapping 'before', not {content['tuned']!r}")
    if found:
        raise MedsegError(
            f"{source}: a checkpoint of medseg's whose description cannot be used:\n{listing(found)}\n"
            "Give another copy of the file, or another checkpoint."
        )
    return content


def unfit(nodes: Node, needed: dict[str, tuple[str, ...]], optional: Collection[str] = ()) -> list[str]:
    """Return what is wrong with plain nodes of a config: unknown, missing, of another type, or with a reference."""
    found = [f"{name}: no such part" for name in nodes if name not in needed and name not in optional]
    found += [f"{name}: must be a mapping" for name in needed if not isinstance(nodes.get(name), dict)]
    if found:
        return found
    found = [f"{name}.{key}: missing" for name, keys in needed.items() for key in keys if key not in nodes[name]]
    found += [f"{'.'.join(map(str, keys))}: {text!r}" for keys, text in texts(nodes) if is_interpolation(text)]
    known = {name: node for name, node in nodes.items() if name not in ("model", "pretext", "measured")}
    found += [
        f"{name}.{key}: unknown key"
        for name, node in known.items()
        for key, value in node.items()
        if isinstance(value, dict) and f"{name}.{key}" not in KEYS  # which would be taken for a node
    ]
    if isinstance(nodes.get("model"), dict) and "_target_" in nodes["model"]:
        known["model"] = nodes["model"]
    return found + list(problems(known).values())


def is_flat(value: Any) -> bool:
    """Return whether a value is a number or a text, or a list of these."""
    return all(map(is_flat, value)) if isinstance(value, list) else not isinstance(value, dict)
