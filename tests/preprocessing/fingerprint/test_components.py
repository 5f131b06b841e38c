"""Components and specks, against scipy's counts of one class at a time and planted ones."""

import numpy as np
import pytest
from scipy import ndimage

from medseg.io.labels import IGNORE
from medseg.preprocessing.fingerprint.components import components
from medseg.preprocessing.quality.outliers import is_small_component, where_small_components


@pytest.mark.parametrize("shape", [(40, 50), (17, 20, 23)])
def test_components_are_those_that_scipy_finds_class_by_class(shape):
    truth = np.random.default_rng(0).choice([0, 1, 2, 4, IGNORE], shape, p=[0.7, 0.1, 0.1, 0.05, 0.05]).astype(np.uint8)
    found = components(truth, 5)
    for index in range(1, 5):
        parts, number = ndimage.label(truth == index, np.ones((3,) * len(shape)))
        rows = found[found[:, 0] == index]
        assert len(rows) == number
        sizes = ndimage.sum_labels(np.ones(shape), parts, range(1, number + 1))
        assert rows[:, 1].tolist() == sorted(sizes, reverse=True)


def test_a_component_is_placed_in_the_middle_of_its_box():
    truth = np.zeros((10, 12, 14), np.uint8)
    truth[2:5, 3:8, 4:11] = 1
    truth[9, 11, 13] = 1
    assert components(truth, 2).tolist() == [[1, 105, 0, 3, 5, 7], [1, 1, 1, 9, 11, 13]]


def test_nothing_has_no_components():
    assert components(np.zeros((4, 5), np.uint8), 3).shape == (0, 5)


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [([100, 8, 9], 8, [False, True, False]), ([20, 3, 2], 8, [False, False, True]), ([5], 8, [False]), ([], 8, [])],
)
def test_specks_are_small_and_beside_something_larger(sizes, most, expected):
    rows = np.array([[1, size, 1, 0, 0] for size in sizes], np.int64).reshape(-1, 5)
    assert is_small_component(rows, most).tolist() == expected
    rows[:, 2] = 0  # beside another class
    assert not is_small_component(rows, most).any()


def test_specks_are_found_where_they_were_planted():
    truth, planted = np.zeros((30, 30, 30), np.uint8), np.zeros((30, 30, 30), bool)
    truth[5:15, 5:15, 5:15] = 1
    truth[15:20, 4:15, 5:15] = 2
    planted[25, 25, 25:27] = True
    truth[planted] = 1
    truth[19, 4, 10] = 1  # cut off by the other class
    truth[28, 2, 2] = 2  # of a class that specks are not looked for in
    np.testing.assert_array_equal(where_small_components(truth, {1: 8}), planted)
