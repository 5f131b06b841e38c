"""The plan against nnU-Net's own for hippocampus, and against values worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.preprocessing.fingerprint import CaseFingerprint, Fingerprint
from medseg.preprocessing.plan import fit_patch, limit, make_plan, mirror_axes, topology

CONFIG = {
    "model": {"_target_": "medseg.models.UNet", "spatial_dims": None, "depth": None, "base_channels": None},
    "preprocessing": {"spacing": None, "resize": None, "normalize": None, "window": None, "crop": True},
    "plan": {"patch_size": None, "strides": None, "kernel_sizes": None},
}


def make_fingerprint(shapes, spacing, *, channels=1, unit="mm"):
    intensities = np.linspace(-1000, 1000, 2001, dtype=np.float32)[None].repeat(channels, 0)
    thumbnails = np.random.default_rng(0).normal(size=(len(shapes), *[16] * len(spacing))).astype(np.float32)
    return Fingerprint(
        {
            str(n): CaseFingerprint(
                tuple(shape), tuple(spacing), unit, channels, str(n), np.array([9, 1]), intensities, thumbnails[n]
            )
            for n, shape in enumerate(shapes)
        }
    )


def plan_for(fingerprint, config=CONFIG, modality=("mri",), device="cpu", classes=("background", "lesion")):
    return make_plan(config, fingerprint, classes, modality, torch.device(device))


def test_hippocampus_comes_out_like_nnunet():
    plan = plan_for(make_fingerprint([(35, 50, 36), (36, 51, 35), (34, 49, 37)], (1, 1, 1)))
    assert plan["plan"]["patch_size"] == [40, 56, 40]
    assert plan["plan"]["strides"] == [[2, 2, 2]] * 3
    assert plan["plan"]["kernel_sizes"] == [[3, 3, 3]] * 4
    assert plan["preprocessing"]["spacing"] == [1, 1, 1]
    assert plan["preprocessing"]["normalize"] == ["zscore"]
    assert plan["model"] == {"spatial_dims": 3, "depth": 3, "base_channels": 16}


def test_a_gpu_gets_a_wider_network():
    fingerprint = make_fingerprint([(35, 50, 36)], (1, 1, 1))
    assert plan_for(fingerprint, device="cuda")["model"]["base_channels"] == 32


def test_thick_slices_are_neither_pooled_nor_convolved_across_at_first():
    strides, kernels = topology([16, 256, 256], [5.0, 1.0, 1.0], None)
    assert strides[:3] == [[1, 2, 2], [1, 2, 2], [2, 2, 2]]
    assert kernels[0] == kernels[1] == [1, 3, 3]
    assert kernels[2] == [3, 3, 3]


@pytest.mark.parametrize("depth", [1, 2, 4, 7])
def test_a_depth_from_the_config_is_kept_and_the_patch_made_to_fit(depth):
    config = CONFIG | {"model": CONFIG["model"] | {"depth": depth}}
    plan = plan_for(make_fingerprint([(35, 50, 36)], (1, 1, 1)), config)
    assert len(plan["plan"]["strides"]) == depth
    assert "depth" not in plan["model"]
    assert all(size % 2**depth == 0 for size in plan["plan"]["patch_size"])


def test_a_patch_that_does_not_fit_the_depth_is_refused_with_one_that_does():
    with pytest.raises(MedsegError, match=r"\[40, 40\].*multiples of \[16, 16\].*\[48, 48\]"):
        fit_patch([40, 40], [[2, 2]] * 4, is_given=True)


def test_pictures_keep_their_pixels():
    plan = plan_for(
        make_fingerprint([(256, 256), (1040, 1388), (520, 696)], (1, 1), channels=3, unit="px"), modality=None
    )
    assert plan["preprocessing"]["spacing"] is None
    assert plan["preprocessing"]["normalize"] == ["zscore"] * 3
    assert plan["plan"]["in_channels"] == 3
    assert np.prod(plan["plan"]["patch_size"]) <= 288**2


def test_a_ct_window_comes_from_the_labelled_voxels():
    plan = plan_for(make_fingerprint([(64, 64, 64)], (1, 1, 1)), modality=("ct",))
    [[low, high, mean, std]] = plan["preprocessing"]["window"]
    assert (low, high) == (pytest.approx(-990), pytest.approx(990))
    assert mean == pytest.approx(0, abs=1)
    assert std == pytest.approx(2000 / np.sqrt(12), rel=0.01)


def test_the_longest_axes_are_cut_first():
    assert limit([100, 20, 20], 64**3) == [100, 20, 20]
    assert limit([300, 20, 20], 40_000) == [100, 20, 20]


@pytest.mark.parametrize("names", [("background", "left kidney", "right kidney"), ("background", "lung_l", "lung_r")])
def test_left_and_right_are_not_mirrored(names):
    assert mirror_axes(names, make_fingerprint([(32, 32, 32)] * 9, (1, 1, 1))) == [1, 2]
    assert mirror_axes(names, make_fingerprint([(32, 32)] * 9, (1, 1))) == [1]
    assert mirror_axes(names, make_fingerprint([(32, 32)] * 9, (1, 1), unit="px")) == [0]


def test_other_names_are_mirrored_wherever_the_images_are_symmetric():
    names = ("background", "upright lesion", "liver")
    assert mirror_axes(names, make_fingerprint([(32, 32, 32)] * 9, (1, 1, 1))) == [0, 1, 2]


def test_a_network_of_other_dimensions_is_refused():
    config = CONFIG | {"model": CONFIG["model"] | {"spatial_dims": 2}}
    with pytest.raises(MedsegError, match=r"model\.spatial_dims=2.*3D"):
        plan_for(make_fingerprint([(35, 50, 36)], (1, 1, 1)), config)


def test_modalities_must_match_the_channels():
    with pytest.raises(MedsegError, match="names 2 channels, the images have 3"):
        plan_for(make_fingerprint([(35, 50)], (1, 1), channels=3), modality=("mri", "ct"))


def changed(node, **values):
    return CONFIG | {node: CONFIG[node] | values}


def test_strides_from_the_config_settle_the_depth_and_the_patch():
    config = changed("plan", strides=[[2, 2, 2], [1, 2, 2]], kernel_sizes=[[3, 3, 3]] * 3)
    plan = plan_for(make_fingerprint([(35, 50, 36)], (1, 1, 1)), config)
    assert plan["model"]["depth"] == 2
    assert plan["plan"]["strides"] == [[2, 2, 2], [1, 2, 2]]
    assert plan["plan"]["patch_size"] == [36, 52, 36]


@pytest.mark.parametrize(
    ("node", "values", "says"),
    [
        ("plan", {"patch_size": [64, 64]}, r"plan\.patch_size: \[64, 64\].*3D"),
        ("plan", {"strides": [2, 2]}, r"plan\.strides: 2"),
        ("preprocessing", {"spacing": [1, 1]}, r"preprocessing\.spacing.*give 3 numbers"),
        ("preprocessing", {"window": [0, 1]}, r"preprocessing\.window.*ct"),
        ("preprocessing", {"window": [1, 0], "normalize": ["ct"]}, r"\[low, high\]"),
        ("preprocessing", {"normalize": ["ct", "zscore"]}, "names 2 methods"),
    ],
)
def test_values_that_do_not_fit_the_data_are_refused(node, values, says):
    with pytest.raises(MedsegError, match=says):
        plan_for(make_fingerprint([(35, 50, 36)], (1, 1, 1)), changed(node, **values))


def test_depth_and_strides_that_disagree_are_refused():
    config = changed("plan", strides=[[2, 2, 2]]) | changed("model", depth=2)
    config["plan"] = CONFIG["plan"] | {"strides": [[2, 2, 2]]}
    with pytest.raises(MedsegError, match="give one of them"):
        plan_for(make_fingerprint([(35, 50, 36)], (1, 1, 1)), config)


def test_a_window_from_the_config_is_completed_by_its_statistics():
    config = changed("preprocessing", window=[-100, 100], normalize=["ct"])
    [[low, high, mean, std]] = plan_for(make_fingerprint([(64,) * 3], (1, 1, 1)), config)["preprocessing"]["window"]
    assert (low, high) == (-100, 100)
    assert 80 < std < 100
    assert abs(mean) < 1


def test_pictures_are_worked_on_as_coarsely_as_their_masks_bear_on_a_cpu_alone():
    fingerprint = make_fingerprint([(256, 256)] * 4, (1, 1), unit="px")
    cases = {name: replace(case, fidelity=(0.97, 0.95, 0.9)) for name, case in fingerprint.cases.items()}
    plan = plan_for(Fingerprint(cases))
    assert plan["preprocessing"]["spacing"] == [2, 2]
    assert plan["plan"]["patch_size"] == [128, 128]
    assert plan_for(Fingerprint(cases), device="cuda")["preprocessing"]["spacing"] is None
