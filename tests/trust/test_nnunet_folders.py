"""Models of nnU-Net's by strangers: no code, nothing written elsewhere, and no more memory than their files have."""

import copy
import json
import os
import shutil
import time

import pytest
import torch
from inference.nnunet.conftest import Reference, architecture, plans_of, write_model
from small_run import PREDICT, TRAIN

from medseg.cli import command_line

COMMAND = ("predict", "checkpoint=theirs", *PREDICT[2:])
FINETUNE = (*TRAIN[:4], *TRAIN[6:], "finetune.checkpoint=theirs", "run_dir=other")
LABELS = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def put_model(place, change=lambda settings, plans, dataset: None, **entries):
    """Write a model for the pictures of the run, its plans changed everywhere, and entries of its checkpoint."""
    built = architecture(2)
    plans = plans_of(built, patch=[16, 16], spacing=[1, 1], reader="NaturalImage2DIO")
    ending = {"file_ending": ".png"}
    folder = write_model(
        place / "theirs", plans, [Reference(built["arch_kwargs"], 1, 4)], labels=LABELS, dataset=ending
    )
    plans, dataset = copy.deepcopy(plans), json.loads((folder / "dataset.json").read_text("utf-8"))
    change(plans["configurations"]["3d_fullres"], plans, dataset)
    (folder / "plans.json").write_text(json.dumps(plans), "utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset), "utf-8")
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["init_args"] |= {"plans": plans, "dataset_json": dataset}
    torch.save({**content, **entries}, path)
    return folder


def refused(capsys, *arguments, saying):
    """Run a command line that must end with one message, soon."""
    capsys.readouterr()
    began = time.process_time()
    assert command_line.main(list(arguments)) == 1
    said = capsys.readouterr().err
    assert time.process_time() - began < 5
    assert "Traceback" not in said
    assert said.count("medseg: ") == 1
    assert saying in said, said


def test_a_whole_model_predicts(place):
    put_model(place)
    assert command_line.main(list(COMMAND)) == 0


STAGES = [1] * 3
HUGE = {
    "n_stages": ({"n_stages": 10**9, "features_per_stage": 4, "strides": 1, "kernel_sizes": 3}, "n_stages=1000000000"),
    "features": ({"features_per_stage": [30_000] * 3}, "it describes a network of more than"),
    "convolutions": ({"n_conv_per_stage": [10**6] * 3}, "it describes a network of more than"),
    "decoder": ({"n_conv_per_stage_decoder": [10**6] * 2}, "it describes a network of more than"),
    "kernels": ({"kernel_sizes": [[99_999, 99_999]] * 3}, "it describes a network of more than"),
}


@pytest.mark.parametrize("kind", HUGE)
def test_no_network_is_built_that_the_weights_are_not_of(place, capsys, kind):
    arguments, saying = HUGE[kind]
    put_model(place, lambda settings, *_: settings["architecture"]["arch_kwargs"].update(arguments))
    refused(capsys, *COMMAND, saying=saying)


@pytest.mark.parametrize("kind", ["features", "kernels"])
def test_fine_tuning_builds_no_network_that_the_weights_are_not_of(place, capsys, kind):
    put_model(place, lambda settings, *_: settings["architecture"]["arch_kwargs"].update(HUGE[kind][0]))
    refused(capsys, *FINETUNE, saying=HUGE[kind][1])


NAMES = {
    "network_class_name": lambda settings, plans, _: settings["architecture"].update(network_class_name="os.system"),
    "norm_op": lambda settings, plans, _: settings["architecture"]["arch_kwargs"].update(norm_op="os.mkdir"),
    "nonlin": lambda settings, plans, _: settings["architecture"]["arch_kwargs"].update(nonlin="os.mkdir"),
    "reader": lambda settings, plans, _: plans.update(image_reader_writer="os.mkdir"),
    "resampling": lambda settings, plans, _: settings.update(resampling_fn_data="os.system"),
    "normalisation": lambda settings, plans, _: settings.update(normalization_schemes=["os.system"]),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_code_in_plans_are_names_alone(place, capsys, kind):
    put_model(place, NAMES[kind])
    refused(capsys, *COMMAND, saying="os.mkdir" if kind in ("norm_op", "nonlin", "reader") else "os.system")


def test_pickles_in_a_model_are_not_loaded(place, capsys):
    class Mark:
        def __reduce__(self):
            return os.mkdir, (str(place / "mark"),)

    put_model(place, network_weights=Mark())
    refused(capsys, *COMMAND, saying="not a checkpoint that can be loaded safely")
    assert not (place / "mark").exists()


def test_names_of_classes_are_no_paths(place):
    labels = {"background": 0, "../../outside/a": 1, "\x1b[2J<script>alert(1)</script>": 2, "=cmd|' /C calc'!A0": 3}
    put_model(place, lambda settings, plans, dataset: dataset.update(labels=labels))
    assert command_line.main([*COMMAND, "save_probabilities=true", "overlays=html"]) == 0
    assert not (place.parent / "outside").exists()
    assert "<script>alert" not in (place / "masks" / "contact_sheet.html").read_text("utf-8")
    table = (place / "masks" / "predictions.csv").read_text("utf-8")
    assert "\x1b" not in table
    assert ",=cmd" not in table


def inherit(count):
    def change(settings, plans, dataset):
        chain = {f"c{place}": {"inherits_from": f"c{place + 1}"} for place in range(count)}
        plans["configurations"] |= chain
        settings["inherits_from"] = "c0"

    return change


ODD = {
    "inherits": (inherit(5000), {}, "no configuration"),
    "patch": (lambda settings, *_: settings.update(patch_size=[10**6] * 2), {}, "a window of its network is an array"),
    "spacing": (lambda settings, *_: settings.update(spacing=[1e-9, 1e-9]), {}, "the network's grid is an array"),
    "mirrored": (lambda *_: None, {"inference_allowed_mirroring_axes": (0, 1) * 12}, "each axis of a window once"),
    "trainer": (lambda *_: None, {"trainer_name": ["x"]}, "no readable model of nnU-Net"),
    "weights": (lambda *_: None, {"network_weights": {"a": 1}}, "no readable model of nnU-Net"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_a_model_asks_for_is_checked(place, capsys, kind):
    change, entries, saying = ODD[kind]
    put_model(place, change, **entries)
    refused(capsys, *COMMAND, saying=saying)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", "postprocessing.json"])
def test_a_nested_file_is_named(place, capsys, name):
    (put_model(place) / name).write_text("[" * 100_000)
    refused(capsys, *COMMAND, saying=f"{name}: cannot be read as JSON (it is nested too deeply)")
