"""Metrics of any two small masks: what they must obey, and the same worked out the slow way."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.ndimage import label

from medseg.evaluation.metrics.overlap import counts, dice, iou
from medseg.evaluation.metrics.registry import METRICS, Settings, measure, measure_case
from medseg.io.labels import IGNORE

TABLES = pytest.importorskip("surface_distance.lookup_tables")
STABLE = tuple(name for name in METRICS if name != "cldice")  # thinning depends on the order of the axes
AXES = st.integers(2, 3)
RULES = st.sampled_from(["overlap", "brats"])
SURFACES = st.sampled_from(["elements", "voxel"])
SWAPPED = {
    "sensitivity": "precision",
    "precision": "sensitivity",
    "lesion_sensitivity": "lesion_precision",
    "lesion_precision": "lesion_sensitivity",
}


@st.composite
def pairs(draw, dims=AXES):
    """Two masks (*spatial), sparse to full, perhaps empty, and a spacing."""
    shape = [draw(st.integers(1, 6)) for _ in range(draw(dims))]
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.9, 1.0])
    masks = [random.random(shape) < draw(shares) for _ in range(2)]
    spacing = draw(st.lists(st.floats(0.1, 10) | st.sampled_from([1.0, 3.0]), min_size=len(shape), max_size=len(shape)))
    return (*masks, spacing)


def measured(prediction, truth, spacing, **options):
    return measure(prediction, truth, spacing=spacing, voxel_size=0.5, settings=Settings(STABLE, **options))


def assert_same(found, expected):
    assert_allclose([found[name] for name in expected], list(expected.values()), rtol=1e-9, atol=1e-9)


@given(pairs())
def test_dice_and_iou_are_those_of_sets(pair):
    prediction, truth, spacing = pair
    found = measured(prediction, truth, spacing)
    first, second = ({*map(tuple, np.argwhere(mask))} for mask in (prediction, truth))
    if not first | second:
        assert np.isnan([value for name, value in found.items() if name != "volume_difference"]).all()
        assert found["volume_difference"] == 0
        return
    assert_allclose(found["iou"], len(first & second) / len(first | second))
    assert_allclose(found["dice"], 2 * found["iou"] / (1 + found["iou"]))
    assert_allclose(found["volume_difference"], 0.5 * (len(first) - len(second)))
    assert_allclose(found["sensitivity"], len(first & second) / len(second) if second else np.nan)
    assert_allclose(found["precision"], len(first & second) / len(first) if first else np.nan)


@given(st.integers(2, 5), st.integers(0, 2**32 - 1), st.data())
def test_counts_of_classes_are_those_of_each_mask_without_unknown_voxels(n_classes, seed, data):
    random = np.random.default_rng(seed)
    shape = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    prediction, truth = random.integers(0, n_classes, (2, *shape)).astype(np.uint8)
    truth[random.random(shape) < 0.2] = IGNORE
    unions = data.draw(st.lists(st.sets(st.integers(0, n_classes - 1), min_size=1).map(sorted), max_size=3))
    expected = []
    for union in unions:
        p, g = (np.isin(mask, union) & (truth != IGNORE) for mask in (prediction, truth))
        expected.append([(p & g).sum(), p.sum(), g.sum()])
    found = counts(prediction, truth, n_classes, unions)
    assert found.tolist() == np.array(expected).reshape(-1, 3).tolist()
    overlap = dice(found)
    assert_allclose(iou(found), overlap / (2 - overlap))


@given(pairs(), SURFACES, RULES)
def test_of_a_mask_and_itself_all_is_perfect(pair, surface, rule):
    mask, _, spacing = pair
    found = measured(mask, mask, spacing, surface=surface, lesions=rule)
    if not mask.any():
        return
    perfect = {"higher": 1.0, "lower": 0.0, "zero": 0.0}
    for name, value in found.items():
        assert value == perfect[METRICS[name].better] or (rule == "brats" and np.isnan(value)), name


@given(pairs(), SURFACES, RULES, st.data())
def test_flips_and_the_order_of_axes_change_nothing(pair, surface, rule, data):
    prediction, truth, spacing = pair
    order = data.draw(st.permutations(range(truth.ndim)))
    flips = tuple(data.draw(st.sets(st.integers(0, truth.ndim - 1))))
    turned = (np.flip(mask, flips).transpose(order) for mask in (prediction, truth))
    found = measured(*turned, [spacing[axis] for axis in order], surface=surface, lesions=rule)
    expected = measured(prediction, truth, spacing, surface=surface, lesions=rule)
    assert_same(found, expected)


@given(pairs(), SURFACES)
def test_prediction_and_truth_may_change_places(pair, surface):
    prediction, truth, spacing = pair
    found = measured(prediction, truth, spacing, surface=surface)
    swapped = measured(truth, prediction, spacing, surface=surface)
    for name in ("dice", "iou", "hd95", "assd", "nsd", "lesion_f1", *SWAPPED):
        assert_allclose(swapped[SWAPPED.get(name, name)], found[name], atol=1e-9)
    assert swapped["volume_difference"] == -found["volume_difference"]


@given(pairs(), SURFACES, st.integers(-6, 6))
def test_distances_grow_with_the_voxels(pair, surface, power):
    # By powers of two alone: by others sums of areas round differently, and a surface of which exactly 95 % lie within
    # a distance then has that one or the next as its HD95, as in DeepMind's reference.
    factor = 2.0**power
    prediction, truth, spacing = pair
    found = measured(prediction, truth, [factor * step for step in spacing], surface=surface, nsd_mm=2 * factor)
    expected = measured(prediction, truth, spacing, surface=surface, nsd_mm=2.0)
    for name in ("hd95", "assd"):
        assert_allclose(found[name], factor * expected[name], rtol=1e-6)
    assert_allclose(found["nsd"], expected["nsd"], rtol=1e-6)


@given(pairs(), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=3), SURFACES, RULES)
def test_background_round_the_masks_changes_nothing(pair, widths, surface, rule):
    prediction, truth, spacing = pair
    padded = (np.pad(mask, widths[: truth.ndim]) for mask in (prediction, truth))
    found = measured(*padded, spacing, surface=surface, lesions=rule)
    assert_same(found, measured(prediction, truth, spacing, surface=surface, lesions=rule))


@given(pairs(st.just(2)), st.integers(0, 2))
def test_a_volume_of_one_slice_is_measured_as_its_picture(pair, axis):
    prediction, truth, spacing = pair
    options = {"voxel_size": 1.0, "settings": Settings(STABLE)}
    thick = [*spacing[:axis], 7.0, *spacing[axis:]]
    masks = [mask.astype(np.uint8) for mask in (prediction, truth)]
    if 1 in masks[0].shape:
        return
    (flat,) = measure_case(*masks, [(1,)], spacing=spacing, **options)
    (slab,) = measure_case(*(np.expand_dims(mask, axis) for mask in masks), [(1,)], spacing=thick, **options)
    assert_same(slab, flat)


def edge(mask):
    """Voxels of a mask with a neighbour across a face that is not of it, one by one."""
    inside = {*map(tuple, np.argwhere(mask))}
    steps = [step for step in product((-1, 0, 1), repeat=mask.ndim) if sum(map(abs, step)) == 1]
    return [voxel for voxel in sorted(inside) if any(tuple(np.add(voxel, step)) not in inside for step in steps)]


@given(pairs(), st.floats(0.05, 20))
def test_distances_of_edge_voxels_are_those_of_every_pair(pair, tolerance):
    prediction, truth, spacing = pair
    found = measured(prediction, truth, spacing, surface="voxel", nsd_mm=tolerance)
    if not (prediction.any() and truth.any()):
        assert np.isnan([found["hd95"], found["assd"]]).all()
        return
    places = [np.array(edge(mask)) * spacing for mask in (prediction, truth)]
    distances = np.sqrt(((places[0][:, None] - places[1][None]) ** 2).sum(-1))
    each = distances.min(1), distances.min(0)
    both = np.concatenate(each)
    assert_allclose(found["hd95"], max(np.percentile(way, 95) for way in each), rtol=1e-6)
    assert_allclose(found["assd"], both.mean(), rtol=1e-6, atol=1e-9)
    below, above = ((both <= tolerance * (1 + slack)).mean() for slack in (-1e-5, 1e-5))
    assert below <= found["nsd"] <= above


def elements(mask, spacing):
    """The corners of voxels where a surface runs, in mm, and how much of it: from DeepMind's table, one by one."""
    padded = np.pad(mask, 1)
    tables = (TABLES.create_table_neighbour_code_to_contour_length, TABLES.create_table_neighbour_code_to_surface_area)
    sizes = tables[mask.ndim - 2](spacing)
    places, weights = [], []
    for corner in product(*[range(length - 1) for length in padded.shape]):
        around = padded[tuple(slice(start, start + 2) for start in corner)].ravel()
        code = int("".join("01"[int(bit)] for bit in around), 2)
        if 0 < code < 2 ** len(around) - 1:
            places.append(np.array(corner) * spacing)
            weights.append(sizes[code])
    return np.array(places), np.array(weights)


@given(pairs(), st.floats(0.05, 20))
def test_distances_of_surface_elements_are_those_of_every_pair(pair, tolerance):
    prediction, truth, spacing = pair
    if not (prediction.any() and truth.any()):
        return
    found = measured(prediction, truth, spacing, nsd_mm=tolerance)
    (first, first_sizes), (second, second_sizes) = (elements(mask, spacing) for mask in (prediction, truth))
    distances = np.sqrt(((first[:, None] - second[None]) ** 2).sum(-1))
    each = (distances.min(1), first_sizes), (distances.min(0), second_sizes)
    both, sizes = (np.concatenate(values) for values in zip(*each, strict=True))
    assert_allclose(found["assd"], (both * sizes).sum() / sizes.sum(), rtol=1e-6, atol=1e-9)
    below, above = (sizes[both <= tolerance * (1 + slack)].sum() / sizes.sum() for slack in (-1e-5, 1e-5))
    assert below - 1e-9 <= found["nsd"] <= above + 1e-9
    # the distance within which 95 % of each surface lies, give or take the rounding of their sums
    shares = [
        [own_sizes[own <= found["hd95"] * (1 + slack)].sum() / own_sizes.sum() for own, own_sizes in each]
        for slack in (-1e-5, 1e-5)
    ]
    assert min(shares[1]) >= 0.95 - 1e-9
    assert min(shares[0]) < 0.95 + 1e-9 or found["hd95"] == 0


def parts(mask):
    """The connected components of a mask as sets of voxels, across faces, edges and corners: grown one by one."""
    left, found = {*map(tuple, np.argwhere(mask))}, []
    steps = [step for step in product((-1, 0, 1), repeat=mask.ndim) if any(step)]
    while left:
        front = [left.pop()]
        part = set(front)
        while front:
            voxel = front.pop()
            near = {tuple(np.add(voxel, step).tolist()) for step in steps} & left
            left -= near
            part |= near
            front += near
        found.append(part)
    return found


@given(pairs())
def test_lesions_are_connected_components_that_share_a_voxel(pair):
    prediction, truth, spacing = pair
    found = measured(prediction, truth, spacing)
    lesions, predicted = parts(truth), parts(prediction)
    assert (len(lesions), len(predicted)) == tuple(label(m, np.ones((3,) * m.ndim))[1] for m in (truth, prediction))
    own = [[part for part in predicted if part & lesion] for lesion in lesions]
    wrong = sum(not any(part & lesion for lesion in lesions) for part in predicted)
    scores = [
        2 * sum(len(part & lesion) for part in mine) / (len(lesion) + sum(map(len, mine)))
        for lesion, mine in zip(lesions, own, strict=True)
    ]
    sensitivity = sum(map(bool, own)) / len(lesions) if lesions else np.nan
    precision = 1 - wrong / len(predicted) if predicted else np.nan
    assert_allclose(found["lesion_sensitivity"], sensitivity)
    assert_allclose(found["lesion_precision"], precision)
    n = len(lesions) + wrong
    assert_allclose(found["lesion_dice"], sum(scores) / n if n else np.nan)
    if lesions and predicted:
        both = sensitivity + precision
        assert_allclose(found["lesion_f1"], 2 * sensitivity * precision / both if both else 0)
