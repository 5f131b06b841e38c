"""Values between the classes, settled as worked out by hand and against brute force."""

import numpy as np
import pytest

from medseg.io.formats.mask_values import UNKNOWN, at_least_half, full_or_unknown, nearest_values, rgb, whole_or_unknown
from medseg.io.labels import COLOUR

RED, BLUE = COLOUR | 0xFF0000, COLOUR | 0x0000FF


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_grey_values_go_to_the_nearest_class(dtype):
    pixels = np.array([[[0, 1, 60, 64, 65, 127, 128, 254, 255]]], dtype=dtype)
    expected = [[0, 0, 0, 0, 128, 128, 128, 255, 255]]
    assert nearest_values(pixels, [0, 255, 128]).tolist() == expected


def test_interpolated_labels_go_to_the_nearest_class():
    pixels = np.array([0.0, 0.3, 0.6, 1.9, 2.4, 2.6, 3.7, -0.2])[None, :, None, None]
    assert nearest_values(pixels, [0, 1, 4]).ravel().tolist() == [0, 0, 1, 1, 1, 4, 4, 0]


def test_colours_go_to_the_nearest_colour():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    known = [0, 255, BLUE, RED]
    colours = np.array([[0, 0, 0], [255, 255, 255], [0, 0, 255], [255, 0, 0]])
    apart = [((pixels - colour[:, None, None].astype(int)) ** 2).sum(axis=0) for colour in colours]
    np.testing.assert_array_equal(nearest_values(pixels, known), np.array(known)[np.argmin(apart, axis=0)])


def test_a_grey_picture_may_be_asked_for_colours():
    assert nearest_values(np.array([[[0, 200, 90]]], dtype=np.uint8), [0, 255, RED]).tolist() == [[0, 255, 0]]


def test_fractions_are_unknown_where_values_must_be_right():
    pixels = np.array([[[0, 0.99, 1.5, 4, 5e9]]])
    assert whole_or_unknown(pixels).tolist() == [[0, 1, UNKNOWN, 4, UNKNOWN]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_whole_values_stay_exactly(dtype):
    top = np.iinfo(dtype).max
    assert whole_or_unknown(np.array([[[0, 1, top - 1, top]]], dtype=dtype)).tolist() == [[0, 1, top - 1, top]]


@pytest.mark.parametrize("top", [255, 1.0])
def test_the_mask_of_one_class_is_cut_at_half_of_its_highest_value(top):
    pixels = np.array([[[0, 0.1, 0.45, 0.55, 1]]]) * top
    assert at_least_half(pixels).tolist() == [[0, 0, 0, 1, 1]]
    assert full_or_unknown(pixels).tolist() == [[0, UNKNOWN, UNKNOWN, UNKNOWN, 1]]


def test_noise_in_an_empty_mask_of_one_class_is_none():
    assert at_least_half(np.array([[[0, 0.01, 0.4]]])).tolist() == [[0, 0, 0]]


def test_colours_of_values():
    assert rgb(np.array([7, RED, COLOUR | 0x010203])).tolist() == [[7, 7, 7], [255, 0, 0], [1, 2, 3]]
