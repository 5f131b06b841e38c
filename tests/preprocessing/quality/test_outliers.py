"""Outliers among numbers made for it."""

import numpy as np
import pytest
from scipy.stats import median_abs_deviation

from medseg.preprocessing.quality.outliers import LEAST, odd_intensities, odd_sizes, robust_z


def test_robust_z_is_that_of_the_scaled_median_absolute_deviation():
    values = np.random.default_rng(0).normal(5, 2, 50)
    values[0] = 1e6
    expected = (values - np.median(values)) / median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(robust_z(values), expected, rtol=1e-4)
    assert robust_z([3, 3, 3, 9]).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_sizes_that_spread_by_factors_have_no_outliers(seed):
    assert not odd_sizes(np.random.default_rng(seed).lognormal(3, 1.2, 300)).any()


def test_a_size_far_from_the_others_is_an_outlier():
    sizes = np.random.default_rng(0).lognormal(3, 0.2, 30)
    sizes[[4, 9]] = 1000, 0.1
    z = odd_sizes(sizes)
    assert np.flatnonzero(z).tolist() == [4, 9]
    assert z[4] > 5
    assert z[9] < -5


def test_few_or_equal_sizes_have_no_outliers():
    assert not odd_sizes([1, 1, 1, 1, 100][: LEAST - 1]).any()
    assert np.flatnonzero(odd_sizes([10] * 20 + [14, 40])).tolist() == [21]


def test_an_offset_and_a_scale_that_one_case_alone_has():
    low, high = np.full(40, -1024.0), np.full(40, 1200.0) + np.arange(40)
    low[3], high[3] = 3000, 5200  # stored with another offset
    low[7], high[7] = -10.24, 12  # stored in other units
    texts = odd_intensities(low, high)
    assert [place for place, text in enumerate(texts) if text] == [3, 7]
    assert texts[3] == "begins at 3000, median -1024"
    assert texts[7] == "range 22.24, median 2244"


def test_mri_of_any_scale_says_nothing():
    high = np.random.default_rng(0).choice([300.0, 9000.0, 400000.0], 60)
    assert not any(odd_intensities(np.zeros(60), high))
