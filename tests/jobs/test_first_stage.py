"""Trainings of two stages: who sees what of whose results, going on after a kill, and what their checkpoints hold."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from medseg.cli import command_line
from medseg.config.settings import TrainSettings
from medseg.errors import MedsegError
from medseg.evaluation.report.run_info import plan_terms
from medseg.inference.loading import read_models
from medseg.inference.predictor import Predictor
from medseg.io.datasets.splits import Split
from medseg.jobs.inspect import inspect
from medseg.jobs.train import first_stage, fit, train
from medseg.preprocessing.cache import load
from medseg.training.segmentation import SegmentationModule

FAST = (
    *("model.depth=2", "model.base_channels=4", "trainer.accelerator=cpu", "trainer.averaging=0.5"),
    *("plan.batch_size=2", "trainer.max_time=null", "dataset.dims=2", "dataset.cases=10", "dataset.size=64"),
)
SETTINGS = (
    *("plan.patch_size=[16,16]", "trainer.max_epochs=8", "trainer.steps_per_epoch=2", "first_stage.share=0.75"),
    *("trainer.validation_interval=2", "split.test=0", "logger=none", "first_stage.margin=4"),
)
FOLDS = 3


def state_of(run, name="best.ckpt"):
    return torch.load(run / "checkpoints" / name, weights_only=True)


@pytest.fixture(scope="module")
def cascade(workplace, tmp_path_factory):
    """The arguments of a cascade, its run, and which cases were preprocessed with the results of which models."""
    run = tmp_path_factory.mktemp("cascade") / "run"
    arguments = ["experiment=cascade", *FAST, *SETTINGS]
    arguments += [f"dataset.root={workplace / 'phantom'}", f"cache_dir={workplace / 'cache'}"]
    prepared = []
    with pytest.MonkeyPatch.context() as patch:
        make = fit.cached_cases

        def noted(cases, preprocessor, *rest):
            files = make(cases, preprocessor, *rest)
            prepared.append(([case.id for case in cases], preprocessor, files))
            return files

        patch.setattr(fit, "cached_cases", noted)
        assert command_line.main(["train", f"run_dir={run}", *arguments]) == 0
    return arguments, run, [entry for entry in prepared if hasattr(entry[1], "first")]


@pytest.fixture
def stopped_at(monkeypatch):
    """``stopped_at(line, owner, name, number)``: train until the ``number``-th call of a function is interrupted."""

    def train_until(line, owner, name, number):
        calls, original = [], getattr(owner, name)

        def call(*arguments, **options):
            calls.append(None)
            if len(calls) == number:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, call)
            assert command_line.main(line) == 130

    return train_until


@pytest.fixture
def scan(cascade, workplace):
    return sorted((workplace / "phantom").rglob("2d*/images/*.png"))[0]


def test_no_training_case_sees_a_model_that_was_trained_on_it(cascade):
    _, run, prepared = cascade
    split = Split.load(run / "splits.json")
    folds = [Split.load(run / "first_stage" / str(fold) / "splits.json") for fold in range(FOLDS)]
    assert all(not {*fold.train, *fold.val} - {*split.train} and not fold.test for fold in folds)
    assert len(prepared) == FOLDS + 1
    *out_of_fold, (validated, mean, _) = prepared
    seen = []
    for cases, preprocessor, files in out_of_fold:
        [model] = preprocessor.first.models
        fold = folds[int(model.path.parents[1].name)]
        assert not {*cases} & {*fold.train}
        seen += cases
        for case in map(load, files):
            assert case["image"].shape[0] == 1 + 3
            voxels = tuple(case["false_positives"].T.long())
            background, found = case["label"] == 0, case["image"][1:].amax(0)
            assert background[voxels].all()
            assert (found[voxels] >= 0.5).all()
            assert len(voxels[0]) >= (background & (found > 0.501)).sum()  # images are in half precision
    assert sorted(seen) == sorted(split.train)
    assert validated == list(split.val)
    assert len(mean.first.models) == FOLDS


def test_the_stages_share_the_time_and_the_epochs(cascade):
    _, run, _ = cascade
    epochs = [state_of(run / folder, "last.ckpt")["epoch"] + 1 for folder in ("", *(f"first_stage/{n}" for n in "012"))]
    assert epochs == [2, 2, 2, 2]
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 8  # what was asked for


def test_the_plan_in_a_report_has_both_stages(cascade):
    terms = plan_terms(cascade[1])
    assert terms["first stage folds"] == str(FOLDS)
    planned = json.loads((cascade[1] / "plan.json").read_text())["first_stage"]["spacing"]
    assert terms["first stage spacing"] == " × ".join(map(str, planned))
    assert "patch size" in terms


def test_killed_in_and_between_its_stages_a_cascade_ends_as_one_that_is_not(
    cascade, stopped_at, tmp_path, monkeypatch, capsys
):
    arguments, whole, _ = cascade
    monkeypatch.chdir(tmp_path)
    auto, resume = ["train", "resume=auto", "run_dir=run", *arguments], ["train", "resume=run"]

    step = (SegmentationModule, "learn")
    stopped_at(auto, *step, 2)  # within the first epoch of the first model, before there is a state
    stopped_at(auto, *step, 4 + 3)  # the second model's second epoch
    assert capsys.readouterr().err.count("resume=run") == 2  # said once each time, and never of a stage's own folder
    stopped_at(resume, *step, 2)
    stopped_at(resume, train, "preparations", 1)  # between the stages
    stopped_at(auto, *step, 3)  # the second stage's second epoch
    assert command_line.main(resume) == 0
    scores = [json.loads((run / "result.json").read_text())["score"] for run in (Path("run"), whole)]
    assert scores[0] == scores[1]
    for name in ("best.ckpt", "last.ckpt"):
        for folder in ("", *(f"first_stage/{fold}" for fold in range(FOLDS))):
            one, other = (state_of(run / folder, name)["state_dict"] for run in (Path("run"), whole))
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_settings_that_are_refused_in_the_first_stage_change_nothing_of_the_run(
    cascade, stopped_at, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    stopped_at(["train", "run_dir=run", *cascade[0]], SegmentationModule, "learn", 4)  # the first model's second epoch
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert command_line.main(["train", "resume=run", "loss.ce.class_weights=[1,2,3]"]) == 1
    assert "class_weights" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_a_second_stage_that_has_begun_keeps_its_coarse_models(cascade, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cascade[1], "run")
    folder = Path("run", "first_stage", "0")
    assert command_line.main(["train", f"resume={folder}", "trainer.max_epochs=4"]) == 0  # it becomes another
    changed = state_of(folder, "last.ckpt")["state_dict"]
    shutil.rmtree("run/first_stage/1/checkpoints")
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=12"]) == 0
    ended, begun = (state_of(run, "last.ckpt") for run in (Path("run"), cascade[1]))
    assert ended["epoch"] > begun["epoch"]
    for one, other in zip(ended["first_stage"], begun["first_stage"], strict=True):
        assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())
    kept = ended["first_stage"][0]["state_dict"]
    assert any(not torch.equal(changed[key.replace("network", "average", 1)], value) for key, value in kept.items())

    shutil.rmtree("run/first_stage")
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=16"]) == 1
    assert "Restore these files to go on" in capsys.readouterr().err


def test_a_coarse_model_that_is_not_whole_is_named(cascade, stopped_at, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stopped_at(["train", "run_dir=run", *cascade[0]], train, "preparations", 1)
    folder = Path("run", "first_stage", "1")
    shutil.rmtree(folder / "checkpoints")
    assert command_line.main(["train", "resume=run"]) == 1
    assert f"{folder}: this coarse model is not whole" in capsys.readouterr().err
    shutil.rmtree(folder)
    assert command_line.main(["train", "resume=run"]) == 0


def test_best_ckpt_alone_predicts_as_the_run_does_everywhere(cascade, scan, tmp_path, monkeypatch):
    _, run, _ = cascade
    monkeypatch.chdir(tmp_path)
    shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "model.ckpt")
    expected = Predictor.load(run, device="cpu")(scan).indices
    assert np.array_equal(Predictor.load("model.ckpt", device="cpu")(scan).indices, expected)
    (tmp_path / "in").mkdir()
    shutil.copy(scan, tmp_path / "in")
    assert command_line.main(["predict", "checkpoint=model.ckpt", "input=in", "output=out", "device=cpu"]) == 0
    values = Predictor.load("model.ckpt").label_map.decode(expected)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / scan.name)), values)


def test_two_stages_can_be_members_of_an_ensemble(cascade, scan):
    _, run, _ = cascade
    together = Predictor.load([run, run / "first_stage" / "0"], device="cpu")
    assert len(together.groups) == 2
    assert together(scan).indices.shape == np.asarray(Image.open(scan)).shape


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.pop("first_stage"), "the models of its first stage are not in it"),
        (lambda content: content["first_stage"][0].pop("medseg"), "not a medseg checkpoint"),
        (lambda content: content["first_stage"][1]["state_dict"].popitem(), "its weights do not fit"),
        (lambda content: content.update(first_stage=7), "damaged"),
        (lambda content: content["medseg"]["config"]["first_stage"].update(use="all"), "first_stage.use"),
        (lambda content: content["medseg"]["config"]["plan"].update(coarse_channels=2), "corrects 2 channels"),
    ],
)
def test_a_damaged_first_stage_is_refused(cascade, change, says, tmp_path):
    content = state_of(cascade[1])
    change(content)
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(MedsegError, match=says):
        read_models(tmp_path / "model.ckpt")


def test_what_one_network_can_do_and_two_stages_cannot_is_refused(cascade, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = str(cascade[1]).replace("=", "\\=")
    assert command_line.main(["export", f"checkpoint={run}", "output=model.onnx"]) == 1
    assert "a model of two stages" in capsys.readouterr().err
    assert command_line.main(["train", "experiment=cascade", f"finetune.checkpoint={run}", "dataset.dims=2"]) == 1
    assert "finetune.checkpoint=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("plan.patch_size=[128,128]",), "holds the median scan"),
        (("plan.patch_size=[16,16]", "first_stage.folds=9"), r"of (\d) groups .*\. Set at most first_stage\.folds=\1"),
        (("preprocessing.resize=[64,64]",), "preprocessing.resize="),
        (("plan.patch_size=[16,16]", "first_stage.spacing=[2]"), r"first_stage\.spacing=\[2\] .* give 2 numbers"),
        (("plan.patch_size=[16,16]", "first_stage.spacing=[0.1,0.1]"), "voxels are no larger"),
    ],
)
def test_what_cannot_be_trained_in_two_stages_is_refused(small, overrides, says, tmp_path):
    config = small(2, "experiment=cascade", *SETTINGS[1:], *overrides)
    with pytest.raises(MedsegError, match=says):
        train.run(config | {"run_dir": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()
    assert inspect.run(config | {"run_dir": str(tmp_path / "inspect")})["status"] == "some_failed"


def test_a_2d_network_on_volumes_has_no_first_stage(small, tmp_path):
    with pytest.raises(MedsegError, match=r"leave out model\.spatial_dims=2"):
        train.run(small(3, "experiment=roi", "model.spatial_dims=2") | {"run_dir": str(tmp_path / "run")})


def test_a_spacing_that_is_given_does_not_hide_what_cannot_be(small, tmp_path):
    config = small(3, "experiment=cascade", "model.spatial_dims=2", "first_stage.spacing=[2,2,2]")
    with pytest.raises(MedsegError, match=r"leave out model\.spatial_dims=2"):
        train.run(config | {"run_dir": str(tmp_path / "run")})


@pytest.mark.parametrize("corrected", [0, 3])
def test_whether_the_first_stage_is_corrected_can_be_chosen(small, tmp_path, corrected):
    config = small(2, "experiment=cascade", *SETTINGS, f"plan.coarse_channels={corrected}", "first_stage.errors=0.5")
    assert train.run(config | {"run_dir": str(tmp_path / "run")})["status"] == "done"
    [model] = read_models(tmp_path / "run")
    assert model.description["config"]["plan"]["coarse_channels"] == corrected
    patch = torch.zeros(1, 4, 16, 16)
    patch[:, 2] = 1  # the first stage is sure of the second class
    with torch.no_grad():
        one, other = model.logits(patch)[0], model.network.eval()(patch)[0]
    assert torch.equal(one, other) == (corrected == 0)


def test_regions_of_out_of_fold_models_are_trained_in_and_the_log_says_what_they_miss(small, tmp_path, caplog):
    caplog.set_level("INFO", "medseg")
    config, run = small(2, "experiment=roi", *SETTINGS), tmp_path / "run"
    result = train.run(config | {"run_dir": str(run)})
    assert result["status"] == "done"
    assert "labelled voxels of a case in the mean" in caplog.text
    assert state_of(run)["medseg"]["config"]["first_stage"]["use"] == "region"
    [model] = read_models(run)
    assert model.preprocessor.added_channels == 0
    assert len(model.first_stage) == FOLDS


def test_inspect_offers_two_stages_for_large_scans(small, tmp_path, caplog):
    caplog.set_level("INFO", "medseg")
    inspect.run(small(2, "plan.patch_size=[16,16]") | {"run_dir": str(tmp_path / "run")})
    assert "a patch of 16 x 16 holds 6% of the median scan, 64 x 64 voxels: experiment=cascade" in caplog.text


def test_a_share_of_the_limits_is_a_stages_own():
    from plain_settings import training_settings

    settings = training_settings(
        trainer={"max_time": "00:00:10:00", "max_epochs": None}, first_stage={"use": "region", "share": 0.3}
    )
    assert isinstance(settings, TrainSettings)
    assert (settings.limits.max_time, settings.limits.epochs) == (420, None)
    assert first_stage.duration(90_061) == "01:01:01:01"
