"""The choice of options against gains and standard errors by hand, and against SciPy."""

import numpy as np
import pytest
from scipy.stats import sem

from medseg.evaluation.tuning import Space, compare, select

N = 24
COMMON = {"largest": False, "min_ml": 0.0}


def scores(seed=0, classes=2):
    return np.random.default_rng(seed).uniform(0.5, 0.9, (N, classes))


def space(*, independent=True, ladders=None, names=("a", "b")):
    return Space(names=names, ladders=ladders or {"largest": (True, False)}, common=COMMON, independent=independent)


def table_of(effects, before):
    """A score function: ``effects`` maps (class, option, value) to what it adds to the scores (N, R)."""
    calls = []

    def score(choice):
        calls.append(choice)
        added = [effects.get((name, o, v), 0.0) for name, own in choice.items() for o, v in own.items()]
        return before + sum(added, np.zeros_like(before))

    return score, calls


def column(values, place, classes=2):
    """(N, R) that is zero but for one column."""
    effect = np.zeros((N, classes))
    effect[:, place] = values
    return effect


def test_gain_and_standard_error_are_those_of_paired_differences():
    before, after = scores(1, 3), scores(2, 3)
    found = compare(before, after)
    by_case = (after - before).mean(1)
    assert found.gain == pytest.approx(by_case.mean())
    assert found.standard_error == pytest.approx(sem(by_case))
    assert found.class_gains == pytest.approx(after.mean(0) - before.mean(0))


def test_what_was_not_annotated_is_left_out():
    before, after = scores(1), scores(2)
    before[:5, 1] = after[:5, 1] = np.nan
    before, after = (
        np.pad(before, [(0, 0), (0, 1)], constant_values=np.nan),
        np.pad(after, [(0, 0), (0, 1)], constant_values=np.nan),
    )
    found = compare(before, after)
    by_case = np.nanmean(after - before, axis=1)
    assert (found.gain, found.standard_error) == pytest.approx((by_case.mean(), sem(by_case)))
    assert found.class_gains == pytest.approx((*np.nanmean((after - before)[:, :2], axis=0), 0))


# four cases by hand: differences d, their mean and their standard error s/2
@pytest.mark.parametrize(
    ("differences", "gain", "error", "worth"),
    [
        ([0.1, 0.1, 0.1, 0.1], 0.1, 0.0, True),
        ([0.3, 0.1, 0.1, -0.1], 0.1, 0.0816497, True),  # s = 0.1632993
        ([0.5, 0.1, -0.1, -0.1], 0.1, 0.1414214, False),  # s = 0.2828427
        ([0.0, 0.0, 0.0, 0.0], 0.0, 0.0, False),
        ([-0.1, -0.1, -0.1, -0.1], -0.1, 0.0, False),
    ],
)
def test_one_standard_error_by_hand(differences, gain, error, worth):
    before = np.full((4, 1), 0.5)
    found = compare(before, before + np.array(differences)[:, None])
    assert found.gain == pytest.approx(gain, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-6)
    assert found.is_worth_it == worth


def test_no_class_may_lose():
    before = scores()
    found = compare(before, before + np.array([0.2, -0.001]))
    assert found.gain == pytest.approx(0.0995)
    assert found.losers == (1,)
    assert not found.is_worth_it


def test_one_case_says_nothing():
    assert not compare(np.array([[0.1]]), np.array([[0.9]])).is_worth_it


def test_each_class_takes_what_helps_it():
    effects = {("a", "largest", True): column(0.1, 0), ("b", "largest", True): column(-0.1, 1)}
    score, calls = table_of(effects, scores())
    found = select(score, space(), {})
    assert found.choice == {"a": {"largest": True}}
    np.testing.assert_allclose(found.after, scores() + np.array([0.1, 0]))
    decided = {(row.name, row.step): (row.kept, row.comparison.gain) for row in found.candidates}
    assert decided["a", 1] == (True, pytest.approx(0.05))
    assert decided["b", 1] == (False, pytest.approx(-0.05))
    assert len(calls) <= 6  # not one for each class


def test_noise_is_refused():
    noise = np.resize([0.05, -0.04], N)
    assert 0 < noise.mean() < sem(noise)
    score, _ = table_of({("a", "largest", True): column(noise, 0)}, scores())
    found = select(score, space(), {})
    assert found.choice == {}
    assert found.after is found.before or (found.after == found.before).all()


@pytest.mark.parametrize("hurt", [0.0, 0.02])
def test_a_region_that_hurts_another_is_refused(hurt):
    effect = column(0.1, 0) - column(hurt, 1)
    score, _ = table_of({("a", "largest", True): effect}, scores())
    found = select(score, space(independent=False), {})
    assert found.choice == ({} if hurt else {"a": {"largest": True}})


def test_the_best_value_is_taken_first_and_others_build_on_it():
    ladders = {"largest": (True, False), "min_ml": (0.0, 0.1, 1.0)}
    effects = {
        ("a", "min_ml", 0.1): column(0.04, 0),
        ("a", "min_ml", 1.0): column(0.06, 0),
        ("a", "largest", True): column(0.02, 0),
        ("b", "largest", True): column(0.01, 1),
    }
    for independent in (True, False):
        score, _ = table_of(effects, scores())
        found = select(score, space(ladders=ladders, independent=independent), {})
        assert found.choice == {"a": {"min_ml": 1.0, "largest": True}, "b": {"largest": True}}
        steps = {(row.name, row.option): row.step for row in found.candidates if row.kept}
        assert steps["a", "min_ml"] == 1 < steps["a", "largest"]


def test_what_single_classes_have_already_stays_or_is_replaced():
    effects = {("a", "min_ml", 0.5): column(-0.1, 0), ("a", "min_ml", 0.0): column(0.0, 0)}
    score, _ = table_of(effects, scores())
    start = {"a": {"min_ml": 0.5}, "b": {"largest": True}}
    found = select(score, space(ladders={"min_ml": (0.0, 0.5)}), start)
    assert found.choice == {"a": {"min_ml": 0.0}, "b": {"largest": True}}
    assert start == {"a": {"min_ml": 0.5}, "b": {"largest": True}}


def test_what_is_worth_it_alone_but_not_together_is_cut_back_to_the_best():
    before = scores()

    def score(choice):
        both = len(choice) == 2
        return before + (-1.0 if both else 0.0) + [0.1 * ("a" in choice), 0.2 * ("b" in choice)]

    # each class's own column says that it gains; with both classes all are lost
    class Alone(Space):
        def untried(self, choice, among):
            for option, value, names in super().untried(choice, among):
                yield from ((option, value, [name]) for name in names)

    alone = Alone(names=("a", "b"), ladders={"largest": (True,)}, common=COMMON, independent=True)
    assert select(score, alone, {}).choice == {"b": {"largest": True}}
