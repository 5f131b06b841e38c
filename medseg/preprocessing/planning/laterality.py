"""Left and right: mirroring a patient makes a left kidney look like a right one, so it must not keep its name."""

import re
from collections.abc import Iterable, Sequence

from medseg.errors import MedsegError

ANYWHERE = (("left", "right"), ("左", "右"))
AS_WORDS = (*ANYWHERE, ("l", "r"), ("lh", "rh"), ("lt", "rt"), ("sin", "dex"))


def is_sided(names: Iterable[str]) -> bool:
    """Tell whether class names part left from right: by a word of its own, or within a pair of names.

    >>> is_sided(["kidney_left"]), is_sided(["LeftLung", "RightLung"]), is_sided(["bright spot"])
    (True, True, False)
    """
    lower = {name.lower() for name in names}
    words = {word for name in lower for word in re.split(r"[\W_\d]+", name)}
    if words & {side for pair in AS_WORDS for side in pair}:
        return True
    return any(left in name and name.replace(left, right) in lower for name in lower for left, right in ANYWHERE)


def check_mirrored(where: str, axes: Sequence[int] | None, left_right: int, names: Iterable[str]) -> None:
    """Refuse axes to mirror, given at config key ``where``, that would make left classes right ones."""
    if axes and left_right in axes and is_sided(names := list(names)):
        raise MedsegError(
            f"{where}={list(axes)}: axis {left_right} runs from left to right, and the classes {', '.join(names)} tell"
            " the sides apart: mirrored, each would carry the other's name. Leave this axis out."
        )
