"""What of the scores each key explains, by hand, and as often as chance would."""

import numpy as np
import pytest

from medseg.sweeps.report.importance import groups_of, importances


def test_the_share_of_a_key_is_worked_out_by_hand() -> None:
    # from the mean 0.6: 2 (0.3² + 0.1²) in all, of which 2 · 2 · 0.2² between the groups
    scores = [0.3, 0.5, 0.7, 0.9]
    [one] = importances({"depth": ["2", "2", "3", "3"]}, scores)
    total, between = 0.2, 0.16
    assert one.share == pytest.approx((between - (total - between) / 2) / total)
    assert one.p == pytest.approx(1 / 3, abs=0.05)  # of three ways to pair four scores


def test_the_key_that_matters_comes_first_and_noise_explains_nothing_on_average() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(40):
        depth, noise = rng.integers(2, 5, 30), rng.integers(0, 3, 30)
        columns = {"noise": list(map(str, noise)), "depth": list(map(str, depth))}
        first, second = importances(columns, list(depth / 10 + rng.normal(0, 0.01, 30)))
        assert (first.key, second.key) == ("depth", "noise")
        assert first.share is not None
        assert first.share > 0.95
        assert first.p == pytest.approx(1 / 2001)
        shares.append(second.share or 0.0)
    assert np.mean(shares) < 0.05  # while three groups of 30 would explain 2/29 by chance


def test_numbers_that_hardly_repeat_are_put_into_groups() -> None:
    assert list(groups_of(["1e-4", "0.1", "1e-3", "0.01", "2e-4", "0.2", "2e-3", "0.02"])) == [0, 3, 1, 2, 0, 3, 1, 2]
    assert list(groups_of(["b", "a", "c"])) == [1, 0, 2]
    assert len(set(groups_of(["1", "1", "2", "3", "1", "2"]))) == 3


@pytest.mark.parametrize(
    ("texts", "scores"),
    [(["2", "3"], [0.1, 0.2]), (["a", "a", "a"], [0.1, 0.2, 0.3]), (["a", "b", "b"], [0.5, 0.5, 0.5])],
)
def test_nothing_is_said_where_nothing_can_be(texts: list[str], scores: list[float]) -> None:
    [one] = importances({"key": texts}, scores)
    assert (one.share, one.p) == (None, None)
