"""How often a training without a time limit is validated: by counted work, whatever the clock says."""

import logging
from types import SimpleNamespace

import pytest

from medseg.inference.probabilities import Scorer
from medseg.training.callbacks.progress import Budget, Progress, drawn_cases


def begun(windows, *, share=0.1, epochs=100, ranks=1, batches=50, batch_size=2, given=None, max_seconds=None, n=None):
    """A budget, and the data that it has chosen from, at the start of a training."""
    budget = Budget(
        Progress(max_steps=epochs * batches, max_seconds=max_seconds), interval=given, share=share, n_cases=n
    )
    trainer = SimpleNamespace(
        datamodule=SimpleNamespace(batch_size=batch_size, validated=None),
        num_training_batches=batches,
        accumulate_grad_batches=1,
        max_epochs=epochs,
        current_epoch=0,
        world_size=ranks,
        is_global_zero=True,
        global_step=0,
        should_stop=False,
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )
    module = SimpleNamespace(count_windows=lambda data: windows)
    budget.on_train_start(trainer, module)
    return budget, trainer, module


def interval(validated, **options):
    """The interval of ten cases, all of which validate, that have so many windows together."""
    return begun([validated - 9, *[1] * 9], **options)[0].interval


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


def test_of_many_cases_a_part_validates_twenty_times_within_the_share(caplog):
    """By hand: 100 epochs of 100 patches are worth 20 000 windows, a tenth of 22 222, so 111 may validate each time."""
    with caplog.at_level(logging.INFO):
        budget, trainer, _ = begun([1] * 1000)
    validated = trainer.datamodule.validated
    assert (budget.n_cases, len(validated), budget.interval) == (80, 80, 4)  # 20, 40, 80, 160 ...
    assert validated == sorted(set(validated)) == drawn_cases(1000, 80)
    assert max(validated) > 900
    assert "validation on 80 of 1000 cases, the same in every run of this split: 20 validations of all" in caplog.text
    assert begun([1] * 1000, ranks=4)[0].n_cases == 320
    assert begun([1] * 1000, share=0.5)[0].n_cases == 1000
    assert begun([1] * 111)[0].n_cases == 111
    assert begun([50] * 1000)[0].n_cases == 20  # no fewer, and so fewer validations
    assert begun([50] * 1000)[0].interval == 45


def test_which_cases_validate_is_the_same_in_every_run_and_less_are_among_more():
    assert drawn_cases(1000, 40) == drawn_cases(1000, 40)
    assert set(drawn_cases(1000, 40)) < set(drawn_cases(1000, 80))
    assert drawn_cases(7, 40) == list(range(7))


def test_the_number_of_cases_that_the_user_says_holds(caplog):
    with caplog.at_level(logging.INFO):
        budget, trainer, _ = begun([1] * 1000, n=30)
    assert len(trainer.datamodule.validated) == budget.n_cases == 30
    assert "validation on 30 of 1000 cases" in caplog.text
    assert "of this split: as trainer.validation_cases says" in caplog.text
    assert len(begun([1] * 1000, n=2000)[1].datamodule.validated) == 1000
    assert begun([1] * 1000, given=1)[0].n_cases == 1000  # who says how often means all


def test_with_a_time_limit_the_first_epoch_tells_how_many_cases():
    budget, trainer, module = begun([1] * 1000, epochs=10**6, max_seconds=1000)
    assert budget.n_cases is None
    now = [0.0]
    budget.progress.clock = lambda: now[0]
    budget.progress.start()
    now[0], trainer.global_step = 10, 50  # an epoch in a hundredth of the time
    budget.on_train_batch_end(trainer, module, None, None, 49)
    assert (budget.n_cases, len(trainer.datamodule.validated), budget.interval) == (80, 80, None)


def test_a_resumed_run_validates_on_the_cases_that_it_began_with():
    budget, _, _ = begun([1] * 1000)
    for state, n in ((budget.state_dict(), 80), (budget.progress.state_dict(), 1000)):  # of an earlier version: all
        resumed, trainer, module = begun([1] * 1000, epochs=1)
        resumed.load_state_dict(state)
        resumed.on_train_start(trainer, module)
        assert len(trainer.datamodule.validated) == n


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
