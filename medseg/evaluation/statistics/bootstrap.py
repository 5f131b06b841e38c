"""Statistics of a metric over cases, with an interval over patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from medseg.evaluation.statistics.means import Values, means_of_defined

MIN_GROUPS = 8
"""Below this many groups a bootstrap interval says nothing that the values do not."""
RESAMPLES, BATCH = 2000, 100
"""Samples that are drawn, in batches that bound the memory."""


def statistics(values: Values, groups: NDArray[Any], missed: int = 0) -> dict[str, Any]:
    """Describe the values (N,) that are not NaN.

    Returns mean, standard deviation (n - 1), median, lower and upper quartile, 95 % interval of the mean, number of
    values, number of undefined ones, and ``n_missed``: how many of these are distances that were missed.
    """
    defined = ~np.isnan(values)
    known, n = values[defined], int(defined.sum())
    low, median, high = np.percentile(known, (25, 50, 75)).tolist() if n else (None, None, None)
    return {
        "mean": float(known.mean()) if n else None,
        "std": float(known.std(ddof=1)) if n > 1 else None,
        "median": median,
        "q1": low,
        "q3": high,
        "ci95": confidence_interval(known, groups[defined]),
        "n": n,
        "n_undefined": len(values) - n,
        "n_missed": missed,
    }


def confidence_interval(values: Values, groups: NDArray[Any], *, seed: int = 0) -> list[float] | None:
    """Return the 95 % bootstrap interval [low, high] of the mean of ``values`` (N,); None below ``MIN_GROUPS`` groups.

    Whole groups are drawn, since the cases of one patient are not independent.
    """
    return interval_of_class_means([(values, groups)], seed=seed)


def interval_of_class_means(classes: Sequence[tuple[Values, NDArray[Any]]], *, seed: int = 0) -> list[float] | None:
    """Return the 95 % bootstrap interval of the mean over classes of their means, as ``confidence_interval`` does.

    Each class has values (N,), of which NaN are left out, and the group of each. A group is drawn with all its classes.
    Bias-corrected and accelerated (BCa): Efron, "Better bootstrap confidence intervals", JASA 82 (1987), equations 2.3
    and 6.6; the draws and the numbers are those of ``scipy.stats.bootstrap`` with ``batch=BATCH``. That evaluates the
    statistic without each group in turn, which for means follows from their sums: without it 10 000 groups take
    seconds and GB.
    """
    names = np.unique(np.concatenate([groups[~np.isnan(values)] for values, groups in classes] or [np.zeros(0)]))
    if len(names) < MIN_GROUPS:
        return None
    sums, sizes = (np.zeros((len(names), len(classes))) for _ in range(2))
    for index, (values, groups) in enumerate(classes):
        defined = ~np.isnan(values)
        member = np.searchsorted(names, groups[defined])
        sums[:, index] = np.bincount(member, values[defined], len(names))
        sizes[:, index] = np.bincount(member, minlength=len(names))

    def mean_of(sums: Values, sizes: Values) -> Values:  # each (samples, classes)
        means = np.divide(sums, sizes, out=np.full_like(sums, np.nan), where=sizes > 0)
        return means_of_defined(means, axis=1)

    [mean] = mean_of(sums.sum(0, keepdims=True), sizes.sum(0, keepdims=True))
    left_out = mean_of(sums.sum(0) - sums, sizes.sum(0) - sizes)  # without each group
    if np.allclose(left_out, mean, rtol=1e-9 / len(names), atol=1e-8 / len(names)):  # nothing varies: 0 / 0 below
        return [float(mean)] * 2
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(RESAMPLES // BATCH):
        members = rng.integers(0, len(names), (BATCH, len(names)))
        members += len(names) * np.arange(BATCH)[:, None]
        times = np.bincount(members.ravel(), minlength=members.size).reshape(members.shape).astype(float)
        drawn.append(mean_of(times @ sums, times @ sizes))
    means = np.concatenate(drawn)

    bias = ndtri(((means < mean).mean() + (means <= mean).mean()) / 2)
    change = left_out.mean() - left_out
    acceleration = (change**3).sum() / (6 * (change**2).sum() ** 1.5)
    ends = bias + ndtri([0.025, 0.975])
    return [float(end) for end in np.quantile(means, ndtr(bias + ends / (1 - acceleration * ends)))]
