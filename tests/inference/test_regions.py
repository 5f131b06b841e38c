"""Overlapping regions painted into one mask, against masks made by hand."""

import numpy as np
import pytest
import torch

from medseg.inference.probabilities import Scorer
from medseg.inference.regions import Regions
from medseg.inference.segmenter import Segmenter
from medseg.io.labels import LabelMap
from medseg.preprocessing.geometry import whole

BRATS_2018 = LabelMap(
    {"background": 0, "necrosis": 1, "edema": 2, "enhancing": 4},
    {
        "WT": ["necrosis", "edema", "enhancing"],
        "TC": ["necrosis", "enhancing"],
        "ET": ["enhancing"],
    },
)
DISJOINT = LabelMap({"background": 0, "a": 7, "b": 3}, {"a": ["a"], "b": ["b"]})


def paint(label_map, *masks):
    regions = Regions.of(label_map)
    return label_map.decode(regions.paint([np.array(mask, bool) for mask in masks])).tolist()


def test_nested_regions_become_the_files_own_values():
    assert paint(BRATS_2018, [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]) == [0, 2, 1, 4]


def test_what_lies_outside_a_region_is_outside_its_parts():
    assert paint(BRATS_2018, [0, 1, 1], [1, 0, 1], [1, 1, 1]) == [0, 2, 4]


def test_an_order_of_painting_settles_what_regions_leave_open():
    labels = {"background": 0, "necrosis": 1, "edema": 2, "other": 3, "enhancing": 4}
    regions = {"WT": ["necrosis", "edema", "other", "enhancing"], "TC": ["necrosis", "other", "enhancing"]}
    label_map = LabelMap(labels, regions, ["edema", "necrosis"])
    assert paint(label_map, [0, 1, 1], [0, 0, 1]) == [0, 2, 1]


def test_no_regions():
    assert Regions.of(LabelMap({"background": 0, "a": 1})) is None
    assert Regions.of(DISJOINT).are_disjoint
    assert not Regions.of(BRATS_2018).are_disjoint


def logit(probabilities):
    return torch.tensor(probabilities, dtype=torch.float32).logit()


def segment(label_map, probabilities, **options):
    """Segment an image of one row whose "network" gives these probabilities (R, n)."""
    count = len(probabilities[0])
    segmenter = Segmenter(regions=Regions.of(label_map), **options)
    geometry = whole(np.eye(4), (1, count))
    scorer = Scorer(patch_size=[1, count], n_outputs=len(probabilities), regions=True)
    slabs = scorer([lambda patches: [logit(probabilities)[None, :, None]]], torch.zeros(1, 1, count), geometry)
    indices = segmenter(slabs, (1, count), spacing=(1.0, 1.0), unit="px")
    return label_map.decode(indices).ravel().tolist()


def test_each_region_has_a_threshold_of_its_own():
    probabilities = [[0.4, 0.6, 0.9, 0.9], [0.1, 0.4, 0.6, 0.9], [0.1, 0.1, 0.4, 0.8]]
    assert segment(BRATS_2018, probabilities) == [0, 2, 1, 4]
    assert segment(BRATS_2018, probabilities, threshold=0.7) == [0, 0, 2, 4]


def test_of_regions_that_exclude_each_other_the_likelier_wins():
    assert segment(DISJOINT, [[0.6, 0.9, 0.2], [0.9, 0.6, 0.3]]) == [3, 7, 0]


def test_post_processing_of_a_region_carries_over_to_its_parts():
    whole_tumour = [0.9, 0.9, 0.9, 0.1, 0.9]
    enhancing = [0.1, 0.1, 0.9, 0.1, 0.9]
    probabilities = [whole_tumour, enhancing, enhancing]
    assert segment(BRATS_2018, probabilities) == [2, 2, 4, 0, 4]
    assert segment(BRATS_2018, probabilities, postprocess={"largest": True}) == [2, 2, 4, 0, 0]


@pytest.mark.parametrize(
    ("regions", "order", "says"),
    [
        ({"WT": ["necrosis", "edemo"]}, None, "edemo.*Did you mean 'edema'"),
        ({"WT": []}, None, "WT has no classes"),
        ({"WT": ["necrosis", "edema"], "ET": ["enhancing"]}, None, "edema, necrosis would be painted.*region_order"),
        ({"ET": ["enhancing"]}, ["enhancing", "edema"], "a class for each of the 1 regions"),
        ({"ET": ["enhancing"]}, ["core"], "'core' is no foreground class"),
        ({"ET": ["background"]}, None, "'background' is no foreground class"),
    ],
)
def test_regions_that_cannot_be_used(regions, order, says):
    from medseg.errors import MedsegError

    with pytest.raises(MedsegError, match=says):
        LabelMap(BRATS_2018.labels, regions, order)
