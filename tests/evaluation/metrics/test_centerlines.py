"""clDice by hand, and against the published formula with skeletons of whole arrays."""

import numpy as np
import pytest
from skimage.morphology import skeletonize

from medseg.evaluation.metrics.centerlines import cldice
from tests.evaluation.masks import random_pairs


@pytest.mark.parametrize(("axes", "number"), [(2, 100), (3, 40)])
def test_equal_to_the_published_formula(axes, number):
    for prediction, truth, _ in random_pairs(axes, number):
        predicted, true = (skeletonize(np.pad(mask, 5)) > 0 for mask in (prediction, truth))
        if not (predicted.any() and true.any()):
            continue  # the formula has no value: tested below
        precision = (predicted & np.pad(truth, 5)).sum() / predicted.sum()
        sensitivity = (true & np.pad(prediction, 5)).sum() / true.sum()
        wanted = 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0
        assert cldice(prediction, truth) == pytest.approx(wanted)


@pytest.mark.parametrize("axes", [2, 3])
def test_half_of_a_tube(axes):
    """By hand: all that is predicted is right, and half of the line of 20 voxels is found: 2 · 1 · ½ / (1 + ½)."""
    truth = np.zeros((24, 9, 9)[:axes], bool)
    truth[2:22, 4:5] = True if axes == 2 else np.arange(9) == 4
    prediction = truth.copy()
    prediction[12:] = False
    assert cldice(prediction, truth) == pytest.approx(2 / 3)


def test_width_hardly_matters():
    """The line is found all along, but the ends of the skeleton of a wide tube are not on it."""
    truth, prediction = np.zeros((40, 15), bool), np.zeros((40, 15), bool)
    truth[:, 7] = prediction[:, 5:10] = True
    on_the_line = skeletonize(np.pad(prediction, 1))[1:-1, 1:-1][:, 7].sum()
    precision = on_the_line / skeletonize(np.pad(prediction, 1)).sum()
    assert cldice(prediction, truth) == pytest.approx(2 * precision / (precision + 1))
    assert precision > 0.9


def test_blobs_without_a_skeleton_stand_for_themselves():
    """By hand: half of a cube lies in the other one, both ways."""
    truth, prediction = np.zeros((12, 8, 8), bool), np.zeros((12, 8, 8), bool)
    truth[2:6, 2:6, 2:6] = prediction[4:8, 2:6, 2:6] = True
    assert not skeletonize(np.pad(truth, 1)).any()
    assert cldice(prediction, truth) == pytest.approx(0.5)


def test_lines_that_do_not_meet():
    truth, prediction = np.zeros((20, 15), bool), np.zeros((20, 15), bool)
    truth[:, 3] = prediction[:, 12] = True
    assert cldice(prediction, truth) == 0


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (6, 7), (1, 1, 1), (2, 2, 2), (1, 8, 8), (6, 5, 4)])
def test_whole_arrays_and_single_voxels(shape):
    whole = np.ones(shape, bool)
    assert cldice(whole, whole) == 1
    single = np.zeros(shape, bool)
    single[tuple(length // 2 for length in shape)] = True
    assert 0 <= cldice(single, whole) <= 1
