"""Lesions matched, by hand and against the rules written out lesion by lesion."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, generate_binary_structure
from skimage.measure import label

from medseg.evaluation.metrics.lesions import RULES, Rule, f1, lesion_dice, lesion_hd95, match, precision, sensitivity
from medseg.evaluation.metrics.surfaces import hd95, surface_distances
from tests.evaluation.masks import random_pairs

UNIT = (1.0, 1.0, 1.0)


def emulated(prediction, truth, spacing, rule, missed):
    """Dice, HD95, sensitivity and precision by the rule of BraTS 2023, one lesion after the other, on whole arrays."""
    structure = generate_binary_structure(truth.ndim, 2)
    grow = lambda mask: binary_dilation(mask, structure, rule.dilations) if rule.dilations else mask  # noqa: E731
    zones, parts = label(grow(truth), connectivity=truth.ndim), label(prediction, connectivity=truth.ndim)
    dices, distances, found, seen, right = [], [], [], set(), set()
    for number in range(1, zones.max() + 1):
        lesion = truth & (zones == number)
        own = set(np.unique(parts[grow(lesion)])) - {0}
        seen |= own
        if lesion.sum() * np.prod(spacing) <= rule.above:
            continue
        right |= own
        whole = np.isin(parts, list(own))
        dices.append(2 * (whole & lesion).sum() / (whole.sum() + lesion.sum()))
        distances.append(hd95(surface_distances(whole, lesion, spacing)) if own else missed)
        found.append(bool(own))
    n_wrong = parts.max() - len(seen)
    dices, distances = dices + [0] * n_wrong, distances + [missed] * n_wrong
    return (
        np.mean(dices) if dices else np.nan,
        np.mean(distances) if distances else np.nan,
        np.mean(found) if found else np.nan,
        len(right) / (len(right) + n_wrong) if len(right) + n_wrong else np.nan,
    )


@pytest.mark.parametrize("rule", [*RULES.values(), Rule(dilations=1, above=2.0)], ids=["overlap", "brats", "brats-met"])
@pytest.mark.parametrize(("axes", "number"), [(2, 60), (3, 25)])
def test_equal_to_the_rule_written_out(axes, number, rule):
    for prediction, truth, spacing in random_pairs(axes, number, longest=24):
        lesions = match(prediction, truth, spacing, rule)
        found = lesion_dice(lesions), lesion_hd95(lesions, 374.0), sensitivity(lesions), precision(lesions)
        np.testing.assert_allclose(found, emulated(prediction, truth, spacing, rule, 374.0), rtol=1e-12)


def boxes(shape, *spans):
    """A mask of boxes, each given by where it starts and how long its sides are."""
    mask = np.zeros(shape, bool)
    for start, length in spans:
        mask[tuple(slice(at, at + length) for at in start)] = True
    return mask


def test_detection_by_hand():
    """Of three lesions two are found, one of them in two parts; a fourth part is wrong."""
    truth = boxes((30, 30), ((1, 1), 5), ((10, 10), 5), ((20, 20), 4))
    prediction = boxes((30, 30), ((1, 1), 2), ((4, 4), 2), ((10, 10), 5), ((25, 2), 3))
    lesions = match(prediction, truth, (1.0, 1.0), RULES["overlap"])
    assert (lesions.n_true, lesions.n_found, lesions.n_right, lesions.n_wrong) == (3, 2, 3, 1)
    assert sensitivity(lesions) == pytest.approx(2 / 3)
    assert precision(lesions) == pytest.approx(3 / 4)
    assert f1(lesions) == pytest.approx(2 * (2 / 3) * (3 / 4) / (2 / 3 + 3 / 4))
    assert lesion_dice(lesions) == pytest.approx((2 * 8 / (25 + 8) + 1 + 0 + 0) / 4)
    assert lesion_hd95(lesions, 100.0) == pytest.approx((lesion_hd95(lesions, None) * 2 + 100 + 100) / 4)


def test_corners_connect():
    diagonal = np.eye(4, dtype=bool)
    assert match(diagonal, diagonal, (1.0, 1.0), RULES["overlap"]).n_true == 1


def test_brats_by_hand():
    """Two near cubes are one lesion, a small one does not count nor does what finds it, a far part is wrong."""
    truth = boxes((40, 40, 40), ((2, 2, 2), 4), ((2, 2, 10), 4), ((20, 20, 20), 3))
    prediction = boxes((40, 40, 40), ((2, 2, 2), 4), ((20, 20, 20), 3), ((32, 32, 32), 5))
    lesions = match(prediction, truth, UNIT, RULES["brats"])
    assert (lesions.n_true, lesions.n_found, lesions.n_right, lesions.n_wrong) == (1, 1, 1, 1)
    assert lesion_dice(lesions) == pytest.approx((2 * 64 / (64 + 128)) / 2)


def test_small_lesions_alone_are_nothing_to_score():
    truth = boxes((20, 20, 20), ((5, 5, 5), 3))
    lesions = match(truth, truth, UNIT, RULES["brats"])
    assert np.isnan([lesion_dice(lesions), lesion_hd95(lesions, 374.0), f1(lesions), sensitivity(lesions)]).all()


def test_a_part_beside_a_lesion_is_wrong_without_dilation_alone():
    truth, prediction = boxes((20, 20, 20), ((2, 2, 2), 5)), boxes((20, 20, 20), ((2, 2, 9), 5))
    assert match(prediction, truth, UNIT, RULES["overlap"]).n_found == 0
    assert match(prediction, truth, UNIT, RULES["brats"]).n_found == 1


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_one_empty_mask(rule):
    full, none = boxes((12, 12, 12), ((2, 2, 2), 6)), np.zeros((12, 12, 12), bool)
    missed, wrong = match(none, full, UNIT, rule), match(full, none, UNIT, rule)
    for lesions in (missed, wrong):
        assert lesion_dice(lesions) == f1(lesions) == 0
        assert lesion_hd95(lesions, 374.0) == 374
        assert np.isnan(lesion_hd95(lesions, None))
    assert (sensitivity(missed), precision(wrong)) == (0, 0)
    assert np.isnan([precision(missed), sensitivity(wrong)]).all()


def test_thousands_of_parts_need_no_table_of_all_pairs():
    truth = np.zeros((1200, 1200), bool)
    truth[::4, ::4] = True
    lesions = match(truth, truth, (1.0, 1.0), RULES["overlap"])
    assert lesions.n_true == lesions.n_right == 90_000
    assert lesion_dice(lesions) == 1


def test_lesion_hd95_of_many_lesions():
    truth = np.zeros((200, 200), bool)
    truth[::4, ::4] = True
    assert lesion_hd95(match(np.roll(truth, 1, 0) | truth, truth, (1.0, 3.0), RULES["overlap"]), None) == 1
