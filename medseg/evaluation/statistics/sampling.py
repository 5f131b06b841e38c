"""A few of many things, to be shown in place of all."""

import numpy as np


def evenly(n: int, most: int) -> list[int]:
    """Return at most ``most`` of the indices 0…n-1, evenly spread, the first and the last among them.

    >>> evenly(5, 3), evenly(2, 3)
    ([0, 2, 4], [0, 1])
    """
    return np.linspace(0, max(n - 1, 0), min(most, n)).round().astype(int).tolist()
