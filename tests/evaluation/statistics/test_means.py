"""The mean of scores, by hand."""

from math import isnan, nan

import numpy as np
import pytest

from medseg.evaluation.statistics.means import mean_of_defined, means_of_defined


def test_undefined_values_are_left_out() -> None:
    assert mean_of_defined([0.5, nan, 1.0, None]) == 0.75
    assert isnan(mean_of_defined([nan, None]))
    assert isnan(mean_of_defined([]))


@pytest.mark.parametrize(("axis", "expected"), [(0, [1.0, 4.0, nan]), (1, [1.5, 4.0])])
def test_means_along_an_axis(axis: int, expected: list[float]) -> None:
    values = np.array([[1.0, 2.0, nan], [nan, 4.0, nan]])
    values[0, 1] = nan if axis == 0 else 2.0
    np.testing.assert_array_equal(means_of_defined(values, axis), expected)
