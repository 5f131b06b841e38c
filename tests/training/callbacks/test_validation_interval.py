"""How often a training without a time limit is validated: by counted work, whatever the clock says."""

import logging
from types import SimpleNamespace

import pytest

from medseg.inference.probabilities import Scorer
from medseg.training.callbacks.progress import Budget, Progress


def interval(validated, *, share=0.1, epochs=100, ranks=1, batches=50, batch_size=2, given=None, max_seconds=None):
    budget = Budget(Progress(max_steps=100, max_seconds=max_seconds), interval=given, share=share)
    trainer = SimpleNamespace(
        datamodule=SimpleNamespace(batch_size=batch_size),
        num_training_batches=batches,
        max_epochs=epochs,
        world_size=ranks,
        is_global_zero=True,
        global_step=0,
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )
    budget.on_train_start(trainer, SimpleNamespace(count_validated=lambda data: validated))
    return budget.interval


def test_validations_keep_to_their_share_of_the_work(caplog):
    """By hand: 100 patches an epoch are worth 200 windows; 1000 windows are a tenth of 10 000, of which 9000 train."""
    with caplog.at_level(logging.INFO):
        assert interval(1000) == 45
    assert "validation after every 45 epochs" in caplog.text
    assert interval(1001) == 46
    assert interval(1000, share=0.5) == 5
    assert interval(1000, ranks=4) == 12  # each process does a quarter of the validation, and a batch of its own
    assert interval(1000, batch_size=20) == 5


def test_a_run_that_is_too_short_for_two_says_so(caplog):
    with caplog.at_level(logging.INFO):
        assert interval(1000, epochs=45) == 45
    assert "validation after the last epoch alone: by the work, 10% of it" in caplog.text


def test_they_come_no_oftener_than_every_fiftieth_part_of_the_run():
    assert interval(10) == 2
    assert interval(10, epochs=500) == 10
    assert interval(10, epochs=1) == 1


def test_what_the_user_says_holds_and_with_a_time_limit_the_clock():
    assert interval(1000, given=3) == 3
    assert interval(1000, max_seconds=60) is None


@pytest.mark.parametrize(
    ("shape", "overlap", "axes", "windows"),
    [
        ((32, 32, 32), 0.5, (), 1),
        ((20, 33, 64), 0.5, (), 6),  # 1 along the first, 2 and 3 along the others
        ((20, 33, 64), 0.0, (), 4),
        ((64, 64, 64), 0.5, (0, 1, 2), 27 * 8),
    ],
)
def test_windows_are_counted_with_their_flips(shape, overlap, axes, windows):
    scorer = Scorer(patch_size=(32, 32, 32), n_outputs=2, overlap=overlap, mirror_axes=axes)
    assert scorer.count_windows(shape) == windows
