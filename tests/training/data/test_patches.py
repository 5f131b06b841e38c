"""Which patches are drawn, and that they depend on nothing but their number."""

from collections import Counter
from math import prod

import pytest
import torch

from medseg.augmentation import Spatial
from medseg.config.settings import NetworkPlan
from medseg.training.data.patches import Patches, affordable, cut, draw_corner, margin_for


def make_case(shape, marked=(), false_positives=()):
    label = torch.zeros(shape, dtype=torch.uint8)
    locations = []
    for index, voxels in enumerate(marked, 1):
        voxels = torch.tensor(voxels, dtype=torch.int32)
        label[tuple(voxels.T.long())] = index
        locations.append(voxels)
    image = torch.arange(label.numel(), dtype=torch.float32).reshape(1, *shape)
    return {
        "image": image,
        "label": label,
        "locations": locations,
        "false_positives": torch.tensor(false_positives, dtype=torch.int32).reshape(-1, len(shape)),
        "annotated": torch.ones(3, dtype=torch.bool),
        "known": torch.zeros(0, len(shape)),
    }


def patch_of(volume, corner, size):
    """Cut a patch, into memory that holds something else before."""
    patch = torch.full((len(volume), *size), 99, dtype=volume.dtype)
    cut(volume, corner, patch)
    return patch


@pytest.fixture
def files(tmp_path):
    paths = []
    for number in range(5):
        case = make_case((20, 30), marked=[[[number, number]], [[19, 29], [18, 29], [17, 29]]])
        paths.append(tmp_path / f"{number}.pt")
        torch.save(case, paths[-1])
    return paths


def make_patches(files, **changes):
    arguments = {
        "patch_size": [8, 8],
        "foreground": 0.33,
        "seed": 7,
    }
    return Patches(files, **(arguments | changes))


def test_a_patch_is_the_same_whenever_it_is_drawn(files):
    one, two = make_patches(files), make_patches(files)
    assert [one[n]["image"].sum() for n in range(40)] == [two[n]["image"].sum() for n in reversed(range(40))][::-1]
    assert [one[n]["image"].sum() for n in range(40)] != [
        make_patches(files, seed=8)[n]["image"].sum() for n in range(40)
    ]


def test_all_cases_are_seen_equally_often(files):
    patches = make_patches(files)
    assert Counter(patches.case_of(n) for n in range(50)) == dict.fromkeys(range(5), 10)


@pytest.mark.parametrize(("share", "forced"), [(0.0, 0), (0.33, 33), (0.5, 50), (1.0, 100)])
def test_a_share_of_the_patches_shows_foreground(files, share, forced):
    patches = make_patches(files, foreground=share, patch_size=[2, 2])
    shown = sum(bool(patches[n]["label"].any()) for n in range(100))
    assert forced <= shown <= forced + 15  # few of the others meet any by chance


def test_classes_are_drawn_evenly_and_not_by_their_size():
    case = make_case((100, 100), marked=[[[5, 5]], [[90, j] for j in range(60)]])
    hits = Counter()
    for seed in range(400):
        corner = draw_corner(case, [4, 4], True, torch.Generator().manual_seed(seed))
        hits.update(patch_of(case["label"][None], corner, [4, 4]).unique().tolist())
    assert 150 < hits[1] < 250
    assert 150 < hits[2] < 250


def test_false_positives_of_a_first_stage_are_drawn_as_a_class_is_and_only_where_patches_are_forced():
    case = make_case((100, 100), marked=[[[5, 5]]], false_positives=[[90, j] for j in range(60)])
    corners = [draw_corner(case, [4, 4], True, torch.Generator().manual_seed(seed)) for seed in range(400)]
    assert {row for row, _ in corners} == {3, 88}
    assert 150 < sum(row == 88 for row, _ in corners) < 250
    free = [draw_corner(case, [4, 4], False, torch.Generator().manual_seed(seed)) for seed in range(400)]
    assert sum(row == 88 for row, _ in free) < 40


def test_where_little_is_known_patches_are_drawn_round_it():
    case = make_case((100, 100)) | {"known": torch.tensor([[50, 60]], dtype=torch.int32)}
    assert draw_corner(case, [10, 10], False, torch.Generator().manual_seed(0)) == [45, 55]


def test_context_is_cut_beside_the_patch(files):
    plain, wide = make_patches(files)[3], make_patches(files, context=[1, 2])[3]
    assert wide["image"].shape == (1, 10, 12)
    assert torch.equal(wide["image"][:, 1:-1, 2:-2], plain["image"])
    assert torch.equal(wide["label"][:, 1:-1, 2:-2], plain["label"])


def test_a_small_case_lies_in_the_middle_of_its_patch():
    case = make_case((4, 30))
    corner = draw_corner(case, [8, 8], False, torch.Generator().manual_seed(0))
    patch = patch_of(case["image"] + 1, corner, [8, 8])
    assert patch.shape == (1, 8, 8)
    assert (patch[:, 2:6] > 0).all()
    assert (patch[:, [0, 1, 6, 7]] == 0).all()


def test_patches_reach_every_corner_of_a_case():
    case = make_case((10, 12))
    corners = {tuple(draw_corner(case, [8, 8], False, torch.Generator().manual_seed(s))) for s in range(300)}
    assert corners == {(i, j) for i in range(3) for j in range(5)}


@pytest.fixture
def labels(tmp_path):
    for number, shape in enumerate([(20, 60, 40), (18, 64, 46)]):
        torch.save({"image": torch.zeros(1, *shape)}, tmp_path / f"{number}.pt")
    return sorted(tmp_path.iterdir())


def plan(patch, axis=None, context=0):
    return NetworkPlan(patch_size=patch, mirror_axes=[], slice_axis=axis, context=context)


def test_no_more_than_the_largest_case_has_beyond_the_patch(labels):
    spatial = Spatial(rotation=10, scale_probability=0)
    reach = spatial.reach([20, 40, 44])
    assert reach[1] < 24
    assert margin_for(spatial, labels, plan([20, 40, 44])) == [0, reach[1], 2]
    assert margin_for(spatial, labels, plan([32, 64, 48])) == [0, 0, 0], "every case fits"


def test_a_2d_network_takes_no_margin_across_its_slices(labels):
    margin = margin_for(Spatial(rotation=10), labels, plan([60, 40], axis=0, context=2))
    assert margin[0] == 0
    assert margin[1:] == [4, 6]


def test_without_a_reach_there_is_none(labels):
    assert margin_for(None, labels, plan([8, 8, 8])) == [0, 0, 0]
    assert margin_for(lambda image, label, draws: (image, label), labels, plan([8, 8, 8])) == [0, 0, 0]


@pytest.mark.parametrize(("margin", "patch"), [([130, 130], [256, 256]), ([90, 90, 90], [128, 128, 128])])
def test_a_patch_is_at_most_twice_as_large(margin, patch):
    taken = affordable(margin, patch)
    voxels = prod(p + 2 * m for p, m in zip(patch, taken, strict=True))
    assert 1.8 * prod(patch) < voxels <= 2 * prod(patch)
    assert affordable([2, 2], [256, 256]) == [2, 2]
