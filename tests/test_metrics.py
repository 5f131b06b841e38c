"""Metrics of masks in memory: the same as in reports, by class, with the user's own names."""

import math

import numpy as np
import pytest
import torch

import medseg
from medseg.evaluation.metrics.registry import PRESETS
from medseg.io.labels import LabelMap


@pytest.fixture
def masks():
    reference = np.zeros((12, 12, 6), np.int64)
    reference[2:8, 2:8, 1:5] = 1
    reference[4:6, 4:6, 2:4] = 2
    prediction = np.roll(reference, 1, axis=0)
    prediction[0, 0, 0] = 4
    return prediction, reference


def test_every_class_is_measured_under_its_number(masks):
    measured = medseg.metrics.measure(*masks, spacing=(1, 1, 2.5))
    assert list(measured) == ["1", "2", "4"]
    assert list(measured["1"]) == list(PRESETS["full"])
    common = np.count_nonzero((masks[0] == 1) & (masks[1] == 1))
    assert measured["1"]["dice"] == pytest.approx(2 * common / 272)
    assert measured["2"] | {"dice": 0.5, "hd95": 1.0, "volume_difference": 0.0} == measured["2"]
    assert measured["4"]["volume_difference"] == pytest.approx(0.0025)
    assert measured["4"]["dice"] == 0
    assert math.isnan(measured["4"]["hd95"])


def test_classes_have_names_and_may_be_regions(masks):
    regions = LabelMap({"background": 0, "edema": 1, "core": 2}, regions={"whole": ["edema", "core"], "core": ["core"]})
    measured = medseg.metrics.measure(*masks, spacing=(1, 1, 1), classes=regions.reported, names=["iou"])
    assert list(measured) == ["whole", "core"]
    assert measured["whole"]["dice"] == pytest.approx(5 / 6)
    assert measured["core"]["iou"] == pytest.approx(1 / 3)


def test_unknown_voxels_are_left_out_and_a_mask_of_one_class_is_enough():
    reference = torch.zeros(8, 8, dtype=torch.uint8)
    reference[:4] = 1
    reference[:2] = 255
    measured = medseg.metrics.measure(reference == 1, reference, (1, 1), missed_mm=100.0)
    assert measured["1"]["dice"] == 1.0
    assert medseg.metrics.measure(reference == 9, reference, (1, 1), missed_mm=100.0)["1"]["hd95"] == 100.0


@pytest.mark.parametrize(
    ("shape", "spacing", "options", "message"),
    [
        ((8, 8), (1, 1, 1), {}, "two or three axes"),
        ((8, 8, 8), (1, 1), {}, r"spacing \(1, 1\)"),
        ((8, 8), (1, 0), {}, "mm between voxels"),
        ((8, 9), (1, 1), {}, r"prediction \(8, 9\), reference \(8, 8\)"),
        ((8, 8), (1, 1), {"names": "ful"}, r"metrics\.names='ful': .*Did you mean 'full'"),
        ((8, 8), (1, 1), {"nsd_mm": -1.0}, r"metrics\.nsd_mm=-1\.0: must be"),
    ],
)
def test_what_does_not_fit_is_named(shape, spacing, options, message):
    reference = np.zeros((8, 8, 8) if len(shape) == 3 else (8, 8), int)
    with pytest.raises(medseg.MedsegError, match=message):
        medseg.metrics.measure(np.zeros(shape, int), reference, spacing, **options)


@pytest.mark.parametrize("wrong", [np.full((4, 4), 0.5), np.full((4, 4), 256), np.full((4, 4), -1)])
def test_what_is_no_class_index_is_named(wrong):
    with pytest.raises(medseg.MedsegError, match=r"prediction: .* are no class indices"):
        medseg.metrics.measure(wrong, np.zeros((4, 4), int), (1, 1))
