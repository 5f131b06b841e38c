"""Discs and stripes: the one bears a coarser grid, the other does not."""

import numpy as np
import pytest

from medseg.preprocessing.fingerprint.pixel_size import coarsest, fidelity
from medseg.preprocessing.geometry import whole


def geometry(shape):
    return whole(np.eye(4), shape)


def disc(radius):
    rows, columns = np.ogrid[:256, :256]
    return ((rows - 128) ** 2 + (columns - 120) ** 2 < radius**2).astype(np.uint8)


def test_a_large_object_bears_a_coarser_grid_and_thin_ones_do_not():
    large, small = (fidelity(disc(radius), geometry((256, 256)), 2) for radius in (60, 8))
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::4] = 1
    thin = fidelity(stripes, geometry((256, 256)), 2)
    assert large[0] > 0.98
    assert large[0] > large[1] > large[2] > small[2]
    assert thin[0] < 0.9


def test_blocks_that_the_coarser_grid_holds_are_kept_exactly():
    blocks = np.kron(np.arange(16).reshape(4, 4) % 3, np.ones((64, 64))).astype(np.uint8)
    assert fidelity(blocks, geometry((256, 256)), 3)[0] > 0.99


def test_an_empty_mask_has_no_say():
    assert np.isnan(fidelity(np.zeros((64, 64), np.uint8), geometry((64, 64)), 2)).all()


@pytest.mark.parametrize(
    ("fidelities", "shortest", "factor"),
    [
        ([(0.99, 0.97, 0.96)], 1000, 4),
        ([(0.99, 0.97, 0.96)], 250, 2),
        ([(0.99, 0.97, 0.90), (0.95, 0.94, 0.9)], 1000, 2),
        ([(0.95, 0.90, 0.80)], 1000, 1),
    ],
)
def test_the_coarsest_grid_that_masks_bear(fidelities, shortest, factor):
    assert coarsest(fidelities, shortest) == factor
