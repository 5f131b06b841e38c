"""Which validation is chosen, worked out by hand."""

import numpy as np
import pytest

from medseg.training.callbacks.checkpoints import Selection


def after(*scores):
    selection = Selection()
    for epoch, score in enumerate(scores, 1):
        selection.add(epoch, score)
    return selection


def test_a_lucky_score_is_not_chosen():
    selection = after(0.5, 0.9, 0.5, 0.6, 0.8, 0.8, 0.7)
    assert selection.smoothed() == pytest.approx((0.8 + 0.8 + 0.7) / 3)
    assert selection.report()["best"] == {"epoch": 7, "dice": 0.7, "smoothed": round(2.3 / 3, 6)}


def test_the_first_scores_are_smoothed_over_what_there_is():
    assert after(0.4).smoothed() == 0.4
    assert after(0.4, 0.6).smoothed() == pytest.approx(0.5)


def test_of_equal_scores_the_later_is_chosen():
    assert after(0.5, 0.5, 0.5).report()["best"]["epoch"] == 3


def test_best_and_last_are_reported_with_the_noise_of_one_score():
    report = after(0.6, 0.7, 0.8, 0.9, 0.5, 0.5, 0.5, 0.5).report()
    assert report["best"]["epoch"] == 4
    assert report["last"] == {"epoch": 8, "dice": 0.5, "smoothed": 0.5}
    assert report["noise"] == 0
    rng = np.random.default_rng(0)
    noisy = after(*(0.8 + 0.02 * rng.normal(size=4000)))
    assert noisy.report()["noise"] == pytest.approx(0.02, rel=0.05)
    assert after(0.5, 0.6).report()["noise"] is None


def test_nothing_is_reported_without_a_validation():
    assert Selection().report() is None


def test_a_resumed_run_chooses_as_an_uninterrupted_one():
    resumed = Selection()
    resumed.load_state_dict(after(0.5, 0.9, 0.7).state_dict())
    resumed.add(4, 0.1)
    assert resumed == after(0.5, 0.9, 0.7, 0.1)
    assert not resumed.is_best


def test_the_best_score_is_that_of_the_chosen_weights():
    assert np.isnan(after().best_score)
    assert after(0.5, 0.9, 0.5, 0.6, 0.8, 0.8, 0.7).best_score == 0.7


def test_of_a_loss_the_lowest_is_chosen():
    selection = Selection(name="loss", lowest=True)
    for epoch, loss in enumerate((0.5, 0.1, 0.3, 0.3, 0.4), 1):
        selection.add(epoch, loss)
    assert selection.report()["best"] == {"epoch": 4, "loss": 0.3, "smoothed": round(0.7 / 3, 6)}
    assert selection.sign == -1
