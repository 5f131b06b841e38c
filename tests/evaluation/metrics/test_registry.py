"""What a case's metrics are where masks are empty, tiny or everything, and that they are put together rightly."""

from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pytest

from medseg.config.settings import METRICS as NAMES
from medseg.config.settings import MetricsSettings
from medseg.evaluation.metrics.registry import (
    METRICS,
    PRESETS,
    Settings,
    is_distance,
    measure,
    measure_case,
    settings_of,
)
from medseg.io.labels import IGNORE

ALL = Settings(tuple(METRICS))
SHAPES = [(6, 7), (5, 6, 7)]
SHARES = {name for name, metric in METRICS.items() if not metric.unit}
DISTANCES = {name for name in METRICS if is_distance(name)}
CHOICES = [
    replace(ALL, surface=surface, lesions=lesions, missed_mm=missed)
    for surface in ("elements", "voxel")
    for lesions, missed in (("overlap", None), ("brats", 374.0))
]


def measured(prediction, truth, settings=ALL):
    return measure(prediction, truth, spacing=(1.5,) * truth.ndim, voxel_size=0.5, settings=settings)


def masks(shape):
    """Nothing, one voxel and everything."""
    one = np.zeros(shape, bool)
    one[(2,) * len(shape)] = True
    return np.zeros(shape, bool), one, np.ones(shape, bool)


def test_the_keys_name_all_metrics():
    assert tuple(METRICS) == NAMES
    assert all(set(names) <= set(METRICS) for names in PRESETS.values())


@pytest.mark.parametrize("settings", CHOICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_empty(shape, settings):
    nothing, _, _ = masks(shape)
    wanted = dict.fromkeys(METRICS, nan) | {"volume_difference": 0.0}
    np.testing.assert_equal(measured(nothing, nothing, settings), wanted)


@pytest.mark.parametrize("settings", CHOICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_empty_prediction(shape, settings):
    nothing, _, whole = masks(shape)
    found = measured(nothing, whole, settings)
    missed = nan if settings.missed_mm is None else settings.missed_mm
    undefined = {"precision", "lesion_precision"}
    assert whole.sum() * 1.5**whole.ndim > 50  # or BraTS's rule would not count it
    wanted = dict.fromkeys(SHARES, 0.0) | dict.fromkeys(undefined, nan) | dict.fromkeys(DISTANCES, missed)
    wanted |= {"volume_difference": -0.5 * whole.size, "relative_volume_difference": -100.0}
    np.testing.assert_equal(found, {name: wanted[name] for name in found})


@pytest.mark.parametrize("settings", CHOICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_empty_truth(shape, settings):
    nothing, one, _ = masks(shape)
    missed = nan if settings.missed_mm is None else settings.missed_mm
    undefined = {"sensitivity", "lesion_sensitivity", "relative_volume_difference"}
    wanted = dict.fromkeys(SHARES, 0.0) | dict.fromkeys(undefined, nan) | dict.fromkeys(DISTANCES, missed)
    wanted |= {"volume_difference": 0.5}
    found = measured(one, nothing, settings)
    np.testing.assert_equal(found, {name: wanted[name] for name in found})


@pytest.mark.parametrize("surface", ["elements", "voxel"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("which", [1, 2], ids=["one voxel", "whole volume"])
def test_the_same_mask_twice(which, shape, surface):
    mask = masks(shape)[which]
    found = measured(mask, mask, replace(ALL, surface=surface))
    best = dict.fromkeys(METRICS, 0.0) | dict.fromkeys(SHARES, 1.0)
    assert found == pytest.approx(best)


@pytest.mark.parametrize("settings", CHOICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_voxel_of_a_whole_volume(shape, settings):
    _, one, whole = masks(shape)
    found = measured(one, whole, settings)
    assert found["dice"] == found["lesion_dice"] == pytest.approx(2 / (1 + whole.size))
    assert found["precision"] == found["lesion_precision"] == found["lesion_f1"] == found["lesion_sensitivity"] == 1
    assert found["hd95"] == found["lesion_hd95"] > found["assd"] > 1.5
    assert not any(np.isnan(value) for value in found.values())


def test_only_what_is_asked_for_is_measured(monkeypatch):
    monkeypatch.setattr("medseg.evaluation.metrics.registry.surface_distances", None)
    monkeypatch.setattr("medseg.evaluation.metrics.registry.cldice", None)
    _, one, whole = masks((4, 4))
    assert list(measured(one, whole, Settings(("iou", "lesion_f1")))) == ["iou", "lesion_f1"]


def test_presets():
    chosen = MetricsSettings(names=("brats",), nsd_mm=2, surface="voxel", lesions=None, missed_mm=None, strata=[])
    assert settings_of(chosen) == Settings(PRESETS["brats"], 2, "voxel", "brats", 374.0)
    assert settings_of(replace(chosen, missed_mm=100, lesions="overlap")).missed_mm == 100
    full = settings_of(replace(chosen, names=("full", "lesion_hd95")))
    assert (set(full.names), full.lesions, full.missed_mm) == (set(METRICS), "overlap", None)


def test_a_case_is_measured_as_its_whole_masks_are():
    random = np.random.default_rng(0)
    prediction, truth = (
        random.choice(5, (20, 22, 18), p=[0.9, 0.04, 0.03, 0.03, 0]).astype(np.uint8) for _ in range(2)
    )
    prediction[:, :12], truth[:, 14:] = 0, 0
    truth[5, 5] = IGNORE
    unions = [(1,), (2, 3), (4,)]
    for settings in CHOICES:
        found = measure_case(prediction, truth, unions, spacing=(1.0, 2.0, 0.5), voxel_size=1.0, settings=settings)
        for union, own in zip(unions, found, strict=True):
            known = truth != IGNORE
            pair = (np.isin(mask, union) & known for mask in (prediction, truth))
            wanted = measure(*pair, spacing=(1.0, 2.0, 0.5), voxel_size=1.0, settings=settings)
            assert own == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("axis", range(3))
def test_a_single_slice_is_measured_as_a_picture(axis):
    random = np.random.default_rng(0)
    slices = [(random.random((12, 14)) < 0.7).astype(np.uint8) for _ in range(2)]
    spacing = np.insert([1.5, 0.5], axis, 8.0)
    flat = measure_case(*slices, [(1,)], spacing=(1.5, 0.5), voxel_size=1.0, settings=ALL)
    deep = [np.expand_dims(mask, axis) for mask in slices]
    assert measure_case(*deep, [(1,)], spacing=spacing, voxel_size=1.0, settings=ALL) == flat


def test_the_nuclei_against_themselves_shifted_by_a_pixel(real_data):
    """No place of either outline moves by more than a pixel, but where the picture's frame cuts it."""
    from PIL import Image

    for path in sorted((real_data / "nuclei" / "masks").iterdir()):
        mask = (np.asarray(Image.open(path).convert("L")) > 0).astype(np.uint8)
        mask[-1] = 0
        moved = np.roll(mask, 1, axis=0)
        (found,) = measure_case(moved, mask, [(1,)], spacing=(1.0, 1.0), voxel_size=1.0, settings=ALL)
        assert found["nsd"] == 1
        assert 0 < found["assd"] < found["hd95"] <= 1
        assert found["volume_difference"] == 0
        assert found["lesion_sensitivity"] == found["lesion_precision"] == found["lesion_f1"] > 0.9
        assert 0 < found["dice"] < 1
        assert 0 < found["cldice"] <= 1


def test_the_documentation_names_all_metrics_and_presets():
    text = (Path(__file__).parents[3] / "docs" / "reference/metrics.md").read_text("utf-8")
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")] == list(METRICS)
    assert all(f"`{name}`" in text for name in PRESETS)
