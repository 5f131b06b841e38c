"""nnU-Net's window weights, against SciPy's filter, with which nnU-Net makes them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medseg.inference.nnunet.windows import weights


@pytest.mark.parametrize("patch", [(16, 24), (9, 8, 16), (1, 32, 40)])
def test_weights(patch):
    point = np.zeros(patch)
    point[tuple(size // 2 for size in patch)] = 1
    blurred = gaussian_filter(point, [size / 8 for size in patch], mode="constant")
    expected = np.maximum(blurred / blurred.max(), 2.0**-24 / 10)
    np.testing.assert_allclose(weights(patch), expected, rtol=1e-4)
