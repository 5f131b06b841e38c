"""Progress on a clock that the test turns."""

import pytest

from medseg.training.callbacks.progress import Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_progress_is_the_larger_of_steps_and_time():
    clock = Clock()
    progress = Progress(max_steps=100, max_seconds=10, clock=clock)
    progress.start()
    progress.step = 30
    assert progress.fraction == pytest.approx(0.3)
    clock.now += 5
    assert progress.fraction == pytest.approx(0.5)
    progress.step = 90
    assert progress.fraction == pytest.approx(0.9)
    clock.now += 50
    assert progress.fraction == 1


def test_without_a_time_limit_only_steps_count():
    clock = Clock()
    progress = Progress(max_steps=10, max_seconds=None, clock=clock)
    progress.start()
    clock.now += 1e6
    assert progress.fraction == 0


def test_time_for_the_last_validation_is_kept_free():
    clock = Clock()
    progress = Progress(max_steps=100, max_seconds=10, clock=clock)
    progress.start()
    progress.validated(2.0)
    clock.now += 8
    assert progress.fraction == pytest.approx(1)


def test_time_adds_up_over_resumes():
    clock = Clock()
    first = Progress(max_steps=100, max_seconds=10, clock=clock)
    first.start()
    clock.now += 4
    second = Progress(max_steps=100, max_seconds=10, clock=clock)
    second.load_state_dict(first.state_dict())
    clock.now += 1000  # the pause does not count
    second.start()
    clock.now += 1
    assert second.fraction == pytest.approx(0.5)


def test_validations_stay_below_their_share():
    clock = Clock()
    progress = Progress(max_steps=100, max_seconds=1000, clock=clock)
    progress.start()
    clock.now += 3
    assert progress.is_validation_worth_it(0.1)  # nothing is known of its cost yet
    clock.now += 2
    progress.validated(2.0)
    clock.now += 17
    assert not progress.is_validation_worth_it(0.1)
    clock.now += 1
    assert progress.is_validation_worth_it(0.1)


def test_the_time_left_is_by_the_pace_or_by_the_limit_whatever_ends_first():
    clock = Clock()
    progress = Progress(max_steps=100, max_seconds=None, clock=clock)
    progress.start()
    assert progress.seconds_left is None
    clock.now += 50
    progress.step = 20
    assert progress.seconds_left == pytest.approx(80 * 2.5)
    progress.max_seconds = 120
    assert progress.seconds_left == pytest.approx(70)
    clock.now += 100
    assert progress.seconds_left == 0


def test_with_a_limit_alone_the_time_left_is_known_from_the_start():
    progress = Progress(max_steps=float("inf"), max_seconds=60, clock=Clock())
    progress.start()
    assert progress.seconds_left == 60


def test_a_run_that_its_time_has_ended_is_over_though_a_quick_last_validation_leaves_time():
    clock = Clock()
    progress = Progress(max_steps=100, max_seconds=10, clock=clock)
    progress.start()
    progress.validated(4.0)
    clock.now += 6
    progress.step, progress.current = 50, progress.fraction
    assert progress.current == 1
    progress.validated(0.1)
    resumed, longer, unlimited = (Progress(max_steps=100, max_seconds=limit, clock=clock) for limit in (10, 20, None))
    for other in (resumed, longer, unlimited):
        other.load_state_dict(progress.state_dict())
        other.step = 50
    assert resumed.fraction < 1
    assert (resumed.is_over, longer.is_over, unlimited.is_over) == (True, False, False)
