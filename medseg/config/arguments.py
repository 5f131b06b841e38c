"""Checking the arguments of the config's objects where they are built: a wrong one is named with what is allowed."""

from typing import Any

from medseg.config.check import fits, limits
from medseg.config.schema import arguments_of
from medseg.errors import MedsegError


def check_declared(group: str, owner: object, **values: object) -> None:
    """Check arguments of an object against their declarations in its signature (see ``medseg.config.schema.Setting``).

    Args:
        group: the group of the config that the object is of, such as "loss".
        owner: the object.
        values: the arguments to check; none: all that are declared, which are attributes then.

    Raises:
        MedsegError: one does not fit.
    """
    kind: Any = type(owner)
    for name, key in arguments_of(kind).items():
        if values and name not in values:
            continue
        value = values[name] if values else getattr(owner, name)
        value = [*map(plain, value)] if isinstance(value, tuple | list) else plain(value)
        check_argument(group, owner, name, value, (value is None and bool(key.null)) or fits(key, value), limits(key))


def plain(value: Any) -> Any:
    """Return a number of NumPy's or PyTorch's as one of Python's."""
    return value.item() if getattr(value, "shape", None) == () else value


def check_argument(group: str, owner: object, name: str, value: object, is_right: bool, allowed: str) -> None:
    """Check an argument in a way that its declaration cannot say.

    Raises:
        MedsegError: it is not right.
    """
    if not is_right:
        kind = type(owner).__name__
        raise MedsegError(
            f"{group}: {name} of {kind} is {value}; allowed: {allowed}. Change it in the {group} group of the config."
        )


def check_range(group: str, owner: object, name: str) -> None:
    """Raise MedsegError unless the attribute ``name`` is [low, high]."""
    bounds = list(getattr(owner, name))
    check_argument(group, owner, name, bounds, len(bounds) == 2 and bounds[0] <= bounds[1], "[low, high], low <= high")
