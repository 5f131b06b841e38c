"""Runs ranked by a metric, how stable the ranking is, and which runs it does not distinguish.

Stability: patients are drawn with replacement, and the runs ranked anew each time, as in Wiesenfarth et al., "Methods
and open-source toolkit for analyzing and visualizing challenge results", Scientific Reports 11 (2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.comparison.pairing import Paired
from medseg.evaluation.comparison.tests import DECIMALS, Comparison, patient_means
from medseg.evaluation.statistics.bootstrap import MIN_GROUPS, confidence_interval
from medseg.evaluation.statistics.means import Values

RESAMPLES = 1000


@dataclass(frozen=True)
class Stability:
    """A run's rank in bootstrap samples of the patients.

    ``first`` is the share of samples in which no run was better; ``shares`` (R,) those in which it had rank 1, 2, ….
    """

    mean_rank: float
    interval: tuple[float, float]
    first: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Ranked:
    """A run in the ranking: runs of the same mean share the better rank, runs without a shown difference a letter."""

    run: str
    rank: int
    mean: float
    interval: list[float] | None
    stability: Stability | None
    letters: str


@dataclass(frozen=True)
class Ranking:
    """Runs, the best first.

    ``tau`` is the mean of Kendall's tau-b between the ranking and those of the bootstrap samples, with the interval
    that holds 95 % of them; None where patients are too few or all runs the same. ``ties`` holds the names of
    runs without a shown difference.
    """

    metric: str
    n_patients: int
    runs: tuple[Ranked, ...]
    tau: float | None
    tau_interval: tuple[float, float] | None
    ties: tuple[tuple[str, ...], ...]


def rank(paired: Paired, comparisons: Sequence[Comparison], metric: str = "dice", *, seed: int = 0) -> Ranking:
    """Rank runs by their mean over patients of a metric of which more is better, in the mean over classes.

    Stability is stated from ``MIN_GROUPS`` patients on.
    """
    scores = patient_scores(paired, metric)  # (R, P)
    ranks = ranked(scores.mean(axis=1))
    samples = resampled(scores, seed) if scores.shape[1] >= MIN_GROUPS else None
    overall = None if len(paired.classes) > 1 else paired.classes[0]
    of_metric = [one for one in comparisons if one.metric == metric and one.name == overall]
    order = np.argsort(ranks, kind="stable").tolist()
    ties = not_told_apart([paired.runs[run] for run in order], of_metric)
    letters = [chr(ord("a") + number % 26) + "′" * (number // 26) for number in range(len(ties))]  # …, z, then a′, …
    runs = [
        Ranked(
            paired.runs[run],
            int(ranks[run]),
            float(scores[run].mean()),
            confidence_interval(scores[run], np.arange(scores.shape[1])),
            None if samples is None else stability(samples[:, run], len(paired.runs)),
            "".join(letters[number] for number, tie in enumerate(ties) if paired.runs[run] in tie),
        )
        for run in order
    ]
    tau = np.array([]) if samples is None else taus(ranks, samples)
    return Ranking(
        metric,
        scores.shape[1],
        tuple(runs),
        float(tau.mean()) if len(tau) else None,
        _percentiles(tau) if len(tau) else None,
        tuple(tie for tie in ties if len(tie) > 1),
    )


def ranked(means: Values) -> NDArray[np.int64]:
    """Return the ranks of means (..., R), 1 for the highest; equal ones share the better rank."""
    from scipy.stats import rankdata

    return rankdata(-np.round(means, DECIMALS), method="min", axis=-1).astype(np.int64)


def resampled(scores: Values, seed: int) -> NDArray[np.int64]:
    """Return the ranks (RESAMPLES, R) of the runs when the patients of scores (R, P) are drawn with replacement."""
    n_patients = scores.shape[1]
    times = np.random.default_rng(seed).multinomial(n_patients, np.full(n_patients, 1 / n_patients), RESAMPLES)
    return ranked(times @ scores.T / n_patients)


def stability(ranks: NDArray[np.int64], n_runs: int) -> Stability:
    """Describe the ranks (RESAMPLES,) of one run among so many."""
    shares = np.bincount(ranks, minlength=n_runs + 1)[1:] / len(ranks)
    return Stability(float(ranks.mean()), _percentiles(ranks), float(shares[0]), tuple(shares.tolist()))


def taus(ranks: NDArray[np.int64], samples: NDArray[np.int64]) -> Values:
    """Return Kendall's tau-b between ranks (R,) and those of each sample (S, R), samples of only ties left out."""
    from scipy.stats import kendalltau

    different, times = np.unique(samples, axis=0, return_counts=True)  # few of them: most samples agree
    correlations = np.array(
        [kendalltau(ranks, one).statistic if np.ptp(one) and np.ptp(ranks) else np.nan for one in different]
    )
    return np.repeat(correlations[~np.isnan(correlations)], times[~np.isnan(correlations)])


def not_told_apart(runs: Sequence[str], comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Return the largest sets of runs, in the order of ``runs``, among which no pair shows a difference.

    A run may be in several, since "no difference shown" is not transitive. Insert and absorb: Piepho, "An algorithm for
    a letter-based representation of all-pairwise comparisons", J. Comput. Graph. Stat. 13 (2004).
    """
    sets = [frozenset(runs)]
    for one in (one for one in comparisons if one.is_shown):
        subsets = [
            subset
            for whole in sets
            for subset in ([whole - {one.a}, whole - {one.b}] if {one.a, one.b} <= whole else [whole])
        ]
        sets = [subset for subset in dict.fromkeys(subsets) if not any(subset < other for other in subsets)]
    in_order = [tuple(run for run in runs if run in one) for one in sets]
    return sorted(in_order, key=lambda names: [runs.index(name) for name in names])


def patient_scores(paired: Paired, metric: str) -> Values:
    """Return the patients' means over classes (R, P); a patient without a value in one run counts in none."""
    values = paired.values[metric]
    use = np.asarray(~np.isnan(values).any(axis=0))  # (C, N)
    scores = np.array([patient_means(of_run, use, paired.patients) for of_run in values])
    return scores[:, ~np.isnan(scores[0])]


def _percentiles(values: NDArray[np.float64] | NDArray[np.int64]) -> tuple[float, float]:
    """The interval that holds 95 % of the values."""
    low, high = np.percentile(values, (2.5, 97.5), method="inverted_cdf").tolist()
    return low, high
