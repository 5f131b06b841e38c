"""Patches are cut larger by what rotation can use, by what the cases have, and by what is affordable."""

from math import prod

import pytest
import torch

from medseg.augmentation import Spatial
from medseg.training.data.margins import affordable, margin_for


@pytest.fixture
def files(tmp_path):
    for number, shape in enumerate([(20, 60, 40), (18, 64, 46)]):
        torch.save({"label": torch.zeros(shape, dtype=torch.uint8)}, tmp_path / f"{number}.pt")
    return sorted(tmp_path.iterdir())


def plan(patch, axis=None, context=0):
    return {"patch_size": patch, "slice_axis": axis, "context": context}


def test_no_more_than_the_largest_case_has_beyond_the_patch(files):
    spatial = Spatial(rotation=10, scale_probability=0)
    reach = spatial.reach([20, 40, 44])
    assert reach[1] < 24
    assert margin_for(spatial, files, plan([20, 40, 44])) == [0, reach[1], 2]
    assert margin_for(spatial, files, plan([32, 64, 48])) == [0, 0, 0], "every case fits"


def test_a_2d_network_takes_no_margin_across_its_slices(files):
    margin = margin_for(Spatial(rotation=10), files, plan([60, 40], axis=0, context=2))
    assert margin[0] == 0
    assert margin[1:] == [4, 6]


def test_without_a_reach_there_is_none(files):
    assert margin_for(None, files, plan([8, 8, 8])) == [0, 0, 0]
    assert margin_for(lambda image, label, draws: (image, label), files, plan([8, 8, 8])) == [0, 0, 0]


@pytest.mark.parametrize(("margin", "patch"), [([130, 130], [256, 256]), ([90, 90, 90], [128, 128, 128])])
def test_a_patch_is_at_most_twice_as_large(margin, patch):
    taken = affordable(margin, patch)
    voxels = prod(p + 2 * m for p, m in zip(patch, taken, strict=True))
    assert 1.8 * prod(patch) < voxels <= 2 * prod(patch)
    assert affordable([2, 2], [256, 256]) == [2, 2]
