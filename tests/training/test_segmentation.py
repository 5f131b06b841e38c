"""What regions are compared with, by hand; validation cases that are predicted and counted at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.io.labels import IGNORE, LabelMap
from medseg.preprocessing.geometry import Geometry
from medseg.training.segmentation import SegmentationModule, region_table, region_targets

HANGS = 300.0
"""Seconds after which a test is taken to hang."""

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


class Segmenter:
    """Labels are those of the case, and cleaning one waits until the next is predicted, where there is one."""

    def __init__(self, cases):
        self.next_begun = [threading.Event() for _ in range(cases)]
        self.next_begun[-1].set()
        self.predicted = 0
        self.spoilt = None  # the case that cannot be cleaned

    def predict_labels(self, slabs, shape):
        if self.predicted:
            self.next_begun[self.predicted - 1].set()
        self.predicted += 1
        return np.full(shape, self.predicted - 1, np.uint8)

    def clean(self, labels, **options):
        number = int(labels[0, 0])
        assert self.next_begun[number].wait(HANGS)
        if number == self.spoilt:
            raise MedsegError("no room to clean it")
        return labels


@pytest.fixture
def validation():
    """Return what validates three cases of two by two voxels, on stand-ins for what predicts them."""
    module = SimpleNamespace(
        scorer=lambda networks, image, geometry: iter(()),
        segmenter=Segmenter(3),
        label_map=LabelMap({"background": 0, "a": 1, "b": 2}),
        final_logits=None,
        case_counts={},
        measured=None,
        thread=ThreadPoolExecutor(1),
    )
    module.measure = partial(SegmentationModule.measure, module)
    geometry = Geometry((2, 2), (0, 1), (False, False), ((0, 2), (0, 2)), (2, 2)).to_dict()
    shared = {"geometry": geometry, "spacing": [1, 1], "unit": "px", "voxel_volume": 1.0}
    shared |= {"image": torch.zeros(1, 2, 2), "annotated": torch.ones(3, dtype=torch.bool)}

    def step(index):
        case = {**shared, "index": index, "truth": np.full((2, 2), index, np.uint8)}
        return SegmentationModule.validation_step(module, case, index)["predicted"]

    yield module, step
    module.thread.shutdown()


def test_a_case_is_counted_while_the_next_is_predicted(validation):
    module, step = validation
    masks = [step(index) for index in range(3)]
    assert [int(mask.result()[0, 0]) for mask in masks] == [0, 1, 2]
    assert {index: counts.tolist() for index, counts in module.case_counts.items()} == {
        0: [[0, 0, 0], [0, 0, 0]],
        1: [[4, 4, 4], [0, 0, 0]],
        2: [[0, 0, 0], [4, 4, 4]],
    }


def test_what_goes_wrong_with_a_case_ends_the_validation(validation):
    module, step = validation
    module.segmenter.spoilt = 0
    step(0)
    with pytest.raises(MedsegError, match="no room"):
        step(1)
