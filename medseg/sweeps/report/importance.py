"""How much of the differences between jobs' scores the values of each swept key explain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

GROUPS = 4
"""Into how many groups of equal size numbers are put of which almost every job has its own."""
SHUFFLES = 2000


@dataclass(frozen=True)
class Importance:
    """Of a key: into how many groups its values part the jobs, the share of the variance, and how likely by chance.

    ``share`` and ``p`` are None where each job has a value of its own, so that nothing can be said.
    """

    key: str
    n_groups: int
    share: float | None
    p: float | None


def importances(columns: Mapping[str, Sequence[str]], scores: Sequence[float]) -> list[Importance]:
    """Return the importance of each key, the largest share first.

    A share is the ε² of Kelley (1935, "An unbiased correlation ratio measure"): the variance between the groups of one
    value over the whole, less what as many groups would explain by chance; 0 where that is more. ``p`` is the part of
    shuffled orders of the scores in which the groups explain as much. Each key is looked at by itself: what keys do
    together is in none, and where jobs are no full grid, a share may be that of another key.

    Args:
        columns: the values of the jobs, as texts, by key.
        scores: of the jobs.
    """
    values, n = np.array(scores), len(scores)
    rng = np.random.default_rng(0)
    orders = np.stack([values, *(rng.permutation(values) for _ in range(SHUFFLES))])
    deviations = orders - values.mean()
    total = float(np.sum(deviations[0] ** 2))
    found = []
    for key, texts in columns.items():
        groups = groups_of(texts)
        k = int(groups.max()) + 1
        if k < 2 or n <= k or total == 0:
            found.append(Importance(key, k, None, None))
            continue
        members = np.eye(k)[groups]
        between = np.sum((deviations @ members) ** 2 / members.sum(0), axis=1)
        share = (between[0] - (k - 1) * (total - between[0]) / (n - k)) / total
        as_much = int(np.sum(between >= between[0] * (1 - 1e-9)))  # the order as it is among them
        found.append(Importance(key, k, max(0.0, float(share)), as_much / (SHUFFLES + 1)))
    return sorted(found, key=lambda one: -1.0 if one.share is None else -one.share)


def groups_of(texts: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the number of the group that each job is in: of one value, or of a range where numbers are many."""
    distinct = sorted(set(texts))
    if 2 * len(distinct) > len(texts):
        try:
            numbers = np.array([float(text) for text in texts])
        except ValueError:
            pass
        else:
            bounds = np.quantile(numbers, np.arange(1, GROUPS) / GROUPS)
            return np.unique(np.searchsorted(bounds, numbers, side="left"), return_inverse=True)[1]
    return np.array([distinct.index(text) for text in texts])
