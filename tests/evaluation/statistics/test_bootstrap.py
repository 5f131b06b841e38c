"""Statistics over cases against the standard library and scipy's bootstrap."""

import statistics as reference
import tracemalloc

import numpy as np
import pytest
from scipy.stats import bootstrap

from medseg.evaluation.statistics.bootstrap import confidence_interval, interval_of_class_means, statistics


def test_statistics_against_the_standard_library() -> None:
    values = [0.9, float("nan"), 0.4, 0.75, 0.8]
    found = statistics(np.array(values), np.array(list("aabbc")))
    kept = [value for value in values if value == value]
    assert found["mean"] == pytest.approx(reference.fmean(kept))
    assert found["std"] == pytest.approx(reference.stdev(kept))
    assert found["median"] == pytest.approx(reference.median(kept))
    assert [found["q1"], found["q3"]] == pytest.approx(reference.quantiles(kept, n=4, method="inclusive")[::2])
    assert (found["n"], found["n_undefined"], found["ci95"]) == (4, 1, None)


def test_statistics_of_one_value_and_of_none() -> None:
    one = statistics(np.array([0.5]), np.array(["a"]))
    assert (one["mean"], one["std"], one["median"], one["n"]) == (0.5, None, 0.5, 1)
    none = statistics(np.array([np.nan]), np.array(["a"]))
    assert none == {
        "mean": None,
        "std": None,
        "median": None,
        "q1": None,
        "q3": None,
        "ci95": None,
        "n": 0,
        "n_undefined": 1,
        "n_missed": 0,
    }


def test_interval_is_bca_of_the_mean_and_repeats() -> None:
    values = np.random.default_rng(0).beta(8, 2, 60)
    groups = np.arange(60)
    found = confidence_interval(values, groups)
    expected = bootstrap((values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(9)).confidence_interval
    assert found == pytest.approx([expected.low, expected.high], abs=0.003)
    assert found == confidence_interval(values, groups)
    assert found[0] < values.mean() < found[1]


def test_interval_draws_whole_groups() -> None:
    values = np.random.default_rng(1).random(20)
    few = confidence_interval(values, np.arange(20))
    copied = confidence_interval(np.repeat(values, 50), np.repeat(np.arange(20), 50))  # 1000 cases, still 20 patients
    assert copied == pytest.approx(few)


def test_interval_weighs_groups_by_their_cases() -> None:
    rng = np.random.default_rng(2)
    members = [rng.beta(2, 2, size) for size in (30, 1, 2, 1, 9, 1, 3, 12, 1, 5)]
    groups = np.repeat(np.arange(len(members)), [len(member) for member in members])
    expected = bootstrap(
        (np.arange(len(members)),),
        lambda drawn: np.concatenate([members[int(group)] for group in drawn]).mean(),
        vectorized=False,
        n_resamples=5000,
        rng=np.random.default_rng(3),
    ).confidence_interval
    found = confidence_interval(np.concatenate(members), groups)
    assert found == pytest.approx([expected.low, expected.high], abs=0.01)


def test_interval_needs_eight_groups_and_survives_equal_values() -> None:
    assert confidence_interval(np.arange(30) / 30, np.arange(30) % 7) is None
    assert confidence_interval(np.full(9, 0.7), np.arange(9)) == pytest.approx([0.7, 0.7])
    assert confidence_interval(np.array([]), np.array([])) is None


@pytest.mark.parametrize("kind", ["tied", "one apart", "nearly equal", "two values", "huge", "tiny"])
def test_interval_of_degenerate_samples_is_finite_and_holds_the_mean(kind: str) -> None:
    """Warnings are errors here: scipy warns where BCa is not defined."""
    rng = np.random.default_rng(5)
    for _ in range(25):
        n_groups = int(rng.integers(8, 14))
        groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, rng.integers(0, 8))])
        n = len(groups)
        values = {
            "tied": rng.integers(0, 3, n) / 2,
            "one apart": np.where(groups == 0, 0.0, 1.0),
            "nearly equal": 0.7 + rng.integers(0, 2, n) * 10.0 ** -rng.integers(5, 16),
            "two values": np.where(rng.random(n) < 0.1, 0.3, 0.9),
            "huge": 1e12 * rng.random(n),
            "tiny": 1e-12 * rng.random(n),
        }[kind]
        low, high = confidence_interval(values, groups)
        assert np.isfinite([low, high]).all()
        assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9


def test_interval_of_the_mean_over_classes_draws_groups_with_all_their_classes() -> None:
    rng = np.random.default_rng(5)
    groups = np.array([f"patient {case // 2}" for case in range(40)])
    values = [rng.beta(4, 2, 40), rng.beta(6, 1, 40)]
    values[1][rng.random(40) < 0.4] = np.nan
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]

    def mean_of(drawn: np.ndarray) -> float:
        cases = np.concatenate([members[int(group)] for group in drawn])
        return float(np.mean([np.nanmean(column[cases]) for column in values]))

    options = {"vectorized": False, "n_resamples": 5000, "rng": np.random.default_rng(6)}
    expected = bootstrap((np.arange(len(members)),), mean_of, **options).confidence_interval
    found = interval_of_class_means([(column, groups) for column in values])
    assert found == pytest.approx([expected.low, expected.high], abs=0.006)
    assert interval_of_class_means([(values[0], groups)]) == pytest.approx(confidence_interval(values[0], groups))


def test_interval_of_class_means_needs_eight_groups_and_survives_equal_values() -> None:
    assert interval_of_class_means([(np.arange(30) / 30, np.arange(30) % 7)]) is None
    assert interval_of_class_means([(np.full(9, 0.7), np.arange(9))]) == pytest.approx([0.7, 0.7])
    assert interval_of_class_means([]) is None
    empty = (np.full(9, np.nan), np.arange(9))
    assert interval_of_class_means([(np.full(9, 0.5), np.arange(9)), empty]) == pytest.approx([0.5, 0.5])


def test_the_numbers_are_those_of_scipy_with_the_same_draws() -> None:
    values = np.random.default_rng(8).beta(5, 2, 50)
    options = {"n_resamples": 2000, "batch": 100, "rng": np.random.default_rng(0)}
    expected = bootstrap((values,), np.mean, **options).confidence_interval
    assert confidence_interval(values, np.arange(50)) == pytest.approx([*expected], rel=1e-12)


def test_the_memory_grows_with_the_groups_and_not_with_their_square() -> None:
    values = np.random.default_rng(8).beta(5, 2, 4000)
    tracemalloc.start()
    interval_of_class_means([(values, np.arange(4000))] * 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # 4000² indices are 128 MB
