"""Surface distances against DeepMind's surface-distance, MONAI and SciPy."""

import warnings

import numpy as np
import pytest
import torch
from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric, SurfaceDistanceMetric
from numpy.testing import assert_allclose
from scipy.ndimage import distance_transform_edt

from medseg.evaluation.metrics import surfaces
from medseg.evaluation.metrics.surfaces import assd, element_sizes, hd95, nsd, surface_distances, to_nearest
from tests.evaluation.masks import random_pairs, some_mask

reference = pytest.importorskip("surface_distance")
SPACINGS = [(1.0, 1.0), (0.7, 3.0), (1.0, 1.0, 1.0), (0.7, 1.3, 5.0)]


def deepmind(prediction, truth, spacing, tolerance):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses old names of SciPy
        found = reference.compute_surface_distances(truth, prediction, spacing)
    areas = [found["surfel_areas_pred"].sum(), found["surfel_areas_gt"].sum()]
    to_prediction, to_truth = reference.compute_average_surface_distance(found)
    return (
        reference.compute_robust_hausdorff(found, 95),
        np.average([to_truth, to_prediction], weights=areas),
        reference.compute_surface_dice_at_tolerance(found, tolerance),
    )


def monai(prediction, truth, spacing, tolerance):
    metrics = (
        HausdorffDistanceMetric(include_background=True, percentile=95),
        SurfaceDistanceMetric(include_background=True, symmetric=True),
        SurfaceDiceMetric([tolerance], include_background=True),
    )
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own arguments
        return tuple(float(metric(*pair, spacing=spacing)) for metric in metrics)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.4])
@pytest.mark.parametrize(("axes", "number"), [(2, 120), (3, 80)])
@pytest.mark.parametrize(("kind", "wanted"), [("elements", deepmind), ("voxel", monai)])
def test_equal_to_the_reference(kind, wanted, axes, number, tolerance):
    for prediction, truth, spacing in random_pairs(axes, number):
        pair = surface_distances(prediction, truth, spacing, kind)
        found = hd95(pair), assd(pair), nsd(pair, tolerance)
        assert_allclose(found, wanted(prediction, truth, spacing, tolerance), atol=1e-3)


def test_equal_to_the_references_on_real_masks(real_data):
    import nibabel as nib

    files = sorted((real_data / "hippocampus" / "labelsTr").glob("*.nii.gz"))[:2]
    images = [nib.load(file) for file in files]
    shape = np.min([image.shape for image in images], axis=0)
    whole = tuple(slice(0, length) for length in shape)
    prediction, truth = (np.asarray(image.dataobj)[whole] > 0 for image in images)
    for kind, wanted in (("elements", deepmind), ("voxel", monai)):
        pair = surface_distances(prediction, truth, (1.0, 1.2, 0.9), kind)
        assert_allclose(
            [hd95(pair), assd(pair), nsd(pair, 2)], wanted(prediction, truth, (1.0, 1.2, 0.9), 2), atol=1e-3
        )


@pytest.mark.parametrize("spacing", SPACINGS)
def test_element_sizes_are_deepminds(spacing):
    tables = reference.lookup_tables
    if len(spacing) == 2:
        wanted = tables.create_table_neighbour_code_to_contour_length(spacing)
    else:
        wanted = tables.create_table_neighbour_code_to_surface_area(spacing)
    assert_allclose(element_sizes(spacing), wanted, atol=1e-9)


@pytest.mark.parametrize("dense", [0, 10**9], ids=["search tree", "transform"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_distances_are_exact_either_way(monkeypatch, dense, spacing):
    monkeypatch.setattr(surfaces, "DENSE", dense)
    random = np.random.default_rng(0)
    for _ in range(20):
        shape = random.integers(3, 20, len(spacing))
        start, goal = (np.pad(some_mask(shape, random), 1) for _ in range(2))
        wanted = distance_transform_edt(~goal, sampling=spacing)[start]
        assert_allclose(to_nearest(start, goal, spacing), wanted, rtol=1e-6)


def test_a_shifted_square():
    """By hand: of the 24 edge pixels of each of both squares 12 are shared, 2 are 1 mm away and 10 are 1.5 mm away."""
    truth, prediction = np.zeros((12, 12), bool), np.zeros((12, 12), bool)
    truth[2:9, 2:9] = prediction[3:10, 2:9] = True
    pair = surface_distances(prediction, truth, (1.5, 1.0), "voxel")
    assert hd95(pair) == 1.5
    assert assd(pair) == pytest.approx(17 / 24)
    assert [nsd(pair, tolerance) for tolerance in (0, 1, 1.4, 1.5)] == [12 / 24, 14 / 24, 14 / 24, 1]


@pytest.mark.parametrize("kind", ["elements", "voxel"])
def test_one_voxel_against_the_whole_volume(kind):
    truth, prediction = np.ones((5, 5, 5), bool), np.zeros((5, 5, 5), bool)
    prediction[2, 2, 2] = True
    away, back = surface_distances(prediction, truth, (1.0, 1.0, 2.0), kind)
    assert set(away.values) == {2.0}
    assert back.values.max() == pytest.approx(4.899, abs=1e-3)  # sqrt(2² + 2² + 4²)
    assert nsd((away, back), 10) == 1


def test_a_tolerance_that_distances_equal():
    """Seven times 0.1 is more than 0.7 in binary numbers."""
    truth, prediction = np.zeros((20, 3), bool), np.zeros((20, 3), bool)
    truth[2, 1] = prediction[9, 1] = True
    assert nsd(surface_distances(prediction, truth, (0.1, 1.0), "voxel"), 0.7) == 1


def test_noise_takes_no_more_memory_than_a_few_volumes(monkeypatch):
    """The mask of an untrained network is all surface."""
    import tracemalloc

    monkeypatch.setattr(surfaces, "CHUNK", 10_000)
    truth, prediction = np.zeros((80, 80, 80), bool), np.random.default_rng(0).random((80, 80, 80)) < 0.5
    truth[:2] = True
    wanted = deepmind(prediction[::2, ::2, ::2], truth[::2, ::2, ::2], (1.0, 2.0, 1.0), 1.0)
    found = surface_distances(prediction[::2, ::2, ::2], truth[::2, ::2, ::2], (1.0, 2.0, 1.0))
    assert_allclose((hd95(found), assd(found), nsd(found, 1.0)), wanted, atol=1e-3)
    tracemalloc.start()
    surface_distances(prediction, truth, (1.0, 1.0, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * truth.size
