"""Voxels inside and between, against a count voxel by voxel."""

import numpy as np
import pytest

from medseg.io.labels import IGNORE, LabelMap
from medseg.preprocessing.fingerprint import rims
from medseg.preprocessing.fingerprint.rims import inside_and_between

LABELS = LabelMap({"background": 5, "low": 0, "high": 9, "middle": 6})


def counted(truth):
    """Return both counts by looking at each voxel's neighbours."""
    values = np.array([5, 0, 9, 6])[truth]
    inside, between = np.zeros(4, int), np.zeros(4, int)
    for place in np.argwhere(truth > 0):
        pairs = []
        for step in np.eye(truth.ndim, dtype=int):
            both = [place - step, place + step]
            is_there = [(at >= 0).all() and (at < truth.shape).all() for at in both]
            pairs.append([values[tuple(at)] if there else None for at, there in zip(both, is_there, strict=True)])
        own, index = values[tuple(place)], truth[tuple(place)]
        inside[index] += all(value in (None, own) for pair in pairs for value in pair)
        between[index] += any(None not in pair and min(pair) < own < max(pair) for pair in pairs)
    return inside.tolist(), between.tolist()


@pytest.mark.parametrize("shape", [(25, 18), (9, 8, 7)])
@pytest.mark.parametrize("slab", [1 << 22, 20])
@pytest.mark.parametrize("order", ["C", "F"])
def test_neighbours_are_counted(monkeypatch, shape, slab, order):
    monkeypatch.setattr(rims, "SLAB", slab)
    generator = np.random.default_rng(1)
    truth = np.asarray(generator.integers(0, 4, shape), dtype=np.uint8, order=order)
    truth[generator.random(shape) < 0.5] = 1
    inside, between = inside_and_between(truth, LABELS)
    assert (inside.tolist(), between.tolist()) == counted(truth)
    assert inside.any()
    assert between.any()


def test_mixtures_lie_between_their_colours():
    labels = LabelMap(
        {"background": "#000000", "a": "#ff0000", "b": "#0000ff", "of_both": "#800080", "dark": "#00007f"}
    )
    truth = np.array([[1, 1, 3, 2, 2, 4, 0]], dtype=np.uint8)
    assert inside_and_between(truth, labels)[1].tolist() == [0, 0, 0, 1, 1]


def test_two_classes_and_empty_masks_have_nothing_between():
    truth = np.ones((4, 4), np.uint8)
    assert not np.any(inside_and_between(truth, LabelMap({"background": 0, "a": 1})))
    assert not np.any(inside_and_between(np.zeros((4, 4), np.uint8), LABELS))


def test_unknown_voxels_are_of_no_class():
    truth = np.full((4, 4), IGNORE, np.uint8)
    assert not np.any(inside_and_between(truth, LABELS))
