"""Pre-trainings of a few steps: what they leave on disk, that they come out the same, that no mask is looked at."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from medseg import Predictor
from medseg.config.check import read_settings
from medseg.config.instantiate import build
from medseg.config.settings import TrainSettings
from medseg.errors import MedsegError
from medseg.inference.checkpoint import read_checkpoint
from medseg.io.datasets.dataset import open_dataset
from medseg.io.datasets.splits import Split, split_as_set
from medseg.jobs.train import pretrain, train

SMALL = (
    "model.depth=2",
    "model.base_channels=4",
    "trainer.max_time=null",
    "trainer.max_epochs=2",
    "trainer.steps_per_epoch=3",
    "trainer.validation_interval=1",
    "trainer.averaging=0.5",
    "trainer.accelerator=cpu",
    "plan.batch_size=2",
)
FILES = (
    *("config.yaml", "splits.json", "plan.json", "environment.json", "train.log", "result.json", "metrics.csv"),
    *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "reconstruction.png"),
)


@pytest.fixture(scope="session")
def few_steps(composed, workplace):
    """Return ``few_steps(*overrides)``: the config of a pre-training of a few steps."""

    def compose_few(*overrides):
        return composed("pretrain", *SMALL, *overrides) | {"cache_dir": str(workplace / "cache")}

    return compose_few


@pytest.fixture(scope="session")
def on_phantom(few_steps, workplace):
    """Return ``on_phantom(dims, *overrides)``: the same on the phantom."""

    def compose_phantom(dims, *overrides):
        size = 32 if dims == 3 else 64
        config = few_steps(f"dataset.dims={dims}", "dataset.cases=10", f"dataset.size={size}", *overrides)
        config["dataset"]["root"] = str(workplace / "phantom")
        return config

    return compose_phantom


@pytest.fixture(scope="session", params=[2, 3])
def pretrained(request, on_phantom, workplace):
    """Return the directory of a finished pre-training, in 2D and in 3D."""
    run_dir = workplace / f"pretrained {request.param}d"
    pretrain.run(on_phantom(request.param) | {"run_dir": str(run_dir)})
    return run_dir


@pytest.fixture
def scans(tmp_path):
    """Return a folder of pictures without masks."""
    root = tmp_path / "scans"
    root.mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        pixels = generator.normal(100, 30, (40, 48)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


def dims_of(run_dir):
    return 3 if "3d" in run_dir.name else 2


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def weights_of(run_dir):
    return read_checkpoint(run_dir).weights


def pictures_in(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return [(tag, [event.step for event in events.Images(tag)]) for tag in events.Tags()["images"]]


def test_a_run_leaves_everything_that_its_directory_promises(pretrained):
    assert not [name for name in FILES if not (pretrained / name).is_file()]
    assert not (pretrained / "test").exists()
    assert not list(pretrained.rglob(".*"))
    assert pictures_in(pretrained / "tensorboard") == [("val/reconstruction", [3, 6])]


def test_the_lowest_loss_is_chosen(pretrained):
    rows = rows_of(pretrained / "metrics.csv")
    losses = [float(row["val_loss"]) for row in rows]
    result = json.loads((pretrained / "result.json").read_text())
    smoothed = [losses[0], sum(losses) / 2]
    best = min(range(2), key=lambda place: smoothed[place])
    assert result["selection"]["best"]["epoch"] == best + 1
    assert result["score"] == pytest.approx(-losses[best], abs=1e-6)
    assert (result["status"], result["reason"]) == ("done", "max_epochs reached")


def test_the_same_cases_are_left_for_the_test_as_in_training_and_those_without_a_mask_train(small, pretrained):
    settings = read_settings(TrainSettings, small(dims_of(pretrained)))
    dataset = open_dataset(settings.dataset)
    expected = split_as_set(dataset.cases, settings.split, settings.seed, dataset.split_file)
    found = Split.load(pretrained / "splits.json")
    assert (found.val, found.test) == (expected.val, expected.test)
    added = {case.id for case in dataset.unlabelled}
    assert len(added) == (2 if dims_of(pretrained) == 3 else 0)
    assert set(found.train) == {*expected.train, *added}


def test_weights_fit_a_segmentation_network_of_the_same_plan_but_for_its_head(pretrained):
    checkpoint = read_checkpoint(pretrained)
    model = checkpoint.content["config"]["model"]
    assert model["out_channels"] == 1
    ours = build({**model, "out_channels": 4}, "model", ()).state_dict()
    assert ours.keys() == checkpoint.weights.keys()
    misfits = {name for name, value in checkpoint.weights.items() if ours[name].shape != value.shape}
    assert misfits == {"heads.0.weight", "heads.0.bias"}


def test_the_checkpoint_has_all_that_fine_tuning_takes_and_no_classes(pretrained):
    content = torch.load(pretrained / "checkpoints" / "best.ckpt", weights_only=True)["medseg"]
    assert (content["classes"], content["regions"]) == ({}, None)
    assert content["config"]["preprocessing"]["normalize"] == ["zscore"]
    assert {"model", "plan", "preprocessing", "pretext"} <= content["config"].keys()
    assert str(pretrained.parent) not in json.dumps(content)


def test_blocks_are_what_a_voxel_above_the_bottom_stands_for(pretrained):
    plan = json.loads((pretrained / "plan.json").read_text())
    assert plan["pretext"]["block"] == plan["plan"]["strides"][0]  # of two levels


def test_predicting_with_it_is_one_clear_error(pretrained):
    with pytest.raises(MedsegError, match=r"pre-trained without masks .*finetune\.checkpoint="):
        Predictor.load(pretrained)


@pytest.mark.parametrize("pretext", ["masked", "genesis"])
def test_two_runs_come_out_the_same(on_phantom, tmp_path, pretext):
    config = on_phantom(2, f"pretext={pretext}")
    runs = [tmp_path / name for name in ("one", "two")]
    for run_dir in runs:
        pretrain.run(config | {"run_dir": str(run_dir)})
    first, second = map(weights_of, runs)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    first, second = ([(row["train_loss"], row["val_loss"]) for row in rows_of(run / "metrics.csv")] for run in runs)
    assert first == second


def test_masks_are_not_looked_at(on_phantom, pretrained, tmp_path):
    config = on_phantom(dims_of(pretrained))
    shutil.copytree(config["dataset"]["root"], tmp_path / "phantom")
    config["dataset"] |= {"root": str(tmp_path / "phantom")}
    for mask in masks_below(tmp_path / "phantom"):
        mask.write_bytes(b"no mask")
    pretrain.run(config | {"run_dir": str(tmp_path / "run")})
    expected = weights_of(pretrained)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(tmp_path / "run").items())


def masks_below(root):
    found = [path for path in root.rglob("*") if path.is_file() and path.parent.name.startswith(("masks", "labels"))]
    assert found
    return found


def test_a_run_is_resumed_where_it_stopped(on_phantom, tmp_path, caplog):
    caplog.set_level("INFO", logger="medseg")
    run_dir = tmp_path / "run"
    pretrain.run(on_phantom(2) | {"run_dir": str(run_dir)})
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    saved["trainer"]["max_epochs"] = 4
    result = pretrain.run(saved | {"resume": str(run_dir), "run_dir": str(run_dir)})
    assert [int(row["step"]) for row in rows_of(run_dir / "metrics.csv")] == [3, 6, 9, 12]
    assert result["selection"]["last"]["epoch"] == 4
    for row in rows_of(run_dir / "metrics.csv"):
        assert f"validation loss {float(row['val_loss']):.4f}" in caplog.text


def test_a_factor_on_the_rate_of_the_head_is_refused(on_phantom, tmp_path):
    config = on_phantom(2) | {"run_dir": str(tmp_path / "run")}
    config["trainer"] |= {"head_factor": 7.0}
    with pytest.raises(MedsegError, match=r"trainer\.head_factor=7 is for medseg train"):
        pretrain.run(config)
    assert not (tmp_path / "run").exists()


def test_patience_waits_for_a_lower_loss(on_phantom, tmp_path):
    overrides = ("trainer.max_epochs=6", "trainer.patience=1", "optimizer.lr=1e-12")
    result = pretrain.run(on_phantom(2, *overrides) | {"run_dir": str(tmp_path / "run")})
    assert result["reason"] == "no further gain"
    assert len(rows_of(tmp_path / "run" / "metrics.csv")) < 6


def test_a_folder_of_scans_is_enough_and_none_is_kept_for_a_test(few_steps, scans, tmp_path):
    config = few_steps("dataset=scans", f"dataset.root='{scans}'", "model.deep_supervision=true", "pretext.share=0.5")
    pretrain.run(config | {"run_dir": str(tmp_path / "run")})
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert (len(splits["train"]), len(splits["val"]), splits["test"]) == (5, 1, [])
    assert len(weights_of(tmp_path / "run")["heads.1.weight"]) == 1


def test_training_on_scans_without_masks_is_refused(composed, scans, tmp_path):
    config = composed("train", "dataset=scans", f"dataset.root='{scans}'")
    with pytest.raises(MedsegError, match=r"6 scans have no mask: medseg pretrain learns from them"):
        train.run(config | {"run_dir": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


def test_a_2d_network_learns_from_volumes_with_neighbouring_slices(few_steps, tmp_path):
    root = tmp_path / "scans"
    root.mkdir()
    generator = np.random.default_rng(0)
    for number in range(4):
        values = generator.normal(size=(24, 20, 6, 2)).astype(np.float32)  # two channels
        nib.save(nib.Nifti1Image(values, np.diag([1.0, 1, 3, 1])), root / f"{number}.nii.gz")
    config = few_steps("dataset=scans", f"dataset.root='{root}'", "model.spatial_dims=2", "plan.context=1")
    pretrain.run(config | {"run_dir": str(tmp_path / "run")})
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["pretext"]["block"] == [2, 2, 3]  # all slices that are seen together are hidden together
    weights = weights_of(tmp_path / "run")
    assert weights["heads.0.weight"].shape[0] == 2
    assert next(iter(weights.values())).shape[1] == 6  # two channels of three slices


def test_a_training_begins_with_it(small, pretrained, tmp_path, caplog):
    caplog.set_level("INFO", logger="medseg")
    config = small(dims_of(pretrained), "trainer.max_epochs=1", "model.base_channels=null", "model.depth=null")
    config["finetune"] |= {"checkpoint": str(pretrained)}
    train.run(config | {"run_dir": str(tmp_path / "run")})
    began = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert began["share"] > 0.98
    assert {misfit["key"] for misfit in began["not_taken"]} == {"heads.0.weight", "heads.0.bias"}
    ours, theirs = (json.loads((run / "splits.json").read_text()) for run in (tmp_path / "run", pretrained))
    assert ours["test"] == theirs["test"]
