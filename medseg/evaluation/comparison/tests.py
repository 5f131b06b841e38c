"""Runs compared in pairs: who is better at what, and whether it may be chance.

The unit is the patient, not the case: a patient's value is the mean over the patient's cases, and of the mean over
classes the mean of that over the classes. Tested are the patients' differences by Wilcoxon's signed-rank test, zeros
ranked as Pratt has it; all p-values of one call are adjusted together by Holm's method.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.comparison.pairing import Paired
from medseg.evaluation.metrics.registry import METRICS
from medseg.evaluation.statistics.bootstrap import confidence_interval
from medseg.evaluation.statistics.means import Values, means_of_defined

MIN_PATIENTS = 6
"""Below this many no two-sided signed-rank test can fall below 0.05: of five patients the smallest p is 2/2⁵ = 0.06."""
LEVEL = 0.05
DECIMALS = 12
"""Differences smaller than rounding noise are ties."""

BETTER, WORSE, UNCLEAR = "better", "worse", "ranks and means disagree"
NOT_SHOWN, TOO_FEW = "not shown", "too few patients"
"""Verdicts. None says "equal": that no difference is shown does not mean that there is none."""


@dataclass(frozen=True)
class Comparison:
    """Run ``a`` against run ``b`` by one metric of one class, or of the mean over classes (None).

    Means, ``difference`` (a - b) and its 95 % interval are over the patients in whom both runs have a value; ``missed``
    counts a's and b's cases without a distance, which the test ranks as worst. ``rank_biserial`` is (W⁺ - W⁻)/(W⁺ + W⁻)
    of the signed ranks of a - b. ``p`` is None below ``MIN_PATIENTS``; ``p_holm`` is adjusted for all comparisons. The
    verdict is on ``a``.
    """

    metric: str
    name: str | None
    a: str
    b: str
    n_cases: int
    n_patients: int
    means: tuple[float, float] | None
    difference: float | None
    interval: list[float] | None
    missed: tuple[int, int]
    rank_biserial: float
    p: float | None
    p_holm: float | None = None
    verdict: str = TOO_FEW

    @property
    def is_shown(self) -> bool:
        """Whether a difference is shown."""
        return self.p_holm is not None and self.p_holm < LEVEL


def compare_all(paired: Paired) -> list[Comparison]:
    """Compare every two runs by every metric, class by class and in the mean over classes."""
    every = list(range(len(paired.classes)))
    choices = [[index] for index in every] + ([every] if len(every) > 1 else [])  # one class needs no mean
    comparisons = [
        _compare(paired, metric, classes, a, b)
        for metric in paired.values
        for classes in choices
        for a, b in combinations(range(len(paired.runs)), 2)
    ]
    adjusted = holm([one.p for one in comparisons])
    return [replace(one, p_holm=p, verdict=_verdict(one, p)) for one, p in zip(comparisons, adjusted, strict=True)]


def smallest_p(n_patients: int, n_comparisons: int) -> float:
    """Return the smallest adjusted p-value that so many patients and comparisons leave possible."""
    return min(1.0, float(2.0 ** (1 - n_patients)) * n_comparisons)


def signed_rank(differences: Values) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test of differences (n,), None below ``MIN_PATIENTS``.

    Exact up to 50 differences, with ties or zeros up to 13; else by the normal approximation. Infinite differences are
    the largest ranks. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1 (1945); zeros as in
    Pratt, JASA 54 (1959).
    """
    from scipy.stats import wilcoxon

    if len(differences) < MIN_PATIENTS:
        return None
    if not differences.any():
        return 1.0
    return float(wilcoxon(signed_ranks(differences), zero_method="pratt").pvalue)


def signed_ranks(differences: Values) -> Values:
    """Return the ranks (n,) of the absolute differences with their signs, ties in the middle of theirs, 0 for zeros."""
    from scipy.stats import rankdata

    return np.sign(differences) * rankdata(np.abs(differences))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for the number of them (None: not tested, not counted), as a step-down Bonferroni correction.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    """
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for step, (p, index) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - step)))
        adjusted[index] = highest
    return adjusted


def patient_means(values: Values, use: NDArray[np.bool_], patients: NDArray[np.int64]) -> Values:
    """Return each patient's mean (P,) of values (C, N) as far as ``use`` (C, N) goes; NaN for patients without any.

    First the mean over the patient's cases for each class, then the mean of these over the classes.
    """
    size = int(patients.max()) + 1
    sums = [np.bincount(patients, np.where(used, row, 0), size) for row, used in zip(values, use, strict=True)]
    counts = np.array([np.bincount(patients, used, size) for used in use])
    return means_of_defined(np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0), axis=0)


def _compare(paired: Paired, metric: str, classes: list[int], a: int, b: int) -> Comparison:
    of_a, of_b = paired.values[metric][a, classes], paired.values[metric][b, classes]  # (C, N) each
    both = ~np.isnan(of_a) & ~np.isnan(of_b)
    measured = both & np.isfinite(of_a) & np.isfinite(of_b)

    # what is tested: a missed distance is the largest of all, and one that both missed is no difference
    tested_a, tested_b = (patient_means(values, both, paired.patients) for values in (of_a, of_b))
    tested = np.zeros(len(tested_a))
    np.subtract(tested_a, tested_b, out=tested, where=~(np.isinf(tested_a) & np.isinf(tested_b)))
    tested = np.round(tested[~np.isnan(tested)], DECIMALS)
    ranks = signed_ranks(tested)

    # what is shown: the means of what was measured
    mean_a, mean_b = (patient_means(values, measured, paired.patients) for values in (of_a, of_b))
    known = ~np.isnan(mean_a)
    differences = np.round(mean_a[known] - mean_b[known], DECIMALS)
    means = (float(mean_a[known].mean()), float(mean_b[known].mean())) if known.any() else None
    return Comparison(
        metric,
        paired.classes[classes[0]] if len(classes) == 1 else None,
        paired.runs[a],
        paired.runs[b],
        n_cases=int(both.any(axis=0).sum()),
        n_patients=len(tested),
        means=means,
        difference=means[0] - means[1] if means else None,
        interval=confidence_interval(differences, np.arange(len(differences))),
        missed=(int(np.isinf(of_a[both]).sum()), int(np.isinf(of_b[both]).sum())),
        # the matched-pairs rank-biserial correlation: Kerby, Comprehensive Psychology 3 (2014)
        rank_biserial=float(ranks.sum() / np.abs(ranks).sum()) if ranks.any() else 0.0,
        p=signed_rank(tested),
    )


def _verdict(comparison: Comparison, p_holm: float | None) -> str:
    if p_holm is None:
        return TOO_FEW
    if p_holm >= LEVEL:
        return NOT_SHOWN
    sign = 1 if METRICS[comparison.metric].better == "higher" else -1
    if comparison.difference is not None and comparison.difference * comparison.rank_biserial < 0:
        return UNCLEAR
    return BETTER if comparison.rank_biserial * sign > 0 else WORSE
