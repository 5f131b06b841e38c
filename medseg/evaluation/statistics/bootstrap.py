"""Statistics of a metric over cases, with an interval over patients."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.statistics.means import Values, means_of_defined

MIN_GROUPS = 8
"""Below this many groups a bootstrap interval says nothing that the values do not."""
RESAMPLES = 2000


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

    Whole groups are drawn, since the cases of one patient are not independent. Bias-corrected and accelerated (BCa):
    Efron, "Better bootstrap confidence intervals", JASA 82 (1987).
    """
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member)
    if len(sizes) < MIN_GROUPS:
        return None
    sums = np.bincount(member, weights=values)
    mean = float(values.mean())
    if np.allclose(sums / sizes, mean, rtol=1e-9):  # nothing varies: BCa would divide zero by zero
        return [mean, mean]

    def pooled_mean(sums: Values, sizes: NDArray[np.int64], axis: int = -1) -> Values:
        return sums.sum(axis=axis) / sizes.sum(axis=axis)

    return bca(pooled_mean, (sums, sizes), seed)


def interval_of_class_means(classes: Sequence[tuple[Values, NDArray[Any]]], *, seed: int = 0) -> list[float] | None:
    """Return the 95 % bootstrap interval of the mean over classes of their means, as ``confidence_interval`` does.

    Each class has values (N,), of which NaN are left out, and the group of each. A group is drawn with all its classes.
    """
    names = np.unique(np.concatenate([groups[~np.isnan(values)] for values, groups in classes] or [np.zeros(0)]))
    if len(names) < MIN_GROUPS:
        return None
    sums, sizes = (np.zeros((len(names), len(classes))) for _ in range(2))
    for index, (values, groups) in enumerate(classes):
        defined = ~np.isnan(values)
        member = np.searchsorted(names, groups[defined])
        np.add.at(sums[:, index], member, values[defined])
        np.add.at(sizes[:, index], member, 1)

    def mean_of(drawn: NDArray[np.int64], axis: int = -1) -> Values:
        times = np.stack([np.bincount(one, minlength=len(names)) for one in drawn.reshape(-1, drawn.shape[-1])])
        counts = times @ sizes
        means = np.divide(times @ sums, counts, out=np.full_like(counts, np.nan), where=counts > 0)
        return means_of_defined(means, axis=1).reshape(drawn.shape[:-1])

    every = np.arange(len(names))
    left_out = mean_of(np.stack([np.delete(every, index) for index in every]))
    if np.allclose(left_out, left_out[0], rtol=1e-9):
        return [float(left_out[0])] * 2
    return bca(mean_of, (every,), seed)


def bca(statistic: Callable[..., Any], samples: tuple[NDArray[Any], ...], seed: int) -> list[float]:
    """Return the BCa interval [low, high] of a statistic of paired samples, each (groups,); it takes an ``axis``."""
    from scipy.stats import bootstrap

    options: dict[str, Any] = {"n_resamples": RESAMPLES, "batch": 100, "rng": np.random.default_rng(seed)}
    interval = bootstrap(samples, statistic, paired=True, **options).confidence_interval
    return [float(interval.low), float(interval.high)]
