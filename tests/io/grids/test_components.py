"""Connected components, against scikit-image's."""

import numpy as np
import pytest
from skimage.measure import label

from medseg.io.grids.components import connected_components


@pytest.mark.parametrize("shape", [(30, 40), (1, 40), (12, 14, 16), (12, 14, 1), (1, 1, 9)])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_components_touch_by_a_corner_at_least(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    expected, count = label(mask, connectivity=len(shape), return_num=True)
    for array in (mask, np.asfortranarray(mask), np.pad(mask, 2)[(slice(2, -2),) * len(shape)]):
        numbers, n = connected_components(array)
        assert n == count
        np.testing.assert_array_equal(numbers, expected)
