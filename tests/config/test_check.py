"""The table of keys against the YAML, checking of values, and the resolution of nulls and interpolations."""

from collections import defaultdict
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest

from medseg.cli.sources import Sources, compose
from medseg.config import schema
from medseg.config.check import (
    USUAL,
    check_values,
    dotted,
    escape,
    is_within,
    leaves,
    nearest_key,
    read_settings,
    resolve,
    written,
)
from medseg.config.schema import CONF, arguments
from medseg.config.settings import KEYS, TrainSettings
from medseg.errors import MedsegError

COMMANDS = ("train", "pretrain", "inspect", "eval", "predict")
GROUPS = {
    "train": ("model", "loss", "optimizer", "scheduler", "augment", "inference", "trainer", "logger", "dataset"),
    "pretrain": ("pretext", "dataset"),
    "eval": ("dataset", "inference"),
    "predict": ("inference",),
    "cache": (),
}
OPTIONS = [
    (command, f"{group}={path.stem}")
    for command, groups in GROUPS.items()
    for group in groups
    for path in sorted((CONF / group).glob("*.yaml"))
    if (command, path.stem) not in (("train", "saved"), ("pretrain", "saved"))  # what only a checkpoint can fill
]


@cache
def compose_once(command: str, *settings: str) -> dict:
    sources = Sources(CONF, command)
    return compose(sources, sources.loader(), list(settings))


def composed(command: str, *settings: str) -> dict:
    return deepcopy(compose_once(command, *settings))


@pytest.mark.parametrize(("command", "choice"), OPTIONS)
def test_every_option_composes_to_valid_values(command, choice):
    problems = check_values(composed(command, choice))
    assert all(": missing." in problem for problem in problems), problems


def test_keys_are_those_of_the_yaml():
    found, given = set(), defaultdict(set)
    for command, *choice in [*OPTIONS, ("compare",), ("export",), ("cache",), ("doctor",)]:
        config = composed(command, *choice)
        for path, key, _ in leaves(config):
            assert key is not None, path
            found.add(path)
        collect(config, given)
    own = {path for path in found if path in KEYS}
    assert own == set(KEYS)
    assert {target: set(names) for target, names in arguments().items()} == given


def collect(node, given):
    if isinstance(node, dict):
        if str(node.get("_target_", "")).startswith("medseg."):
            plain = {name for name, value in node.items() if not (isinstance(value, dict) and "_target_" in value)}
            given[node["_target_"]] |= plain - {"_target_"}  # objects within have keys of their own
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        collect(child, given)


def test_every_key_says_what_it_means():
    for key in [*KEYS.values(), *(key for keys in arguments().values() for key in keys.values())]:
        assert key.meaning
        assert key.kind in vars(schema).values()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.depth", 0),
        ("model.depth", 8),
        ("model.depth", 3.0),
        ("model.depth", "four"),
        ("model.depth", True),
        ("model.norm", "instanse"),
        ("model.blocks", [2, 0]),
        ("loss.dice.squared", 2),
        ("scheduler.warmup", 1.0),
        ("augment.intensity.0.probability", 1.5),
        ("augment.intensity", 3),
        ("inference.overlap", 1),
        ("inference.overlap", None),
        ("inference.tta", "yes"),
        ("trainer.max_time", 3600),
        ("trainer.max_time", "1:00"),
        ("trainer.gradient_clip", float("nan")),
        ("trainer.gradient_clip", float("inf")),
        ("preprocessing.spacing", [1.0, -1.0]),
        ("preprocessing.normalize", ["zscore", "z"]),
        ("dataset.group", "(["),
        ("dataset.root", 5),
        ("dataset.modality", ["mri", "mr"]),
        ("dataset.labels", ["a"]),
        ("seed", None),
    ],
)
def test_wrong_value_is_named_with_what_is_allowed(path, value):
    config = composed("train")
    put(config, path, value)
    (problem,) = check_values(config)
    assert problem.startswith(f"{path}={written(value)}: must be ")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.depth", 7),
        ("model.depth", None),
        ("model.blocks", [1, 2, 2]),
        ("model.strides", [[1, 2, 2], 2]),
        ("trainer.max_time", "12:00:00:00"),
        ("trainer.max_time", None),
        ("trainer.gradient_clip", 12),
        ("inference.threshold", 0.5),
        ("dataset.labels", {"background": 0, "tumour": "#ff0000"}),
        ("dataset.modality", ["mri", "ct"]),
        ("dataset.group", r"^(.+?)-IM-"),
        ("dataset.root", r"\${x}/a,b=(1)"),
        ("optimizer.lr", "left to the class"),
    ],
)
def test_right_value_passes(path, value):
    config = composed("train")
    put(config, path, value)
    assert check_values(config) == []


def put(config, path, value):
    *parents, name = path.split(".")
    for parent in parents:
        config = config[int(parent) if parent.isdecimal() else parent]
    config[name] = value


def test_missing_values_are_named_all_at_once():
    problems = check_values(composed("predict"))
    assert [problem.split(":")[0] for problem in problems] == ["checkpoint", "input", "output"]


def test_unknown_key_of_a_yaml_file_is_found():
    (problem,) = check_values({"command": "train", "trainer": {"max_epoch": 3}})
    assert problem == "trainer.max_epoch: unknown key. Did you mean 'trainer.max_epochs'?"


def test_unquoted_duration_is_explained():
    (problem,) = check_values({"command": "train", "trainer": {"max_time": 2592000}})
    assert "Quote it" in problem


def test_null_means_the_checkpoint_s_only_outside_training():
    assert check_values({"command": "eval", "inference": {"overlap": None}}) == []
    assert len(check_values({"command": "train", "inference": {"overlap": None}})) == 1


@pytest.mark.parametrize(
    ("number", "interval", "inside"),
    [
        (0, "[0, 1)", True),
        (1, "[0, 1)", False),
        (0, "(0, 1]", False),
        (1, "(0, 1]", True),
        (1e9, "[1, inf)", True),
        (-1, "[0, inf)", False),
    ],
)
def test_is_within(number, interval, inside):
    assert is_within(number, interval) is inside


def test_nearest_key():
    assert "'model.depth'" in nearest_key("model.dept", ["model.depth", "model.dropout"])
    assert "'model.depth'" in nearest_key("depth", ["model.depth", "model.dropout"])
    assert nearest_key("zzz", ["model.depth"]) == ""


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("trainer.batch_size", "'plan.batch_size' or 'inference.batch_size'"),
        ("plann.batch_size", "'plan.batch_size'"),
        ("optimizer.learning_rate", "'optimizer.lr'"),
        ("trainer.lr", "'optimizer.lr'"),
        ("epoch", "'trainer.max_epochs'"),
    ],
)
def test_keys_of_the_same_last_name_are_named_before_those_that_look_alike(path, hint):
    known = ["inference.batch_size", "plan.batch_size", "optimizer.lr", "trainer.max_epochs"]
    assert nearest_key(path, known) == f" Did you mean {hint}?"


def test_usual_names_stand_for_keys_of_a_training():
    known = [path for path, _ in dotted(composed("train"))]
    assert set(USUAL.values()) <= set(known)
    assert nearest_key("batch_size", ["inference.batch_size"]) == " Did you mean 'inference.batch_size'?"


@pytest.mark.parametrize("duration", ["", "10", "1:00", "00:24:00:00", "00:00:60:00", "00:00:00:00", "-1:00:00:00", 60])
def test_what_is_no_duration_is_refused(duration):
    config = composed("train")
    config["trainer"]["max_time"] = duration
    (problem,) = check_values(config)
    assert "must be a duration 'DD:HH:MM:SS'" in problem


def test_resolve_fills_nulls_only_and_then_interpolates():
    config = {"plan": {"strides": None, "patch": [8]}, "model": {"_target_": "a.B", "strides": "${plan.strides}"}}
    overlay = {"plan": {"strides": ((1, 2), (2, 2)), "patch": [9]}, "model": {"extra": 1}}
    assert resolve(config, overlay) == {
        "plan": {"strides": [[1, 2], [2, 2]], "patch": [8]},
        "model": {"_target_": "a.B", "strides": [[1, 2], [2, 2]]},
    }
    assert config["plan"]["strides"] is None


def test_resolve_adds_what_a_node_lacks():
    given, saved = {"overlap": 0.25}, {"overlap": 0.5, "tta": True}
    assert resolve(given, saved) == {"overlap": 0.25, "tta": True}
    assert resolve({}, saved) == saved
    assert resolve({"split": {"file": None}}, {"split": {"val": 0.1}}) == {"split": {"file": None, "val": 0.1}}


def test_resolve_names_a_broken_interpolation():
    with pytest.raises(MedsegError, match=r"plan\.x"):
        resolve({"a": "${plan.x}"})


@pytest.mark.parametrize("text", ["${x}", r"\${x}", r"a\\${", "$", "{}", "${oc.env:HOME}", "plain", r"\\"])
def test_escaped_text_stays_literal(text):
    assert resolve({"path": escape(text)})["path"] == text
    assert resolve({"path": None}, {"path": text})["path"] == text


def test_conf_lies_in_the_checkout():
    assert Path(__file__).parents[2] / "conf" == CONF


def test_a_command_that_is_no_text_is_named():
    assert check_values({"command": ["train"]})[0].startswith("command=['train']: must be one of train")


@pytest.mark.parametrize(("value", "shown"), [(None, "null"), (True, "true"), (3, "3"), ("x", "'x'")])
def test_values_are_shown_as_they_are_written(value, shown):
    assert written(value) == shown


def test_what_a_reference_leads_to_is_checked_too():
    config = composed("train", "dataset=folder", "dataset.root=x") | {"seed": 0}
    config["dataset"]["modality"] = "${seed}"
    with pytest.raises(MedsegError, match=r"dataset\.modality=0: must be one, or a list, of mri"):
        read_settings(TrainSettings, config)


def test_an_empty_path_is_none():
    config = composed("train", "dataset=folder", "dataset.root=x")
    config["plan"]["file"] = config["finetune"]["checkpoint"] = config["resume"] = config["dataset"]["corrections"] = ""
    settings = read_settings(TrainSettings, config)
    assert (settings.plan.file, settings.finetune.checkpoint, settings.resume) == (None, None, None)
    assert settings.dataset.corrections == ()
