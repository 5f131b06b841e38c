"""What the arguments of augmentations may be; a wrong one is named with what is allowed."""

import math

from medseg.errors import MedsegError


def check(transform: object, name: str, value: object, fits: bool, allowed: str, group: str = "augment") -> None:
    """Raise MedsegError, naming the value, what is allowed and the group of settings, unless it ``fits``."""
    if not fits:
        kind = type(transform).__name__
        raise MedsegError(f"{group}: {name} of {kind} is {value}; allowed: {allowed}. Change it in the {group} group.")


def check_probabilities(transform: object, *names: str, group: str = "augment") -> None:
    """Raise MedsegError unless the attributes ``names`` are probabilities."""
    for name in names:
        probability = getattr(transform, name)
        check(transform, name, probability, 0 <= probability <= 1, "from 0 to 1", group)


def check_range(transform: object, name: str) -> None:
    """Raise MedsegError unless the attribute ``name`` is [low, high], both above 0."""
    bounds = list(getattr(transform, name))
    fits = len(bounds) == 2 and 0 < bounds[0] <= bounds[1] < math.inf
    check(transform, name, bounds, fits, "[low, high] with 0 < low <= high")
