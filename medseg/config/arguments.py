"""What the arguments of the config's objects may be: a wrong one is named with its value and with what is allowed."""

import math

from medseg.errors import MedsegError


def check_argument(group: str, owner: object, name: str, value: object, fits: bool, allowed: str) -> None:
    """Check an argument of an object of a group of the config, such as a loss.

    Raises:
        MedsegError: it does not fit.
    """
    if not fits:
        kind = type(owner).__name__
        raise MedsegError(
            f"{group}: {name} of {kind} is {value}; allowed: {allowed}. Change it in the {group} group of the config."
        )


def check_probabilities(group: str, owner: object, *names: str) -> None:
    """Raise MedsegError unless the attributes ``names`` are probabilities."""
    for name in names:
        probability = getattr(owner, name)
        check_argument(group, owner, name, probability, 0 <= probability <= 1, "from 0 to 1")


def check_range(group: str, owner: object, name: str) -> None:
    """Raise MedsegError unless the attribute ``name`` is [low, high], both above 0."""
    bounds = list(getattr(owner, name))
    fits = len(bounds) == 2 and 0 < bounds[0] <= bounds[1] < math.inf
    check_argument(group, owner, name, bounds, fits, "[low, high] with 0 < low <= high")
