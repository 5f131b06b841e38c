"""The ``key=value`` settings of a command line, all checked at once.

Hydra stops at the first wrong override and knows no types. Here all are compared with the composed config, before
anything heavy is imported.
"""

import re
import shlex
from collections import defaultdict, deque
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.cli.quoting import key_of, merging, quoted
from medseg.cli.sources import RESUMED, Sources, compose
from medseg.config import schema
from medseg.config.check import (
    dotted,
    fits,
    flat,
    is_interpolation,
    lies_below,
    look_up,
    nearest_key,
    problems,
    resolve,
)
from medseg.config.settings import KEYS, OPEN
from medseg.errors import MedsegError, nearest, nearest_path

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.types import Override

SOURCES = (
    *("dataset.root", "dataset.group_file", "dataset.annotated_file", "dataset.corrections", "split.file"),
    *("finetune.checkpoint", "checkpoint", "predictions", "input", "case", "runs"),
)
"""Keys of paths that have to be there."""

SYNTHETIC = "medseg.io.layouts.phantom"
"""The layout that writes its data itself."""

PLUGINS = {
    "hydra/launcher": {
        "joblib": "hydra-joblib-launcher",
        "ray": "hydra-ray-launcher",
        "rq": "hydra-rq-launcher",
    },
    "hydra/sweeper": {
        "ax": "hydra-ax-sweeper",
        "nevergrad": "hydra-nevergrad-sweeper",
    },
}
"""The packages that bring Hydra's launchers and sweepers."""

SEARCH = "hydra/sweeper=optuna"
SEARCHER = "hydra_plugins.medseg.sweepers.OptunaSweeper"
"""How medseg's own search is chosen, and its class."""

OF_CASES = {"seed", "split", "dataset"}
"""What a search does not vary: scores would differ by their cases, or by luck."""

EXTRAS = {SEARCH: ("optuna", "search")}
"""What medseg's own launchers and sweepers import, and the extra that brings it."""

PLAIN_OF_HYDRA = (
    *("hydra/launcher=local", "hydra.launcher.devices=", "hydra.launcher.jobs_per_device="),
    *("hydra/launcher=submitit_local", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min="),
    *("hydra.launcher.nodes=", "hydra.launcher.tasks_per_node=", "hydra.launcher.cpus_per_task="),
    *("hydra.launcher.gpus_per_node=", "hydra.launcher.mem_gb=", "hydra.launcher.partition=", "hydra.launcher.qos="),
    *("hydra.launcher.account=", "hydra.launcher.constraint=", "hydra.launcher.array_parallelism="),
    *("hydra/sweeper=basic", SEARCH),
)
"""How those settings of Hydra's begin that run nothing of their own."""

REPLACED = {"model", "plan", "preprocessing"}
"""Nodes whose defaults give way to values of ``finetune.checkpoint`` or ``plan.file``."""


def is_plain(setting: str) -> bool:
    """Return whether a setting may come from a file: it names nothing that is built, run or read from elsewhere.

    Keys and values are checked like any others besides.
    """
    name = setting.partition("=")[0].lstrip("+~")
    is_own = not name.startswith(("hydra", "trust")) or setting.startswith(PLAIN_OF_HYDRA)
    is_elsewhere = "@" in name  # logger@hydra.callbacks.x=csv has Hydra build a group's objects in its own node
    return is_own and not is_elsewhere and "_target_" not in setting and not re.search(r"\$\\*\{", setting)


def unquoted_sweeps(settings: list[str]) -> list[str]:
    """Name settings that look like a sweep over paths but, unquoted, mean one path, which is not there."""
    problems = []
    for setting in settings:
        name, _, value = setting.partition("=")
        if name in SOURCES and "," in value and quoted(setting) != setting and not Path(value).exists():
            each = ",".join(f"'{part}'" for part in value.split(","))
            problems.append(
                f'{setting}: no such path. A sweep over paths needs quotes, for the shell too: "{name}={each}"'
            )
    return problems


@dataclass
class Check:
    """What is known of a command line after checking it.

    ``problems`` by key are to be mended first. ``composed`` holds a plain config for each choice of groups, swept
    values left out, ``settings`` what each was composed of; ``unknown`` the groups of which no known option was chosen,
    so that nothing below them can be checked; ``swept`` the keys whose values a sweep varies, with the values that are
    known beforehand: none of an interval.
    """

    problems: dict[str, str] = field(default_factory=dict)
    composed: list[dict[str, Any]] = field(default_factory=list)
    settings: list[list[str]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    swept: dict[str, list[Any]] = field(default_factory=dict)


def parse(settings: list[str], loader: "ConfigLoaderImpl", checked: Check, *, multirun: bool) -> "list[Override]":
    """Parse each setting on its own, so that one error does not hide the next."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, parsed = OverridesParser.create(config_loader=loader), []
    for setting in together(settings, checked):
        try:
            override = parser.parse_override(setting)
        except (HydraException, ValueError):  # the latter of a number of too many digits
            checked.problems[setting] = syntax_problem(setting)
            continue
        if not override.key_or_group:  # key = value, in three words
            checked.problems[setting] = syntax_problem(setting)
            continue
        override.config_loader = loader  # a sweep over glob(*) asks it for the options
        if override.is_sweep_override() and not multirun:
            checked.problems[setting] = f"{setting}: several values make a sweep, which needs -m."
            continue
        parsed.append(override)
    return parsed


def together(settings: list[str], checked: Check) -> list[str]:
    """Return settings without those that the shell has split at a space after a comma: of each, one problem."""
    left, rest = [], deque(settings)
    while rest:
        setting = rest.popleft()
        parts = [setting.removeprefix("++")]
        while parts[-1].endswith(",") and rest and "=" not in rest[0]:
            parts.append(rest.popleft())
        if len(parts) == 1:
            left.append(setting)
            continue
        given, meant = " ".join(parts), "".join(parts)
        checked.problems[given] = f"{given}: the shell has split it at a space. Write it without: {shlex.quote(meant)}"
    return left


def syntax_problem(setting: str) -> str:
    """Return what is wrong with a setting that Hydra cannot parse, without the signs that ``merging`` put before it."""
    setting = setting.removeprefix("++")
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        return f"{setting!r}: settings are written key=value, without spaces around the =."
    if setting[0] in "'\"":
        return f"{setting!r}: its quotes are no quotes for this shell. cmd.exe knows double ones alone."
    if value.startswith("{"):
        if not value.endswith("}"):
            return f'{setting!r}: the shell has split it at a space. Quote it as a whole: "{key}={{name: value, ...}}"'
        return (
            f"{key}={value}: cannot be read. A mapping is written {key}='{{name: value, ...}}', names without quotes,"
            " values with them where they hold special characters."
        )
    if value.endswith(","):
        return f"{setting!r}: a comma at its end. Several values are written without spaces: {key}=a,b"
    return f"{setting!r}: cannot be read. Quote a value with special characters, for the shell too: \"{key}='{value}'\""


def choices_of(override: "Override") -> list[str]:
    """Return the choices that an override of a group makes, more than one in a sweep, each written as in a setting.

    A choice may be a list of options, all of which are taken: ``[tensorboard,mlflow]``.
    """
    from hydra.core.override_parser.types import Transformer

    if not override.is_sweep_override():
        values = [override.value()]
    else:
        values = list(override.sweep_iterator(Transformer.identity)) if override.is_discrete_sweep() else []

    def text(value: Any) -> str:
        if isinstance(value, list):
            return f"[{','.join(map(text, value))}]"
        return "null" if value is None else str(getattr(value, "text", value))

    return [text(value) for value in values]


def names_in(choice: str) -> list[str]:
    """Return the options that a choice names.

    >>> names_in("[tensorboard,mlflow]"), names_in("none")
    (['tensorboard', 'mlflow'], ['none'])
    """
    return choice[1:-1].split(",") if choice.startswith("[") else [choice]


def values_of(override: "Override") -> list[Any]:
    """Return the values that a sweep over a key has, as each job's config will hold them; none of an interval."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Transformer

    parser, key = OverridesParser.create(), override.key_or_group
    texts = override.sweep_iterator(Transformer.encode) if override.is_discrete_sweep() else ()
    return [parser.parse_override(f"{key}={text}").value() for text in texts]


def check(sources: Sources, settings: list[str], *, multirun: bool = False, values_needed: bool = True) -> Check:
    """Compare settings with the config that they compose, group choices first.

    In a multirun each value of a swept list is checked; what a search draws is left to its job. ``values_needed=False``
    lets missing values pass.
    """
    loader, checked = sources.loader(), Check()
    overrides = parse(settings, loader, checked, multirun=multirun)
    if wrong := absent_plugins(overrides, loader) or (unknown_to_hydra(overrides, sources) if multirun else {}):
        checked.problems |= wrong
        overrides = [override for override in overrides if not override.key_or_group.startswith("hydra")]
    elif multirun:
        checked.problems |= given_twice(overrides)
    choices = [override for override in overrides if override.key_or_group in sources.groups]
    others = [override for override in overrides if override.key_or_group not in sources.groups]
    checked.swept = {each.key_or_group: values_of(each) for each in others if each.is_sweep_override()}
    options = check_groups(choices, loader, checked)
    # Configs in which every option of a group appears once, beside the first of the other groups
    first = {group: names[0] for group, names in options.items()}
    variants = [first, *({**first, group: name} for group, names in options.items() for name in names[1:])]
    for variant in variants:
        check_composed(sources, loader, [f"{group}={name}" for group, name in variant.items()], others, checked)
    checked.problems |= known_to_some(sources, variants, others, checked.unknown)
    for key, line in lists_for_sweeps(others).items() if multirun else ():
        if key in checked.problems:
            checked.problems[key] += f" A sweep over these values is written {line}."
    if multirun and not checked.problems:
        checked.problems |= wrong_sweep(overrides, sources)
    if not values_needed:
        checked.problems = {key: text for key, text in checked.problems.items() if f"{key}: missing" not in text}
    return checked


def lists_for_sweeps(overrides: "list[Override]") -> dict[str, str]:
    """Return the sweeps that are meant where a key of single values is given a list of them, by key."""
    meant = {}
    for override in overrides:
        key, spec = override.key_or_group, key_of(override.key_or_group)
        value = None if override.is_sweep_override() or override.is_delete() else override.value()
        if spec and isinstance(value, list) and value and all(fits(spec, item) for item in value):
            meant[key] = f"{key}={override.get_value_element_as_str()[1:-1]}"
    return meant


def absent_plugins(overrides: "list[Override]", loader: "ConfigLoaderImpl") -> dict[str, str]:
    """Return what is wrong with options of Hydra's own groups that are not there: launchers and sweepers, by group."""
    problems = {}
    for override in overrides:
        group = override.key_or_group
        if not group.startswith("hydra/") or override.is_delete():
            continue
        allowed = sorted(loader.get_group_options(group))
        chosen = {name for choice in choices_of(override) for name in names_in(choice)}
        for name in chosen - {*allowed}:
            package = PLUGINS.get(group, {}).get(name)
            cure = f"it is not installed: pip install {package}." if package else "no such option."
            problems[group] = f"{group}={name}: {cure} Here are: {', '.join(allowed)}."
        for name in chosen:
            module, extra = EXTRAS.get(f"{group}={name}", ("", ""))
            if module and find_spec(module) is None:
                problems[group] = f'{group}={name}: {module} is not installed: pip install "medseg[{extra}]".'
    return problems


def given_twice(overrides: "list[Override]") -> dict[str, str]:
    """Return what is wrong with swept keys that are given again, by key."""
    problems, given = {}, defaultdict(list)
    for override in overrides:
        given[override.key_or_group].append(override)
    for key, several in given.items():
        if len(several) > 1 and any(override.is_sweep_override() for override in several):
            lines = ", ".join(str(override.input_line) for override in several)
            problems[key] = (
                f"{key}: given {len(several)} times ({lines}), of which a sweep takes the last. Give it once."
            )
    return problems


def unknown_to_hydra(overrides: "list[Override]", sources: Sources) -> dict[str, str]:
    """Return what is wrong with settings that the chosen launcher or sweeper does not have, by key."""
    keys = [each.key_or_group for each in overrides if not each.is_add()]
    if not (keys := [key for key in keys if key.startswith(("hydra.launcher.", "hydra.sweeper."))]):
        return {}
    of_hydra = sources.of_multirun([str(each.input_line) for each in overrides if "/" in each.key_or_group])
    problems = {}
    for key in keys:
        part, name = key.split(".")[1:3]
        allowed = [each for each in of_hydra[part] if each != "_target_"]
        if name not in of_hydra[part]:
            hint = nearest(name, allowed)
            problems[key] = f"{key}: no setting of this {part}.{hint} It has: {', '.join(allowed)}."
    return problems


def wrong_sweep(overrides: "list[Override]", sources: Sources) -> dict[str, str]:
    """Return what the sweeper of a multirun cannot do, by key: settings that are right by themselves."""
    swept = [each for each in overrides if each.is_sweep_override()]
    intervals = [each for each in swept if not each.is_discrete_sweep()]
    if not intervals and all(each.key_or_group != "hydra/sweeper" for each in overrides):
        return {}
    of_hydra = sources.of_multirun([str(override.input_line) for override in overrides])
    sweeper, launcher = (str(of_hydra[name].get("_target_")) for name in ("sweeper", "launcher"))
    if sweeper.endswith(".BasicSweeper"):
        return {
            each.key_or_group: f"{each.input_line}: the basic sweeper takes no intervals. List the values, as in "
            f"{each.key_or_group}=1e-4,1e-3, or choose a sweeper that searches: {SEARCH}."
            for each in intervals
        }
    if sweeper != SEARCHER:
        return {}
    problem = ""
    if sources.config_name != "train":
        problem = "it searches by the validation Dice of medseg train alone."
    elif not launcher.startswith("hydra_plugins.medseg."):
        problem = "it runs jobs by medseg's own launchers alone, as hydra/launcher=local."
    elif others := [each.key_or_group for each in swept if lies_below(each.key_or_group, OF_CASES)]:
        problem = (
            f"scores on other cases do not compare. Give {', '.join(others)} one value; repeats: search.repeats=2."
        )
    elif not (swept or of_hydra["sweeper"]["params"]):
        problem = (
            "there is nothing to search. Give values, as in model.depth=2,3,4 or "
            "'optimizer.lr=tag(log,interval(1e-4,1e-2))', or a recipe: search=usual."
        )
    return {"hydra/sweeper": f"{SEARCH}: {problem}"} if problem else {}


def known_to_some(
    sources: Sources, variants: list[dict[str, str]], others: "list[Override]", unknown: set[str]
) -> dict[str, str]:
    """Return what is wrong with keys that some options of a group have and others in the sweep do not, by key."""
    problems = {}
    for override in others:
        key = override.key_or_group
        lacks: list[dict[str, str]] = []
        has: list[dict[str, str]] = []
        for variant in variants:
            skeleton = sources.skeleton(*(f"{group}={name}" for group, name in variant.items()))
            (lacks if misplaced(override, skeleton, unknown) else has).append(variant)
        if lacks and has:
            # Variants differ from the first in one group each
            other = next(variant for variant in (has if variants[0] in lacks else lacks))
            [group] = [name for name in other if other[name] != variants[0][name]]
            without, with_it = ([*dict.fromkeys(f"{group}={each[group]}" for each in part)] for part in (lacks, has))
            without = [choice for choice in without if choice not in with_it]
            with_it = [choice for choice in with_it if choice not in without]
            problems[key] = (
                f"{key}: unknown key of {', '.join(without)}; only {', '.join(with_it)} has it. Sweep over what "
                "has it and what has not in two command lines."
            )
    return problems


def check_groups(choices: "list[Override]", loader: "ConfigLoaderImpl", checked: Check) -> dict[str, list[str]]:
    """Return the choices of each group whose options exist; options that do not are problems."""
    options = {}
    for override in choices:
        group, allowed = override.key_or_group, sorted(loader.get_group_options(override.key_or_group))
        if override.is_delete():
            checked.problems[group] = (
                f"{override.input_line}: a group cannot be removed; choose another of its options."
            )
            continue
        chosen = choices_of(override)
        offered = [name for name in allowed if name != schema.SAVED]
        for option in (name for choice in chosen for name in names_in(choice)):
            if option not in allowed:
                hint = f"{nearest(option, offered)} Options: {', '.join(offered)}."
                checked.problems[f"{group}={option}"] = f"{group}={option}: no such option.{hint}"
        known = [choice for choice in chosen if set(names_in(choice)) <= {*allowed}]
        mixed = [choice for choice in known if sum(brings_object(group, name, loader) for name in names_in(choice)) > 1]
        for choice in mixed:
            several = choice[1:-1]
            checked.problems[f"{group}={choice}"] = (
                f"{group}={choice}: of {group} one option is taken. A sweep over these is written -m {group}={several}."
            )
        if left := [choice for choice in known if choice not in mixed]:
            options[group] = left
        else:
            checked.unknown.add(group)
    return options


def brings_object(group: str, option: str, loader: "ConfigLoaderImpl") -> bool:
    """Return whether an option is an object, or a data set, in the place of its group, which has room for one."""
    file: Any = loader.repository.load_config(f"{group}/{option}")
    own = {None: file.config, "_global_": file.config.get(group)}.get(file.header["package"])
    return not {"_target_", "layout"}.isdisjoint(own or ())


def check_composed(
    sources: Sources, loader: "ConfigLoaderImpl", choice: list[str], others: "list[Override]", checked: Check
) -> None:
    """Check which keys settings name against the config of one choice of groups, then the values that they compose."""
    skeleton = sources.skeleton(*choice)
    good = [*choice]
    for override in others:
        if problem := misplaced(override, skeleton, checked.unknown):
            checked.problems[override.key_or_group] = problem
        elif not override.is_sweep_override() and not lies_below(override.key_or_group, checked.unknown):
            good.append(override.input_line or "")
    try:
        composed = compose(sources, loader, good) if good != choice else deepcopy(skeleton)
    except MedsegError as error:
        checked.problems.setdefault("composition", str(error))
        return
    checked.composed.append(composed)
    checked.settings.append(good)
    wrong = problems(composed)
    ignored = checked.unknown | checked.swept.keys()
    checked.problems |= {key: text for key, text in wrong.items() if not lies_below(key, ignored)}
    for key, values in checked.swept.items():
        *parents, name = key.split(".")
        changed = deepcopy(composed)
        _, node, _ = look_up(changed, parents)
        if key in checked.problems or lies_below(key, checked.unknown) or not isinstance(node, dict):
            continue
        for value in values:
            node[name] = value
            # What this value makes wrong, of which the key is the same for all
            checked.problems |= {text: text for path, text in problems(changed).items() if wrong.get(path) != text}


def misplaced(override: "Override", skeleton: dict[str, Any], unknown: set[str]) -> str | None:
    """Return what is wrong with the key that an override names, or None."""
    key = override.key_or_group
    if key.startswith("hydra") or lies_below(key, unknown):
        return None
    is_there, value, owner = look_up(skeleton, key.split("."))
    # Other packages' objects take arguments that the config does not list, and so do ours that hand them on.
    is_open = owner is not None and (not owner.startswith("medseg.") or owner.startswith(OPEN))
    if override.is_delete():
        return None if is_there and is_open else f"~{key}: cannot be removed."
    if is_there and override.is_add() and not override.is_force_add():
        return f"+{key}: is there already; write it without the plus."
    if not is_there:
        if override.is_force_add() and merging(f"{key}=") != f"{key}=":  # a name of the user's in a mapping
            return None
        if is_open and (override.is_add() or override.is_force_add()):
            return None
        help_line = f" medseg {skeleton.get('command', 'train')} --help lists all."
        hint = nearest_key(key, (path for path, _ in dotted(skeleton)))
        if is_open:
            hint += f" An argument of {owner} that the config does not list needs a plus: +{key}=..."
        return f"{key}: unknown key.{hint or help_line}"
    if not isinstance(value, dict) or (key in KEYS and KEYS[key].kind == schema.MAPPING):
        return None
    if not override.is_sweep_override() and (override.value() is None or isinstance(override.value(), dict)):
        return None
    names = ", ".join(f"{key}.{name}" for name in value if name != "_target_") or "no keys"
    return f"{override.input_line}: {key} is no single value but holds {names}."


def explicit_keys(sources: Sources, command: str, settings: list[str]) -> list[str]:
    """Return the dotted keys whose values the user chose, be they the defaults or not.

    These are the keys of the settings and, in the nodes of ``REPLACED``, the keys with a value in the files that they
    choose for a group, or that a primary config of the user's own brings.
    """
    from omegaconf import OmegaConf

    loader = sources.loader()
    overrides = parse(settings, loader, Check(), multirun=False)
    choices = [override for override in overrides if override.key_or_group in sources.groups]
    keys = [override.key_or_group for override in overrides if override not in choices]
    chosen = ((each.key_or_group, name) for each in choices for choice in choices_of(each) for name in names_in(choice))
    files = {f"{group}/{name}" for group, name in chosen}
    is_shipped = sources.config_name != RESUMED and (sources.config_path / f"{command}.yaml").is_file()
    usual = command if is_shipped else sources.config_name
    # All that decides which files compose the config: groups, those below others, packages, and Hydra's search path
    deciding = [each for each in overrides if each in choices or re.search(r"[/@]|^hydra", each.key_or_group)]
    if deciding or usual != sources.config_name:
        packages = sources.packages(sources.config_name, *(each.input_line or "" for each in deciding))
        files |= packages.keys() - sources.packages(usual).keys()
        loaded: dict[str, Any] = {path: loader.repository.load_config(path) for path in files & packages.keys()}
        for path in list(loaded):  # an experiment may choose options of groups
            overridden = [item for item in loaded[path].defaults_list if item.is_override()]
            names = {f"{item.group.lstrip('/')}/{item.value}" for item in overridden} & packages.keys()
            loaded |= {other: loader.repository.load_config(other) for other in names - loaded.keys()}
        for path in sorted(loaded):
            node: Any = OmegaConf.to_container(loaded[path].config, resolve=False)
            for key, value in dotted(node, f"{packages[path]}." if packages[path] else ""):
                is_value = value is not None and not isinstance(value, dict) and not is_interpolation(value)
                keys += [key] if is_value and lies_below(key, REPLACED) else []
    return [key for key in dict.fromkeys(keys) if key not in ("resume", "run_dir")]  # of these every run has its own


def is_synthetic(config: dict[str, Any]) -> bool:
    """Return whether a config is of the data set that its layout makes where it is not there."""
    return bool(look_up(config, ("dataset", "layout", "_target_"))[1] == SYNTHETIC)


def absent_paths(checked: Check) -> list[str]:
    """Name the paths to read from that are not there, before anything heavy is imported to find it out."""
    problems: dict[str, None] = {}
    for config, key in product(checked.composed, SOURCES):
        values = checked.swept.get(key, [look_up(config, key.split("."))[1]])
        is_made = key == "dataset.root" and is_synthetic(config)
        for text in flat(values) if not is_made else ():
            if not isinstance(text, str) or is_interpolation(text):
                continue
            path = Path(resolve({"path": text})["path"])
            if not path.exists():
                is_home = str(path).startswith("~")
                tilde = " The shell left the ~ as it is: write the folder in full." if is_home else ""
                problems[f"{key}={path}: no such file or folder.{nearest_path(path)}{tilde}"] = None
    return list(problems)
