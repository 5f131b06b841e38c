"""Building the objects that a config describes by ``_target_``, from an exact list of names where it must be safe.

Hydra's own ``instantiate`` blocks known dangers; this allows known names, compared exactly, since an alias such as
``torch.nn.modules.module.torch.load`` defeats any comparison by prefix.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from medseg.errors import MedsegError, nearest

HERE = Path(__file__).parent
CONF = next(path for path in (HERE / "conf", HERE.parent / "conf") if path.is_dir())
"""The config groups: inside the package in a wheel, beside it in a checkout."""

REFUSALS: dict[bool, tuple[type[Exception], ...]] = {
    True: (TypeError, ValueError),
    False: (TypeError, ValueError, AssertionError, LookupError, RuntimeError, ImportError),
}
"""How classes refuse arguments, by whether they are medseg's own: there, any other exception is a bug and stays one."""


def targets(node: Any) -> Iterator[str]:
    """Yield every ``_target_`` named anywhere inside a config."""
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        node = node.values()
    if not isinstance(node, str) and isinstance(node, Iterable):
        for child in node:
            yield from targets(child)


@functools.cache
def named_targets(folder: Path = CONF) -> frozenset[str]:
    """Return every ``_target_`` that the YAML files of a folder name; by default medseg's own ``conf/``."""
    files = folder.rglob("*.yaml")
    return frozenset(name for file in files for name in targets(yaml.safe_load(file.read_text("utf-8"))))


def build(spec: dict[str, Any], *args: Any, trusted: Collection[str] | None = None, **kwargs: Any) -> Any:
    """Build the object that ``spec`` describes, and those nested in its arguments first.

    Args:
        spec: a mapping with ``_target_``, the dotted name of a class or function, and its arguments.
        args: positional arguments of the outermost object.
        trusted: the names that may be built, compared exactly; None, for a config of the user's own, allows all.
        kwargs: further arguments, which replace those of ``spec``.

    Raises:
        MedsegError: a name that is not trusted or not found, or arguments that do not fit.
    """
    if trusted is not None:
        refuse_strangers(spec, trusted)
    name = spec["_target_"]
    arguments = {key: build_nested(value) for key, value in spec.items() if key != "_target_"} | kwargs
    factory = locate(name)
    check_arguments(name, factory, args, arguments)
    try:
        return factory(*args, **arguments)
    except REFUSALS[name.startswith("medseg.")] as error:
        raise MedsegError(f"{name} cannot be built from {arguments}: {error}") from error


def build_nested(value: Any) -> Any:
    """Build the objects inside an argument."""
    if isinstance(value, dict):
        return build(value) if "_target_" in value else {key: build_nested(child) for key, child in value.items()}
    return [build_nested(child) for child in value] if isinstance(value, list | tuple) else value


def refuse_strangers(spec: dict[str, Any], trusted: Collection[str]) -> None:
    """Raise unless every target is trusted by exactly this name."""
    strangers = sorted({str(name) for name in targets(spec)} - set(trusted))
    if strangers:
        raise MedsegError(
            f"The checkpoint names code that medseg does not ship: {', '.join(strangers)}. Building it runs that code. "
            f"If you trust it, say so: trust=[{','.join(strangers)}], or name its folder: --config-dir FOLDER"
        )


def locate(name: str) -> Callable[..., Any]:
    """Import the class or function of a dotted name.

    Raises:
        MedsegError: there is no such module, or no such name in it.
    """
    parts = str(name).split(".")
    module, depth = longest_module(parts)
    if module is None:
        raise MedsegError(f"_target_={name}: no module {parts[0]!r}. Install it, or name its folder by --config-dir.")
    found = module
    for part in parts[depth:]:
        if not hasattr(found, part):
            owner = getattr(found, "__name__", found)
            raise MedsegError(f"_target_={name}: {owner} has no {part!r}.{nearest(part, dir(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise MedsegError(f"_target_={name}: this is no class or function, but {type(found).__name__}.")
    return found


def longest_module(parts: list[str]) -> tuple[Any, int]:
    """Import the longest beginning of a dotted name that is a module; return it and how many parts it takes."""
    module, depth = None, 0
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            # A module that is there but lacks one of its own imports must say so.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise MedsegError(f"_target_={'.'.join(parts)}: importing {name} failed: {error}.") from error
            return module, depth - 1
    return module, depth


def check_arguments(name: str, factory: Callable[..., Any], args: Iterable[Any], kwargs: dict[str, Any]) -> None:
    """Raise when a call's arguments do not fit the signature; classes written in C have none to compare with."""
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        accepted = [key for key, value in signature.parameters.items() if value.kind != value.VAR_KEYWORD]
        unknown = next((key for key in kwargs if key not in accepted), None)
        hint = nearest(unknown, accepted) if unknown else ""
        raise MedsegError(f"{name}: {error}.{hint} It accepts: {', '.join(accepted) or 'nothing'}.") from error
