"""What regions are compared with, by hand."""

import torch

from medseg.io.labels import IGNORE
from medseg.training.segmentation import region_table, region_targets

TABLE = region_table([(1, 2), (2,)])
ALL = torch.ones(1, 3, dtype=torch.bool)


def test_classes_become_regions_and_the_unknown_stays_unknown():
    label = torch.tensor([[[0, 1, 2, IGNORE]]], dtype=torch.uint8)
    assert region_targets(label, ALL, TABLE).tolist() == [[[0, 1, 1, IGNORE], [0, 0, 1, IGNORE]]]


def test_a_region_is_unknown_where_one_of_its_classes_was_not_annotated():
    label = torch.tensor([[[0, 2]], [[0, 2]], [[1, 2]]], dtype=torch.uint8)
    annotated = torch.tensor([[True, True, True], [True, False, True], [True, True, False]])
    assert region_targets(label, annotated, TABLE).tolist() == [
        [[0, 1], [0, 1]],
        [[IGNORE, IGNORE], [0, 1]],
        [[IGNORE, IGNORE], [IGNORE, IGNORE]],
    ]


def test_targets_are_those_of_sets_of_classes():
    generator = torch.Generator().manual_seed(0)
    regions = [(1, 2, 3), (1, 3), (3,)]
    label = torch.randint(5, (2, 1, 4, 5, 6), generator=generator, dtype=torch.uint8)
    label[label == 4] = IGNORE
    annotated = torch.tensor([[True, True, True, True], [True, True, False, True]])
    targets = region_targets(label, annotated, region_table(regions))
    assert targets.dtype == torch.uint8
    for sample in range(2):
        known = {index for index, is_annotated in enumerate(annotated[sample].tolist()) if is_annotated}
        for number, members in enumerate(regions):
            expected = [
                IGNORE if index == IGNORE or not known.issuperset(members) else int(index in members)
                for index in label[sample].flatten().tolist()
            ]
            assert targets[sample, number].flatten().tolist() == expected
