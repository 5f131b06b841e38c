"""What the validation scores of a run are called: in the columns of ``metrics.csv``, and in the tags of its logs.

Who writes or reads a score takes its name from here, and its class from the mapping. No name is taken apart again: a
class may be called ``smoothed``, or hold any letter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreName:
    """The name of a score as a column and as a tag."""

    column: str
    tag: str


class ScoreNames:
    """The names of a validation's scores: of their mean, of the smoothed mean, and of each class.

    Where a class would get a name that is taken, the first free number from 2 on stands behind it.

    >>> ScoreNames("dice", ["liver", "smoothed"]).classes["smoothed"].column
    'val_dice_smoothed_2'

    Args:
        key: the score.
        classes: names of the classes or regions that are scored one by one, in their order.
    """

    def __init__(self, key: str, classes: Sequence[str] = ()) -> None:
        self.mean = ScoreName(f"val_{key}", f"val/{key}")
        self.smoothed = ScoreName(f"val_{key}_smoothed", f"val/{key}_smoothed")
        self.classes: dict[str, ScoreName] = {}
        taken = {"smoothed"}
        for name in classes:
            ending, number = name, 1
            while ending in taken:
                number += 1
                ending = f"{name}_{number}"
            taken.add(ending)
            self.classes[name] = ScoreName(f"val_{key}_{ending}", f"val/{key}_{ending}")

    def __iter__(self) -> Iterator[ScoreName]:
        """Yield every name."""
        yield from (self.mean, self.smoothed, *self.classes.values())
