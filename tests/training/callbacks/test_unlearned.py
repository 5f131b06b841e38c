"""When classes that are not learned are named, and when they are named no more."""

import logging
from math import nan

import pytest

from medseg.training.callbacks.unlearned import Unlearned


@pytest.fixture
def told(caplog):
    """Return ``told(validations)``: what is logged at each of (progress, scores), by the progress."""
    caplog.set_level(logging.INFO, "medseg")

    def lines(validations, unlearned, trained_on="abc"):
        by_progress = {}
        for progress, scores in validations:
            caplog.clear()
            unlearned.add(scores, progress, lambda name: name in trained_on)
            if caplog.messages:
                by_progress[progress] = " ".join(caplog.messages)
        return by_progress

    return lines


def test_a_class_is_named_once_while_others_are_learned(told):
    unlearned = Unlearned()
    lines = told([(n / 20, {"a": 0.6, "b": 0.0}) for n in range(1, 20)], unlearned)
    assert list(lines) == [3 / 20]
    assert lines[3 / 20].startswith("not learned: b. The validation Dice is below 0.01 after 15 % of the training")
    assert unlearned.names == ["b"]


@pytest.mark.parametrize("learned", [0.4, 0.0])
def test_before_a_third_of_the_budget_nothing_is_said_while_little_is_learned(told, learned):
    lines = told([(n / 20, {"a": learned, "b": 0.0}) for n in range(1, 20)], Unlearned())
    assert list(lines) == [7 / 20]
    assert ("a, b" in lines[7 / 20]) == (learned == 0)


def test_the_first_validations_of_a_long_run_say_nothing(told):
    assert told([(n / 100, {"a": 0.9, "b": 0.0}) for n in range(1, 10)], Unlearned()) == {}


def test_a_class_that_is_learned_late_is_named_once_more(told):
    scores = [0.0, 0.0, 0.0, 0.03, 0.0, 0.2, 0.5, 0.0, 0.5]
    unlearned = Unlearned()
    lines = told([(0.1 * n, {"a": 0.9, "b": score}) for n, score in enumerate(scores, 1)], unlearned)
    assert list(lines) == [pytest.approx(0.3), pytest.approx(0.6)]
    assert lines[max(lines)] == "learned after all: b (Dice 0.2000)"
    assert unlearned.names == []


@pytest.mark.parametrize(("scores", "trained_on"), [({"a": 0.9, "b": nan}, "ab"), ({"a": 0.9, "b": 0.0}, "a")])
def test_a_class_that_no_case_holds_is_not_named(told, scores, trained_on):
    assert told([(n / 10, scores) for n in range(1, 11)], Unlearned(), trained_on) == {}


def test_the_last_validation_is_enough_where_it_is_the_only_one(told):
    assert list(told([(1.0, {"a": 0.0})], Unlearned())) == [1.0]


def test_a_resumed_run_goes_on_as_an_uninterrupted_one(told):
    first, whole = [(n / 20, {"a": 0.6, "b": 0.0}) for n in (1, 2)], Unlearned()
    unlearned, resumed = Unlearned(), Unlearned()
    told(first, unlearned)
    resumed.load_state_dict(unlearned.state_dict())
    later = [(n / 20, {"a": 0.6, "b": 0.0}) for n in (3, 4)]
    assert told(later, resumed) == told(first + later, whole)
    assert resumed == whole
