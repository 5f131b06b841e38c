"""Rankings on made data whose answer is known."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from medseg.evaluation.comparison.pairing import Paired
from medseg.evaluation.comparison.ranking import not_told_apart, rank, ranked, resampled, stability, taus
from medseg.evaluation.comparison.tests import Comparison, compare_all


def paired(*runs: np.ndarray) -> Paired:
    """Runs with these Dice of one class, a patient a case."""
    names = tuple(f"run {place}" for place in range(len(runs)))
    n = len(runs[0])
    return Paired(names, ("core",), tuple(map(str, range(n))), np.arange(n), {"dice": np.array(runs)[:, None]}, ())


def ranking_of(*runs: np.ndarray):
    made = paired(*runs)
    return rank(made, compare_all(made))


def shown(a: str, b: str, p: float = 0.01) -> Comparison:
    return Comparison("dice", None, a, b, 9, 9, (0.5, 0.4), 0.1, None, (0, 0), 1.0, p, p)


def test_ranks_share_the_better_place() -> None:
    assert ranked(np.array([0.5, 0.9, 0.5 + 1e-15, 0.1])).tolist() == [2, 1, 2, 4]


def test_a_clear_ranking_is_firm() -> None:
    rng = np.random.default_rng(0)
    found = ranking_of(*(level + rng.normal(0, 0.01, 20) for level in (0.5, 0.9, 0.7)))
    assert [one.run for one in found.runs] == ["run 1", "run 2", "run 0"]
    assert [one.rank for one in found.runs] == [1, 2, 3]
    assert [one.stability.first for one in found.runs] == [1.0, 0.0, 0.0]
    assert [one.stability.interval for one in found.runs] == [(1, 1), (2, 2), (3, 3)]
    assert (found.tau, found.tau_interval) == (1.0, (1.0, 1.0))
    assert found.ties == ()
    assert [one.letters for one in found.runs] == ["a", "b", "c"]


def test_runs_of_chance_are_tied_and_said_to_be() -> None:
    rng = np.random.default_rng(1)
    found = ranking_of(*(0.7 + rng.normal(0, 0.05, 20) for _ in range(3)))
    assert found.ties == (tuple(one.run for one in found.runs),)
    assert {one.letters for one in found.runs} == {"a"}
    assert found.tau < 1
    assert sum(one.stability.first for one in found.runs) == pytest.approx(1.0)
    for one in found.runs:
        assert one.stability.mean_rank == pytest.approx(np.dot(one.stability.shares, (1, 2, 3)))


def test_the_same_run_twice_shares_rank_and_draws() -> None:
    values = np.random.default_rng(2).uniform(0.5, 0.9, 15)
    found = ranking_of(values, values - 0.3, values)
    assert [(one.run, one.rank) for one in found.runs] == [("run 0", 1), ("run 2", 1), ("run 1", 3)]
    assert [one.stability.first for one in found.runs] == [1.0, 1.0, 0.0]
    assert found.ties == (("run 0", "run 2"),)


def test_nothing_but_ties_has_no_tau() -> None:
    values = np.linspace(0.5, 0.9, 10)
    assert ranking_of(values, values).tau is None


def test_few_patients_say_nothing_of_stability() -> None:
    found = ranking_of(np.linspace(0.6, 0.8, 7), np.linspace(0.5, 0.6, 7))
    assert {one.stability for one in found.runs} == {None}
    assert (found.tau, found.runs[0].interval) == (None, None)


def test_draws_against_drawing_patients_one_by_one() -> None:
    scores = np.random.default_rng(3).uniform(0.4, 0.6, (3, 12))
    found = resampled(scores, 0)
    rng = np.random.default_rng(9)
    drawn = [scores[:, rng.integers(0, 12, 12)].mean(axis=1) for _ in range(4000)]
    expected = np.mean([np.argsort(np.argsort(-means)) + 1 for means in drawn], axis=0)
    np.testing.assert_allclose(found.mean(axis=0), expected, atol=0.07)
    assert (found == resampled(scores, 0)).all()


def test_taus_are_those_of_scipy_draw_by_draw() -> None:
    rng = np.random.default_rng(4)
    ranks, draws = np.array([1, 2, 3, 4]), ranked(rng.integers(0, 3, (50, 4)) / 3)
    expected = [kendalltau(ranks, draw).statistic for draw in draws if np.ptp(draw)]
    assert sorted(taus(ranks, draws)) == pytest.approx(sorted(expected))


def test_stability_by_hand() -> None:
    found = stability(np.array([1] * 90 + [2] * 8 + [3] * 2), 3)
    assert (found.mean_rank, found.first, found.shares) == (pytest.approx(1.12), 0.9, (0.9, 0.08, 0.02))
    assert found.interval == (1, 2)


@pytest.mark.parametrize("seed", range(10))
def test_sets_not_told_apart_are_the_maximal_cliques(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = list("abcdef")
    apart = {pair for pair in combinations(runs, 2) if rng.random() < 0.4}
    found = not_told_apart(runs, [shown(*pair) for pair in apart])
    cliques = [
        chosen
        for size in range(1, 7)
        for chosen in combinations(runs, size)
        if not any(pair in apart for pair in combinations(chosen, 2))
    ]
    largest = [one for one in cliques if not any(set(one) < set(other) for other in cliques)]
    assert found == sorted(largest)


def test_what_is_not_shown_tells_nothing_apart() -> None:
    assert not_told_apart(["a", "b"], [shown("a", "b", 0.05)]) == [("a", "b")]
