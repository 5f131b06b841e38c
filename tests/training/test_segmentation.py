"""What regions are compared with, by hand."""

import torch

from medseg.io.labels import IGNORE
from medseg.training.segmentation import region_targets

REGIONS = [(1, 2), (2,)]
ALL = torch.ones(1, 3, dtype=torch.bool)


def test_classes_become_regions_and_the_unknown_stays_unknown():
    label = torch.tensor([[[0, 1, 2, IGNORE]]], dtype=torch.uint8)
    assert region_targets(label, ALL, REGIONS).tolist() == [[[0, 1, 1, IGNORE], [0, 0, 1, IGNORE]]]


def test_a_region_is_unknown_where_one_of_its_classes_was_not_annotated():
    label = torch.tensor([[[0, 2]], [[0, 2]], [[1, 2]]], dtype=torch.uint8)
    annotated = torch.tensor([[True, True, True], [True, False, True], [True, True, False]])
    assert region_targets(label, annotated, REGIONS).tolist() == [
        [[0, 1], [0, 1]],
        [[IGNORE, IGNORE], [0, 1]],
        [[IGNORE, IGNORE], [IGNORE, IGNORE]],
    ]
