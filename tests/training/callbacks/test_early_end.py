"""What validation curves promise, on curves whose continuation is known; the schedule that leads to an earlier end."""

import math

import numpy as np
import pytest

from medseg.training.callbacks.early_end import LEAST, promised_gain
from medseg.training.callbacks.progress import EarlyEnd, Progress

EPOCHS = list(range(10, 510, 10))


def curve(power: float, noise: float = 0.0, seed: int = 0) -> list[float]:
    """Scores that rise by a power law towards 0.9, as those of trainings do."""
    clean = 0.9 - 0.5 * (np.array(EPOCHS) / EPOCHS[0]) ** -power
    return list(clean + np.random.default_rng(seed).normal(0, noise, len(EPOCHS)))


@pytest.mark.parametrize("power", [0.3, 0.7, 1, 2])
@pytest.mark.parametrize("length", range(12, 26))
@pytest.mark.parametrize("sign", [1, -1])
def test_a_curve_gains_no_more_than_it_promised(power, length, sign):
    scores = curve(power)
    promised = promised_gain(EPOCHS[:length], [sign * score for score in scores[:length]], 50 / length, sign)
    assert promised >= scores[-1] - scores[length - 1]


def test_a_flat_curve_promises_nothing_but_what_its_noise_hides():
    quiet = [promised_gain(EPOCHS[:20], curve(9, 1e-4, seed)[:20], 2.5) for seed in range(20)]
    noisy = [promised_gain(EPOCHS[:20], curve(9, 1e-2, seed)[:20], 2.5) for seed in range(20)]
    assert max(quiet) < 0.002
    assert np.mean(np.array(noisy) > 0.002) > 0.8


def test_a_falling_curve_promises_a_loss():
    assert promised_gain(EPOCHS[:20], list(np.linspace(0.9, 0.8, 20)), 2.5) < 0


def test_of_few_validations_nothing_is_known():
    assert promised_gain(EPOCHS[: 2 * LEAST - 3], [0.9] * (2 * LEAST - 3), 4) == math.inf
    assert promised_gain(EPOCHS[: 2 * LEAST - 2], [0.9] * (2 * LEAST - 2), 4) == 0


def test_progress_runs_through_the_rest_until_an_earlier_end():
    progress = Progress(max_steps=1000, max_seconds=None)
    progress.step = 200
    before = progress.fraction
    progress.early_end = EarlyEnd(step=250, settled=200, fraction=before)
    assert progress.fraction == before == 0.2
    progress.step = 225
    assert progress.fraction == pytest.approx(0.6)
    assert progress.planned_steps == progress.last_step == 250
    progress.step = 250
    assert progress.is_over
