"""The plan against nnU-Net's own for hippocampus, and against values worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plain_settings import training_settings

from medseg.errors import MedsegError
from medseg.io.labels import UNLABELLED, LabelMap
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint
from medseg.preprocessing.planning.plan import (
    blocks,
    fit_patch,
    is_sided,
    limit,
    make_plan,
    mirror_axes,
    offer,
    topology,
)
from medseg.preprocessing.planning.resources import StepCost

CONFIG = {
    "model": {"_target_": "medseg.models.UNet", "spatial_dims": None, "depth": None, "base_channels": None},
    "preprocessing": {"spacing": None, "resize": None, "normalize": None, "window": None, "crop": True},
    "plan": {
        **dict.fromkeys(("patch_size", "strides", "kernel_sizes", "divisor", "mirror_axes", "slice_axis")),
        "budget": 1.0,
        "context": 0,
    },
    "augment": {"spatial": {"mirror_axes": None}},
}


def settings(config):
    return training_settings(**config)


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


def label_map(classes):
    return LabelMap({name: value for value, name in enumerate(classes)})


def plan_for(fingerprint, config=CONFIG, modality=("mri",), device="cpu", classes=("background", "lesion")):
    return make_plan(settings(config), fingerprint, label_map(classes), modality, torch.device(device))


def test_hippocampus_comes_out_like_nnunet():
    plan = plan_for(make_fingerprint([(35, 50, 36), (36, 51, 35), (34, 49, 37)], (1, 1, 1)))
    assert plan["plan"]["patch_size"] == [40, 56, 40]
    assert plan["plan"]["strides"] == [[2, 2, 2]] * 3
    assert plan["plan"]["kernel_sizes"] == [[3, 3, 3]] * 4
    assert plan["preprocessing"]["spacing"] == [1, 1, 1]
    assert plan["preprocessing"]["normalize"] == ["zscore"]
    assert plan["model"] == {"spatial_dims": 3, "depth": 3, "base_channels": 16}


def test_hippocampus_on_a_gpu_is_nnunets_own_plan():
    """nnU-Net 2.8.1 plans 3d_fullres for the 199 cases at hand: 1 mm, batch 7, patch 40x56x40, 32 to 256 channels."""
    from medseg.models.unet import widths

    fingerprint = make_fingerprint([(36, 50, 35)] * 199, (1, 1, 1))
    plan = plan_for(fingerprint, changed("plan", mirror="all"), device="cuda")
    assert plan["preprocessing"]["spacing"] == [1, 1, 1]
    assert plan["plan"]["patch_size"] == [40, 56, 40]
    assert plan["plan"]["batch_size"] == 7
    assert plan["plan"]["strides"] == [[2, 2, 2]] * 3
    assert plan["plan"]["mirror_axes"] == [0, 1, 2]
    assert widths(3, plan["model"]["depth"], plan["model"]["base_channels"]) == [32, 64, 128, 256]


def test_the_slice_axis_of_anisotropic_scans_gets_a_finer_spacing():
    """As nnU-Net's planner: the tenth percentile where the axis is over three times coarser and shorter."""
    spacings = [(1, 1, step) for step in (3, 4, 5, 5, 5, 5, 5, 5, 5, 5)]
    cases = {
        str(n): case
        for n, spacing in enumerate(spacings)
        for case in make_fingerprint([(200, 200, 30)], spacing).cases.values()
    }
    assert plan_for(Fingerprint(cases))["preprocessing"]["spacing"] == pytest.approx([1, 1, 3.9])
    long = {name: replace(case, shape=(200, 200, 90)) for name, case in cases.items()}
    assert plan_for(Fingerprint(long))["preprocessing"]["spacing"] == [1, 1, 5]


def test_a_batch_is_at_most_a_twentieth_of_the_training_voxels():
    few, many = (make_fingerprint([(40, 40, 40)] * n, (1, 1, 1)) for n in (40, 1000))
    assert plan_for(few)["plan"]["batch_size"] == 2
    assert plan_for(many)["plan"]["batch_size"] == round(200_000 / 64_000)


class RoomyProbe:
    """Every patch voxel of the batch takes a kilobyte by the count, every step a second."""

    spent = 0.0

    def memory(self, plan):
        return int(plan["plan"]["batch_size"] * np.prod(plan["plan"]["patch_size"]) * 1000)

    def seconds(self, plan):
        return 1.0


@pytest.mark.parametrize(("memory_gb", "batch", "patch"), [(None, 9, [40, 56, 40]), (0.6, 6, [40, 56, 40])])
def test_patch_and_batch_stay_within_the_memory(memory_gb, batch, patch):
    trainer = {"memory_gb": memory_gb, "max_time": None, "deterministic": False, "precision": "fp32"}
    fingerprint = make_fingerprint([(36, 50, 35)] * 300, (1, 1, 1))
    config = CONFIG | {"trainer": trainer, "plan": CONFIG["plan"] | {"budget": 4.0}}
    plan = make_plan(settings(config), fingerprint, label_map("ab"), ("mri",), torch.device("cpu"), RoomyProbe())
    assert (plan["plan"]["batch_size"], plan["plan"]["patch_size"]) == (batch, patch)
    assert plan["measured"]["precision"] == "fp32"
    assert plan["measured"]["memory_gb"] == pytest.approx(batch * 0.0896, abs=0.01)


def test_a_short_time_gets_a_narrow_network_and_a_long_one_a_wide_one():
    def width(max_time):
        trainer = {"memory_gb": None, "max_time": max_time, "deterministic": False, "precision": "fp32"}
        config, fingerprint = CONFIG | {"trainer": trainer}, make_fingerprint([(36, 50, 35)] * 158, (1, 1, 1))
        plan = make_plan(settings(config), fingerprint, label_map("ab"), ("mri",), torch.device("cpu"), RoomyProbe())
        return plan["model"]["base_channels"]

    assert (width("00:00:02:00"), width("00:00:05:00"), width("00:01:00:00")) == (8, 16, 32)


class MeasuringProbe(RoomyProbe):
    """A step takes one and a half times the memory that was counted."""

    def __init__(self):
        self.steps = []

    def step(self, plan):
        self.steps.append(plan["plan"]["batch_size"])
        return StepCost(0.5, round(1.5 * self.memory(plan)))


def test_on_a_gpu_patch_and_batch_shrink_until_a_step_fits():
    trainer = {"memory_gb": 0.7, "max_time": None, "deterministic": False, "precision": "fp32"}
    fingerprint, probe = make_fingerprint([(36, 50, 35)] * 158, (1, 1, 1)), MeasuringProbe()
    config = CONFIG | {"trainer": trainer}
    plan = make_plan(settings(config), fingerprint, label_map("ab"), ("mri",), torch.device("cuda"), probe)
    assert plan["measured"]["peak_gb"] <= 0.7
    assert plan["measured"]["step"] == 0.5
    assert len(probe.steps) > 1
    assert probe.steps == sorted(probe.steps, reverse=True)
    assert plan["plan"]["batch_size"] == probe.steps[-1]


def test_a_step_that_never_fits_ends_in_the_smallest_plan(caplog):
    trainer = {"memory_gb": 1000, "max_time": None, "deterministic": True, "precision": "fp32"}
    fingerprint, probe = make_fingerprint([(36, 50, 35)] * 158, (1, 1, 1)), MeasuringProbe()
    probe.step = lambda plan: StepCost(float("inf"))
    config = CONFIG | {"trainer": trainer}
    plan = make_plan(settings(config), fingerprint, label_map("ab"), ("mri",), torch.device("cuda"), probe)
    assert plan["plan"]["batch_size"] == 2


def test_a_plan_can_be_made_for_another_device():
    plan = plan_for(make_fingerprint([(35, 50, 36)], (1, 1, 1)), changed("plan", device="cuda"))
    assert plan["model"]["base_channels"] == 32


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
        fit_patch([40, 40], [16, 16], is_given=True)


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
    assert mirror_axes(settings(CONFIG), label_map(names), make_fingerprint([(32, 32, 32)] * 9, (1, 1, 1))) == [1, 2]
    assert mirror_axes(settings(CONFIG), label_map(names), make_fingerprint([(32, 32)] * 9, (1, 1))) == [1]
    assert mirror_axes(settings(CONFIG), label_map(names), make_fingerprint([(32, 32)] * 9, (1, 1), unit="px")) == [0]


@pytest.mark.parametrize(("spatial", "axes"), [(None, []), ({"mirror_axes": [1]}, [1])])
def test_only_axes_that_training_mirrors_are_planned(spatial, axes):
    plan = plan_for(make_fingerprint([(32, 32, 32)] * 9, (1, 1, 1)), CONFIG | {"augment": {"spatial": spatial}})
    assert plan["plan"]["mirror_axes"] == axes


def test_other_names_are_mirrored_wherever_the_images_are_symmetric():
    names = ("background", "upright lesion", "liver")
    assert mirror_axes(settings(CONFIG), label_map(names), make_fingerprint([(32, 32, 32)] * 9, (1, 1, 1))) == [0, 1, 2]


@pytest.mark.parametrize("key", ["plan", "augment"])
def test_mirroring_left_and_right_by_config_is_refused(key):
    config = (
        changed("plan", mirror_axes=[0]) if key == "plan" else CONFIG | {"augment": {"spatial": {"mirror_axes": [0]}}}
    )
    with pytest.raises(MedsegError, match=r"mirror_axes=\[0\].*left to right.*kidney_left, kidney_right"):
        plan_for(
            make_fingerprint([(32,) * 3], (1, 1, 1)), config, classes=("background", "kidney_left", "kidney_right")
        )


def test_a_3d_network_on_pictures_is_refused():
    with pytest.raises(MedsegError, match=r"model\.spatial_dims=3.*2D"):
        plan_for(make_fingerprint([(35, 50)], (1, 1), unit="px"), changed("model", spatial_dims=3))


@pytest.mark.parametrize(
    ("spacing", "axis", "patch"),
    [((1, 1, 1), 2, [48, 64]), ((3, 1, 1), 0, [64, 32]), ((1.1, 1, 1), 2, [48, 64])],
)
def test_a_2d_network_takes_volumes_by_slices_across_the_coarsest_axis(spacing, axis, patch):
    fingerprint = make_fingerprint([(45, 61, 30)] * 9, spacing)
    plan = plan_for(fingerprint, changed("model", spatial_dims=2, depth=3))
    assert plan["plan"]["slice_axis"] == axis
    assert plan["plan"]["patch_size"] == patch
    assert plan["plan"]["strides"] == [[2, 2]] * 3
    assert plan["plan"]["mirror_axes"] == [other for other in range(3) if other != axis]
    assert plan["plan"]["in_channels"] == 1


def test_neighbouring_slices_are_channels():
    config = changed("model", spatial_dims=2) | {"plan": CONFIG["plan"] | {"context": 2}}
    plan = plan_for(make_fingerprint([(45, 61, 30)], (1, 1, 1), channels=3), config, modality=("mri",))
    assert plan["plan"]["in_channels"] == 15
    with pytest.raises(MedsegError, match=r"plan\.context=2.*spatial_dims=2"):
        plan_for(make_fingerprint([(45, 61, 30)], (1, 1, 1)), changed("plan", context=2))


def test_a_divisor_takes_the_place_of_the_strides_and_a_budget_scales_patch_and_batch():
    fingerprint = make_fingerprint([(200, 200, 200)], (1, 1, 1))
    plan, double = (plan_for(fingerprint, changed("plan", divisor=48, budget=budget))["plan"] for budget in (1.0, 2.0))
    assert plan["patch_size"] == [96, 96, 96]
    assert double["patch_size"] == [96, 96, 96]  # 80 a side, rounded up like the 64 of a single budget
    assert (plan["batch_size"], double["batch_size"]) == (2, 2)


def test_regions_are_what_the_network_puts_out():
    labels = LabelMap({"background": 0, "a": 1, "b": 2, "ignore": 9}, {"ab": ["a", "b"], "b": ["b"]})
    plan = make_plan(settings(CONFIG), make_fingerprint([(32,) * 3], (1, 1, 1)), labels, ("mri",), torch.device("cpu"))
    assert plan["plan"]["out_channels"] == 2


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


def test_without_masks_the_network_puts_out_the_image_and_blocks_are_planned():
    config = CONFIG | {"pretext": {"block": None}}
    fingerprint = make_fingerprint([(64, 64, 64)] * 9, (1, 1, 1), channels=3)
    plan = make_plan(settings(config), fingerprint, UNLABELLED, ("mri",), torch.device("cpu"))
    assert (plan["plan"]["in_channels"], plan["plan"]["out_channels"]) == (3, 3)
    assert plan["plan"]["strides"] == [[2, 2, 2]] * 4
    assert plan["pretext"] == {"block": [8, 8, 8]}
    given = make_plan(
        settings(CONFIG | {"pretext": {"block": 4}}), fingerprint, UNLABELLED, ("mri",), torch.device("cpu")
    )
    assert "pretext" not in given


@pytest.mark.parametrize(
    ("strides", "axis", "context", "expected"),
    [
        ([[2, 2, 1], [2, 2, 2], [2, 2, 2]], None, 0, [4, 4, 2]),
        ([[2, 2], [2, 2]], 0, 0, [1, 2, 2]),
        ([[2, 2], [2, 2]], 2, 3, [2, 2, 7]),
        ([[2, 2]], None, 0, [1, 1]),
    ],
)
def test_blocks_follow_the_strides(strides, axis, context, expected):
    assert blocks(strides, axis, context) == expected


@pytest.mark.parametrize(
    "names",
    [
        ["kidney_left", "kidney_right"],
        ["left kidney"],
        ["LeftLung", "RightLung"],
        ["Left-Hippocampus", "Right-Hippocampus"],
        ["femur_l", "femur_r"],
        ["lh.cortex", "rh.cortex"],
        ["左肾", "右肾"],
    ],
)
def test_sided(names):
    assert is_sided(names)


@pytest.mark.parametrize("names", [["liver", "spleen"], ["bright", "upright lesion"], ["left" + "over"], ["cleft"]])
def test_not_sided(names):
    assert not is_sided(names)


def test_two_stages_are_offered_where_a_patch_holds_less_than_a_quarter_of_the_scan():
    for size, is_large in ((96, False), (104, True)):
        fingerprint = make_fingerprint([(size, size, size)] * 30, (1, 1, 1))
        advice = offer(plan_for(fingerprint), fingerprint, settings(CONFIG))
        assert bool(advice) is is_large
    assert "a patch of 64 x 64 x 64 holds 23% of the median scan, 104 x 104 x 104 voxels" in str(advice)
    assert "experiment=cascade" in str(advice)
    assert offer(plan_for(fingerprint), fingerprint, settings({**CONFIG, "first_stage": {"use": "region"}})) is None


@pytest.mark.parametrize(("spacing", "first"), [((1, 1, 1), 1.0), ((0.5, 0.5, 3), 0.5)])
def test_a_coarse_grid_is_one_on_which_a_patch_holds_the_scan(spacing, first):
    shape = np.array([160, 160, 160]) if first == 1 else np.array([320, 320, 50])
    fingerprint = make_fingerprint([shape] * 30, spacing)
    plan = plan_for(fingerprint, {**CONFIG, "first_stage": {"use": "channels"}})
    coarse = np.array(plan["first_stage"]["spacing"])
    voxels, patch = np.prod(shape * spacing / coarse), np.prod(plan["plan"]["patch_size"])
    assert 0.9 * patch < voxels <= patch
    assert coarse.min() > first
    assert np.isclose(coarse[0], coarse[1])
    assert coarse.max() <= 2.1 * coarse.min()  # no axis is left much finer than the others
    assert (plan["plan"]["in_channels"], plan["plan"]["coarse_channels"]) == (1 + 1, 1)
    none = plan_for(
        fingerprint, {**CONFIG, "first_stage": {"use": "channels"}, "plan": {**CONFIG["plan"], "coarse_channels": 0}}
    )
    assert (none["plan"]["in_channels"], none["plan"]["coarse_channels"]) == (1 + 1, 0)
    with pytest.raises(MedsegError, match="coarse_channels=2; allowed: 0 or 1"):
        plan_for(
            fingerprint,
            {**CONFIG, "first_stage": {"use": "channels"}, "plan": {**CONFIG["plan"], "coarse_channels": 2}},
        )


def test_no_coarse_grid_for_scans_that_a_patch_holds():
    with pytest.raises(MedsegError, match="holds the median scan"):
        plan_for(make_fingerprint([(40, 40, 40)] * 30, (1, 1, 1)), {**CONFIG, "first_stage": {"use": "region"}})
