"""Building the objects that a config describes by ``_target_``: for each key only those that it may have.

A config may come from an untrusted file, and building an object runs its code. So ``build`` takes the key of the
config that holds the object, and builds only names that ``conf/`` has for the group of this key, or that the user
trusts. Names are compared exactly, since an alias such as ``torch.nn.modules.module.torch.load`` defeats any
comparison by prefix, on which Hydra's own ``instantiate`` relies.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from medseg.config.schema import CONF
from medseg.config.settings import OBJECTS, WITH_OBJECTS
from medseg.errors import MedsegError, listing, nearest

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast where PyYAML comes with libyaml."""

REFUSALS: dict[bool, tuple[type[Exception], ...]] = {
    True: (TypeError, ValueError),
    False: (TypeError, ValueError, AssertionError, LookupError, RuntimeError, ImportError),
}
"""How classes refuse arguments, by whether they are medseg's own: there, any other exception is a bug and stays one."""


MOVED = {
    "lightning.pytorch.loggers.TensorBoardLogger": "medseg.training.trackers.TensorBoard",
    "medseg.io.brats.brats": "medseg.io.layouts.brats",
    "medseg.training.schedules.Constant": "medseg.training.optim.schedules.Constant",
    "medseg.training.schedules.Cosine": "medseg.training.optim.schedules.Cosine",
    "medseg.training.schedules.Polynomial": "medseg.training.optim.schedules.Polynomial",
}
"""Earlier names of what ``conf/`` names. Older checkpoints, runs and configs of users have them."""


def with_current_names(node: Any) -> Any:
    """Return a config in which every ``_target_`` has its present name: trust is checked by these alone.

    Where ``logger`` is a single object, as in older runs and in files of users, it gets a name beside others.
    """
    if isinstance(node, list):
        return [with_current_names(child) for child in node]
    if not isinstance(node, dict):
        return node
    renamed = {key: with_current_names(child) for key, child in node.items()}
    if isinstance(name := node.get("_target_"), str):
        renamed["_target_"] = MOVED.get(name, name)
    if isinstance(logger := renamed.get("logger"), dict) and isinstance(name := logger.get("_target_"), str):
        renamed["logger"] = {name.rpartition(".")[2].lower().removesuffix("logger"): logger}
    return renamed


def targets(node: Any) -> Iterator[str]:
    """Yield every ``_target_`` named anywhere inside a config."""
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        node = node.values()
    if not isinstance(node, str) and isinstance(node, Iterable):
        for child in node:
            yield from targets(child)


def named_targets(folder: Path = CONF) -> frozenset[str]:
    """Return every ``_target_`` that the YAML files of a folder name; by default medseg's own ``conf/``."""
    return _named_targets(folder.resolve())  # a relative path means another folder in another directory


@functools.cache
def _named_targets(folder: Path) -> frozenset[str]:
    texts = (file.read_text("utf-8") for file in folder.rglob("*.yaml"))
    names = (str(name) for text in texts for name in targets(yaml.load(text, LOADER)))
    return frozenset(MOVED.get(name, name) for name in names)


@functools.cache
def shipped(key: str) -> frozenset[str]:
    """Return the targets that ``conf/`` has for the group of a key: networks for ``model``, none for other keys."""
    group = key.split(".")[0]
    return named_targets(CONF / group) if key in OBJECTS else frozenset()


def own_targets(config: Any) -> list[str]:
    """Return the targets that a config names and medseg does not ship: the user trusts what the user composes."""
    return sorted({str(name) for name in targets(config)} - named_targets())


def build(spec: dict[str, Any], key: str, trust: Collection[str], /, *args: Any, **kwargs: Any) -> Any:
    """Build the object that ``spec`` describes, and those nested in its arguments first.

    Args:
        spec: a mapping with ``_target_``, the dotted name of a class or function, and its arguments.
        key: the key of the config that holds it, one of ``medseg.config.schema.OBJECTS``.
        trust: names that the user trusts, beside those that ``conf/`` has for this key.
        args: positional arguments of the outermost object.
        kwargs: further arguments, which replace those of ``spec`` and are passed as they are.

    Raises:
        MedsegError: a name that this key may not have or that does not exist, or arguments that do not fit.
    """
    check_targets(spec, key, trust)

    def built(value: Any) -> Any:
        if isinstance(value, dict):
            arguments = {name: built(child) for name, child in value.items() if name != "_target_"}
            return construct(value["_target_"], **arguments) if "_target_" in value else arguments
        return [built(child) for child in value] if isinstance(value, list | tuple) else value

    arguments = {name: built(value) for name, value in spec.items() if name != "_target_"}
    return construct(spec["_target_"], *args, **arguments | kwargs)


def construct(name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call the class or function of a dotted name, with a message for the user where its arguments do not fit.

    Raises:
        MedsegError: there is no such name, or the arguments do not fit.
    """
    factory = locate(name)
    try:
        signature = inspect.signature(factory)
    except ValueError:  # classes written in C have none
        signature = None
    try:
        if signature:
            signature.bind(*args, **kwargs)
    except TypeError as error:
        assert signature is not None
        accepted = [key for key, value in signature.parameters.items() if value.kind != value.VAR_KEYWORD]
        unknown = next((key for key in kwargs if key not in accepted), None)
        hint = nearest(unknown, accepted) if unknown else ""
        raise MedsegError(f"{name}: {error}.{hint} It accepts: {', '.join(accepted) or 'nothing'}.") from error
    try:
        return factory(*args, **kwargs)
    except REFUSALS[name.startswith("medseg.")] as error:
        raise MedsegError(f"{name} cannot be built from {kwargs}: {error}") from error


def unknown_targets(node: Any, key: str, trust: Collection[str], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the name of every target in the description of an object that may not be built there.

    A name of medseg's own counts where ``conf/`` has it and nowhere else, whoever trusts it: as the outermost object,
    in an object that takes others of its kind, and in one of the user's own.
    """
    own, allowed = {MOVED.get(name, name) for name in trust} - named_targets(), shipped(key)

    def walk(node: Any, path: str, takes: bool) -> Iterator[tuple[str, str]]:
        if isinstance(node, dict) and "_target_" in node:
            name = node["_target_"]
            if not (isinstance(name, str) and (name in own or (takes and name in allowed))):
                yield path, str(name)
            takes = name in WITH_OBJECTS or (isinstance(name, str) and name in own)
        items = node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list | tuple) else ())
        for name, child in items:
            yield from walk(child, f"{path}.{name}", takes)

    yield from walk(node, path or key, key in OBJECTS)


def check_targets(spec: Any, key: str, trust: Collection[str], source: str = "") -> None:
    """Raise unless every target in the description of an object may be built; ``source`` is the file it comes from."""
    raise_unknown_targets(unknown_targets(spec, key, trust), source)


def raise_unknown_targets(targets: Iterable[tuple[str, str]], source: str = "") -> None:
    """Raise where there is any target, by its path and name, that may not be built."""
    targets = list(targets)
    if not targets:
        return
    lines = listing(f"{path}: {name}" for path, name in targets)
    misplaced = sorted({name for _, name in targets} & named_targets())
    unknown = sorted({name for _, name in targets} - named_targets())
    text = f"{source or 'The config'} names code that medseg does not ship, or that does not belong there:\n{lines}\n"
    if misplaced:
        text += f"{', '.join(misplaced)} may stand only where conf/ has it: correct the config. "
    if unknown:
        text += (
            f"Building it runs that code. If you trust it, say so: trust=[{','.join(unknown)}], or name its folder:"
            " --config-dir FOLDER"
        )
    raise MedsegError(text.rstrip())


def locate(name: str) -> Callable[..., Any]:
    """Import the class or function of a dotted name.

    Raises:
        MedsegError: there is no such module, or no such name in it.
    """
    parts = str(name).split(".")
    module, depth = None, 0  # the longest beginning of the name that is a module
    for length in range(1, len(parts) + 1):
        path = ".".join(parts[:length])
        try:
            module, depth = import_module(path), length
        except ModuleNotFoundError as error:
            # A module that exists but lacks one of its own imports must say so
            if error.name is None or not f"{path}.".startswith(f"{error.name}."):
                raise MedsegError(f"_target_={name}: importing {path} failed: {error}.") from error
            break
    if module is None:
        raise MedsegError(f"_target_={name}: no module {parts[0]!r}. Install it, or name its folder by --config-dir.")
    factory: Any = module
    for part in parts[depth:]:
        if not hasattr(factory, part):
            owner = getattr(factory, "__name__", factory)
            raise MedsegError(f"_target_={name}: {owner} has no {part!r}.{nearest(part, dir(factory))}")
        factory = getattr(factory, part)
    if not callable(factory):
        raise MedsegError(f"_target_={name}: this is no class or function, but {type(factory).__name__}.")
    return factory
