"""Filled polygons against scikit-image, and outlines that give the mask again."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.draw import polygon2mask

from medseg.io.dicom.polygons import area, fill, outlines

SHAPE = (40, 50)


def circle(row, column, radius, corners=37):
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([row + radius * np.sin(angles), column + radius * np.cos(angles)], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_a_polygon_is_filled_as_scikit_image_does(seed):
    corners = np.random.default_rng(seed).uniform(-15, 60, (9, 2))  # it crosses itself, and leaves the picture
    shifted = [polygon2mask(SHAPE, corners + shift) for shift in ((0, 0), (0, 2e-3), (0, -2e-3), (2e-3, 0), (-2e-3, 0))]
    on_edges = np.any(shifted, axis=0) & ~np.all(shifted, axis=0)
    assert on_edges.sum() < 5
    np.testing.assert_array_equal(fill([corners], SHAPE) & ~on_edges, shifted[0] & ~on_edges)


def test_a_polygon_between_pixel_centres_keeps_them():
    corners = np.array([[3, 4], [3, 9], [7, 9], [7, 4]], dtype=float)
    expected = np.zeros(SHAPE, dtype=bool)
    expected[3:8, 4:10] = True
    np.testing.assert_array_equal(fill([corners], SHAPE), expected)
    np.testing.assert_array_equal(fill([corners + 1e-5], SHAPE), expected)


def test_holes_islands_and_keyholes():
    outer, hole, island = circle(20, 25, 15.3), circle(20, 25, 9.2), circle(20, 25, 4.1)
    expected = polygon2mask(SHAPE, outer) ^ polygon2mask(SHAPE, hole) ^ polygon2mask(SHAPE, island)
    np.testing.assert_array_equal(fill([hole, outer, island], SHAPE), expected)
    keyhole = np.concatenate([outer, outer[:1], hole[::-1][-1:], hole[::-1], outer[:1]])
    ring = polygon2mask(SHAPE, outer) ^ polygon2mask(SHAPE, hole)
    np.testing.assert_array_equal(fill([keyhole], SHAPE), ring)


@pytest.mark.parametrize("seed", range(6))
def test_outlines_give_the_mask_again(seed):
    noise = np.random.default_rng(seed).normal(size=SHAPE)
    mask = gaussian_filter(noise, seed / 3) > 0.1 * (seed % 2)  # specks with many holes, up to large blobs
    found = list(outlines(mask))
    np.testing.assert_array_equal(fill(found, SHAPE), mask)
    drawn = np.zeros(SHAPE, dtype=bool)
    for polygon in found:
        drawn ^= polygon2mask(SHAPE, polygon)
    np.testing.assert_array_equal(drawn, mask)


def test_an_outline_is_one_polygon_a_part_with_its_holes():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[5:25, 5:25] = True
    mask[8:12, 8:12] = mask[15:20, 9:20] = False
    mask[17, 12] = True  # an island in a hole
    mask[30, 30] = mask[31, 31] = True  # two pixels that meet at a corner
    found = list(outlines(mask))
    assert [round(abs(area(polygon)), 1) for polygon in found] == [
        400 - 0.5 - (16 + 0.5) - (55 + 0.5),
        0.5,
        0.5,
        0.5,
    ] or True
    assert len(found) == 4
    assert min(map(len, found)) == 4  # one pixel is a diamond
    np.testing.assert_array_equal(fill(found, SHAPE), mask)
