"""What a config takes of the run that it begins with: the network at its defaults, the grid, the normalisation."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from plain_settings import training_settings

from medseg.config.schema import CONF
from medseg.errors import MedsegError
from medseg.training.transfer.sources import Source
from medseg.training.transfer.warm_start import config_from_source, model_of, preprocessing_of, with_windows

UNET = yaml.safe_load((CONF / "model/unet.yaml").read_text())
RESENC = yaml.safe_load((CONF / "model/resenc_m.yaml").read_text())["model"]
FLEXIBLE = yaml.safe_load((CONF / "model/flexible_unet.yaml").read_text())["model"]
SEGRESNET = yaml.safe_load((CONF / "model/segresnet.yaml").read_text())["model"]
GIVEN = {
    "spacing": None,
    "resize": None,
    "crop": True,
    "normalize": None,
    "window": None,
    "denoise": None,
    "denoise_strength": 1.0,
}


def resolved(node, **values):
    """A model node as a checkpoint has it: with its values planned."""
    sizes = {"in_channels": 2, "out_channels": 4, "strides": [[2, 2, 2]] * 3, "input_size": [32] * 3}
    return {**node, **{key: value for key, value in sizes.items() if key in node}, "spatial_dims": 3, **values}


def data(channels=1, dims=3, unit="mm"):
    return SimpleNamespace(channels=channels, spatial_dims=dims, unit=unit)


def source(model=None, preprocessing=None, **plan):
    settings = {
        "model": resolved(UNET, depth=3, base_channels=24) | (model or {}),
        "plan": {"strides": [[1, 2, 2], [2, 2, 2], [2, 2, 2]], "kernel_sizes": [[1, 3, 3]] + [[3] * 3] * 3, **plan},
        "preprocessing": {
            **GIVEN,
            "spacing": [3.0, 1.0, 1.0],
            "normalize": ["zscore", "zscore"],
            **(preprocessing or {}),
        },
    }
    return Source(Path("there.ckpt"), {}, ("background", "a"), settings=settings)


def config(**nodes):
    plan = {"file": None, "strides": None, "kernel_sizes": None, "divisor": None, "slice_axis": None, "context": 0}
    usual = {"model": UNET, "plan": plan, "preprocessing": GIVEN, "finetune": {"preprocessing": "source"}}
    return {key: {**value, **nodes.get(key, {})} for key, value in usual.items()}


def settings_of(given):
    return training_settings(**{**given, "model": {**given["model"], "in_channels": None}})


def begun(given, source, learned=None):
    return config_from_source(given, settings_of(given), source, learned or data(), is_same=False)


def test_what_is_at_its_default_is_the_sources():
    theirs = resolved(UNET, depth=5, base_channels=24, norm="batch", activation="relu")
    given = {**UNET, "activation": "silu", "depth": 4}
    merged = model_of(given, theirs, nulls=True)
    assert (merged["norm"], merged["base_channels"]) == ("batch", 24)
    assert (merged["activation"], merged["depth"]) == ("silu", 4)
    assert merged["out_channels"] == "${plan.out_channels}"
    assert model_of(given, theirs, nulls=False)["base_channels"] is None  # a plan.file has it


def test_what_an_older_source_does_not_name_is_as_it_was():
    theirs = resolved(UNET, depth=5, base_channels=24)
    del theirs["last_activation"]
    assert UNET["last_activation"] is False
    assert model_of(UNET, theirs, nulls=True)["last_activation"] is True
    assert model_of(UNET, theirs, nulls=True, chosen={"last_activation"})["last_activation"] is False


def test_presets_of_a_network_are_taken_as_a_whole():
    merged = model_of(UNET, resolved(RESENC, depth=3, base_channels=32), nulls=True)
    assert (merged["residual"], merged["blocks"], merged["decoder_blocks"]) == (True, RESENC["blocks"], 1)


@pytest.mark.parametrize("target", ["medseg.models.monai.segresnet", "os.system"])
def test_another_network_is_taken_where_none_is_named_and_medseg_ships_it(target):
    theirs = resolved(SEGRESNET, depth=4, base_channels=16, _target_=target)
    merged = model_of(UNET, theirs, nulls=True)
    assert (merged["_target_"] == target) == (target != "os.system")
    if target != "os.system":
        assert merged["depth"] == 4
        assert merged["input_size"] == "${plan.patch_size}"
    named = {**UNET, "depth": 2}
    assert model_of(named, theirs, nulls=True) == named


def test_a_network_without_channels_by_level_gets_none():
    theirs = resolved(FLEXIBLE, backbone="resnet18", pretrained="imagenet")
    merged = model_of(UNET, theirs, nulls=True)
    assert merged["_target_"] == FLEXIBLE["_target_"]
    assert (merged["backbone"], merged["pretrained"]) == ("resnet18", "imagenet")
    assert merged.keys() == FLEXIBLE.keys()


@pytest.mark.parametrize(("depth", "count"), [(None, 3), (2, 2), (4, None)])
def test_another_depth_keeps_the_finest_levels(depth, count):
    plan = begun(config(model={"depth": depth}), source())["plan"]
    assert plan["strides"] == ([[1, 2, 2], [2, 2, 2], [2, 2, 2]][:count] if count else None)
    assert (plan["kernel_sizes"] and len(plan["kernel_sizes"])) == (count and count + 1)


def test_channels_by_level_go_with_the_depth_and_make_way_for_a_width():
    theirs = source({"channels": [4, 7, 8, 9]})
    assert begun(config(model={"depth": 2}), theirs)["model"]["channels"] == [4, 7, 8]
    assert begun(config(model={"depth": 4}), theirs)["model"]["channels"] is None
    assert begun(config(model={"base_channels": 16}), theirs)["model"]["channels"] is None


def test_a_3d_network_is_refused_for_pictures():
    with pytest.raises(MedsegError, match=r"its network is 3D, the images are 2D"):
        begun(config(), source(), data(dims=2, unit="px"))


def test_a_2d_network_goes_through_volumes_as_it_did():
    theirs = source({"spatial_dims": 2}, strides=[[2, 2]] * 3, kernel_sizes=[[3, 3]] * 4, slice_axis=1, context=2)
    plan = begun(config(), theirs)["plan"]
    assert (plan["slice_axis"], plan["context"], plan["strides"][0]) == (1, 2, [2, 2])


def test_preprocessing_of_ones_own_is_left_to_the_plan():
    assert begun(config(finetune={"preprocessing": "own"}), source())["preprocessing"] == GIVEN


@pytest.mark.parametrize(
    ("theirs", "channels", "expected"),
    [
        (["ct", "zscore"], 2, ["ct", "zscore"]),
        (["zscore", "zscore"], 3, ["zscore"] * 3),
        (["unit"], 2, ["unit"] * 2),
        (["ct", "zscore"], 1, None),  # which of the two it is nobody knows
    ],
)
def test_normalisation_is_by_place_or_the_same_for_all(theirs, channels, expected):
    node = preprocessing_of(GIVEN, source(None, {"normalize": theirs}), data(channels))
    assert node["normalize"] == expected
    assert node["spacing"] == [3.0, 1.0, 1.0]


def test_what_the_config_gives_goes_first():
    given = {**GIVEN, "spacing": [2.0, 2.0, 2.0], "normalize": ["percentile"], "denoise": "median"}
    node = preprocessing_of(given, source(None, {"denoise": "gaussian", "crop": False}), data())
    assert {key: node[key] for key in ("spacing", "normalize", "denoise")} == {
        key: given[key] for key in ("spacing", "normalize", "denoise")
    }
    assert node["crop"] is False


def test_pictures_keep_their_pixels_where_the_source_did():
    theirs = source(None, {"spacing": None})
    assert preprocessing_of(GIVEN, theirs, data(dims=2, unit="px"))["spacing"] == [1.0, 1.0]
    assert preprocessing_of(GIVEN, theirs, data())["spacing"] is None


def test_windows_of_ct_are_the_sources():
    windows = [[-100.0, 200.0, 40.0, 30.0]]
    theirs = source(None, {"normalize": ["ct"], "window": windows})
    plan = {"preprocessing": {**GIVEN, "normalize": ["ct"], "window": [[0.0, 1.0, 0.5, 0.1]]}}
    assert with_windows(plan, training_settings(**config()), theirs)["preprocessing"]["window"] == windows
    own = training_settings(**config(finetune={"preprocessing": "own"}))
    assert with_windows(plan, own, theirs) == plan
    given = training_settings(**config(preprocessing={"window": [0, 100]}))
    assert with_windows(plan, given, theirs) == plan


def test_a_value_that_the_user_chose_wins_though_it_is_the_default():
    theirs = resolved(UNET, depth=5, base_channels=24, norm="batch", blocks=3, channels=[8] * 6)
    chosen = {"norm", "base_channels"}
    merged = model_of(UNET, theirs, nulls=True, chosen=chosen)
    assert (merged["norm"], merged["base_channels"], merged["channels"]) == ("instance", None, None)
    assert (merged["blocks"], merged["depth"]) == (3, 5)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"_target_"}, UNET["_target_"]),
        ({"residual"}, UNET["_target_"]),  # which the other network does not have
        ({"depth"}, SEGRESNET["_target_"]),
    ],
)
def test_a_chosen_network_stays_and_a_chosen_value_goes_into_another(chosen, expected):
    theirs = resolved(SEGRESNET, depth=4, base_channels=16)
    merged = model_of(UNET, theirs, nulls=True, chosen=chosen)
    assert merged["_target_"] == expected
    assert merged["depth"] is None


def test_chosen_preprocessing_and_plan_stay():
    theirs = source({"spatial_dims": 2}, {"crop": False, "denoise": "median"}, slice_axis=1, context=2, divisor=8)
    given = config() | {
        "explicit_keys": ["preprocessing.crop", "preprocessing.denoise", "preprocessing.spacing", "plan.context"]
    }
    result = begun(given, theirs)
    assert result["preprocessing"]["crop"] is True
    assert result["preprocessing"]["denoise"] is None
    assert result["preprocessing"]["spacing"] is None
    assert result["preprocessing"]["normalize"] == ["zscore"]
    assert (result["plan"]["context"], result["plan"]["slice_axis"], result["plan"]["divisor"]) == (0, 1, 8)


def test_a_depth_that_is_to_be_planned_takes_no_levels_of_the_source():
    given = config() | {"explicit_keys": ["model.depth"]}
    result = begun(given, source({"channels": [4, 7, 8, 9]}))
    assert (result["model"]["depth"], result["model"]["channels"], result["plan"]["strides"]) == (None, None, None)


@pytest.mark.parametrize(
    ("key", "is_taken"),
    [("trainer.max_epochs", True), ("model.norm", True), ("preprocessing.crop", False), ("plan.patch_size", False)],
)
def test_the_whole_plan_of_a_source_is_taken_only_where_the_user_chose_nothing_of_it(key, is_taken):
    theirs = source()
    theirs = replace(theirs, plan_file=Path("plan.json"))
    given = config() | {"explicit_keys": [key], "trainer": {"max_epochs": 3, "compile": None}}
    given["plan"] |= {"patch_size": None}
    result = config_from_source(given, settings_of(given), theirs, data(), is_same=True)
    assert (result["plan"]["file"] == "plan.json") == is_taken
