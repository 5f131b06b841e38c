"""Quantised probabilities give the masks that the probabilities themselves give, at every threshold."""

from itertools import product

import numpy as np
import pytest
import torch

from medseg.inference.segmenter import Regions, Segmenter
from medseg.io.labels import LabelMap
from medseg.jobs.evaluate.trials import masks_of, quantised

LABELS = {"background": 0, "a": 1, "b": 2}
NESTED = LabelMap(LABELS, {"both": ["a", "b"], "b": ["b"]})
DISJOINT = LabelMap(LABELS, {"b": ["b"], "a": ["a"]})
LADDER = (0.3, 0.5, 0.7)


@pytest.mark.parametrize("label_map", [NESTED, DISJOINT])
@pytest.mark.parametrize("thresholds", list(product(LADDER, LADDER)))
def test_regions_come_out_as_from_probabilities(label_map, thresholds):
    regions = Regions.of(label_map)
    scores = torch.from_numpy(np.random.default_rng(0).random((2, 9, 8, 7), np.float32))
    for region in (0, 1):  # just on a threshold is not above it
        scores[region, 0, region, :3], scores[1 - region, 0, region, :3] = torch.tensor(LADDER), 0.1
    slabs = [(slice(0, 4), scores[..., :4]), (slice(4, 7), scores[..., 4:])]
    expected = Segmenter(regions=regions, thresholds=thresholds).predict_labels(iter(slabs), (9, 8, 7))
    levels = quantised(scores, LADDER, regions)
    assert levels.dtype == torch.uint8
    np.testing.assert_array_equal(masks_of(levels.numpy(), LADDER, thresholds, regions), expected)
    by_hand = scores > torch.tensor(thresholds)[:, None, None, None]
    if label_map is DISJOINT:
        by_hand &= scores == scores.max(0).values
        by_hand = (2 * by_hand[0].int()).maximum(by_hand[1].int())
    np.testing.assert_array_equal(expected, by_hand)
