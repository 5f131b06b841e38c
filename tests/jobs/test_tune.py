"""Post-processing chosen on validation cases, by hand-made predictions and through the command."""

import json
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from scipy.stats import sem

from medseg.cli.command_line import main
from medseg.errors import MedsegError
from medseg.evaluation.tuning import select
from medseg.inference.checkpoint import FORMAT, read_checkpoint, rewrite
from medseg.io.labels import LabelMap
from medseg.jobs.evaluate.trials import Prediction, Trials, filled_box
from medseg.jobs.evaluate.tune import tuned, untuned
from medseg.jobs.train import train

CLASSES = LabelMap({"background": 0, "organ": 1, "parts": 2})
NESTED = LabelMap(CLASSES.labels, {"whole": ["organ", "parts"], "parts": ["parts"]})
OFF = {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0, "classes": {}}
INFERENCE = {"overlap": 0.5, "tta": False, "threshold": None, "thresholds": {}, "batch_size": 2}
N = 24
HERE = Path(__file__).parent
TARGET = "thresholding.Threshold"


def truth_of(shape=(12, 12, 12)):
    """An organ of 64 voxels in one piece, and 2 x 8 voxels in two pieces."""
    truth = np.zeros(shape, np.uint8)
    truth[1:5, 1:5, 1:5] = 1
    truth[1:3, 8:10, 1:3] = 2
    truth[8:10, 8:10, 1:3] = 2
    return truth


def kept(folder, number, found, truth, known=(True, True)):
    file = folder / f"{number}.npz"
    np.savez_compressed(file, predicted=found, reference=truth)
    return Prediction(file, (1.0, 1.0, 1.0), "mm", 1.0, np.array(known), found.nbytes + truth.nbytes)


def specks(size):
    """The truth, and an organ's speck of some voxels far away."""
    found = truth_of()
    found[11, 11, :size] = 1
    return found


def chosen(trials, cases):
    return select(partial(trials.scores, cases), trials.space(has_volume=True), trials.start)


def test_specks_go_and_parts_stay_with_gains_by_hand(tmp_path):
    sizes = [1 + number % 4 for number in range(N)]
    cases = [kept(tmp_path, number, specks(size), truth_of()) for number, size in enumerate(sizes)]
    found = chosen(Trials(CLASSES, INFERENCE, OFF), cases)
    assert found.choice == {"organ": {"largest": True}}
    gains = np.array([(1 - 2 * 64 / (64 + 64 + size)) / 2 for size in sizes])  # half, the other class does not change
    [row] = [row for row in found.candidates if row.kept]
    assert row.comparison.gain == pytest.approx(gains.mean())
    assert row.comparison.standard_error == pytest.approx(sem(gains))
    [other] = [row for row in found.candidates if (row.step, row.name, row.value) == (1, "parts", True) and
               row.option == "largest"]  # fmt: skip
    assert other.comparison.gain == pytest.approx((2 * 8 / (8 + 16) - 1) / 2)
    np.testing.assert_allclose(found.after, 1)


def test_noise_changes_nothing(tmp_path):
    """In half of the cases the speck is right."""
    cases = [
        kept(tmp_path, number, specks(3), specks(3) if number % 2 else truth_of()) for number in range(N)
    ]  # fmt: skip
    trials = Trials(CLASSES, INFERENCE, OFF)
    rows = {(row.name, row.option, row.value): row.comparison for row in chosen(trials, cases).candidates}
    gains = np.array([(2 * 64 / (64 + 67) - 1 if number % 2 else 1 - 2 * 64 / (64 + 67)) / 2 for number in range(N)])
    largest = rows["organ", "largest", True]
    assert (largest.gain, largest.standard_error) == pytest.approx((gains.mean(), sem(gains)), abs=1e-12)
    assert chosen(trials, cases).choice == {}


def test_what_the_model_was_trained_with_is_where_it_begins(tmp_path):
    """Here it hurts, and is switched off for the one class."""
    cases = [kept(tmp_path, number, truth_of(), truth_of()) for number in range(N)]
    trials = Trials(CLASSES, INFERENCE, OFF | {"largest": True})
    found = chosen(trials, cases)
    assert found.choice == {"parts": {"largest": False}}
    assert found.before[0] == pytest.approx([1, 2 * 8 / (8 + 16)])


def test_both_empty_is_one_and_not_annotated_is_left_out(tmp_path):
    empty = np.zeros((4, 4, 4), np.uint8)
    cases = [kept(tmp_path, 0, empty, empty), kept(tmp_path, 1, empty, empty, known=(True, False))]
    scores = Trials(CLASSES, INFERENCE, OFF).scores(cases, {})
    np.testing.assert_array_equal(scores, [[1, 1], [1, np.nan]])


def test_thresholds_and_specks_of_regions_that_overlap(tmp_path):
    """Rungs 1 to 5 exceed 0.3 to 0.7. The whole is surer than it should be, its parts less sure."""
    truth = truth_of()
    cases = []
    for number in range(N):
        levels = np.zeros((2, *truth.shape), np.uint8)
        levels[0][truth > 0] = 5
        levels[0][6, 6, : 2 + number % 3] = 3  # above 0.5, not above 0.6
        levels[1][truth == 2] = 2  # above 0.4, not above 0.5
        cases.append(kept(tmp_path, number, levels, truth))
    trials = Trials(NESTED, INFERENCE, OFF)
    assert trials.thresholds == (0.3, 0.4, 0.5, 0.6, 0.7)
    found = chosen(trials, cases)
    assert found.choice == {"parts": {"threshold": 0.3}, "whole": {"threshold": 0.6}}
    before = [[2 * 80 / (80 + 82 + number % 3), 0] for number in range(N)]
    np.testing.assert_allclose(found.before, before)
    np.testing.assert_allclose(found.after, 1)
    options = trials.options(found.choice)
    assert options["inference"] == INFERENCE | {"thresholds": {"parts": 0.3, "whole": 0.6}}
    assert options["postprocess"] == OFF


@pytest.mark.parametrize(
    ("spacing", "unit", "option", "least"),
    [((1.0, 1.0), "px", "min_voxels", 10), ((1.0, 1.0, 2.0), "mm", "min_ml", 0.01)],
)
def test_sizes_are_in_pixels_or_in_millilitres(tmp_path, spacing, unit, option, least):
    """Two parts of 36 voxels or more are right, specks of 3 are not; the largest component would lose a part."""
    truth = np.zeros([20] * len(spacing), np.uint8)
    truth[1:7, 1:7, ...] = truth[10:16, 10:16, ...] = 1
    found = truth.copy()
    found[19, :3, ...] = 1
    if len(spacing) == 3:
        truth[..., 1:], found[..., 1:] = 0, 0
    label_map = LabelMap({"background": 0, "cells": 1})
    file = tmp_path / "case.npz"
    np.savez_compressed(file, predicted=found, reference=truth)
    case = Prediction(file, spacing, unit, float(np.prod(spacing)), np.array([True]), 2 * found.nbytes)
    trials = Trials(label_map, INFERENCE, OFF)
    space = trials.space(has_volume=case.has_volume)
    assert select(partial(trials.scores, [case] * N), space, {}).choice == {"cells": {option: least}}


def test_a_box_holds_all_that_is_not_background():
    arrays = np.zeros((2, 5, 6, 7), np.uint8)
    assert filled_box(arrays) == (slice(0, 1),) * 3
    arrays[0, 1, 2, 3] = arrays[1, 3, 2, 6] = 255
    assert filled_box(arrays) == (slice(1, 4), slice(2, 3), slice(3, 7))


def content(**changes):
    """What a checkpoint describes, with the thresholding network."""
    return {
        "format": FORMAT, "version": "0", "channels": None, "classes": {"background": 0, "thing": 1},
        "regions": None, "region_order": None,
        "config": {
            "model": {"_target_": TARGET, "value": 0.5},
            "preprocessing": {"spacing": None, "resize": None, "crop": False, "normalize": ["none"]},
            "inference": INFERENCE, "postprocess": OFF, "trainer": {"precision": "fp32"},
            "plan": {"patch_size": [16] * 3, "mirror_axes": [], "slice_axis": None, "context": 0},
            "dataset": {"name": "test", "geometry": "error", "reference": 0},
        },
    } | changes  # fmt: skip


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert tensor.view(torch.uint8).equal(other[name].view(torch.uint8))


def test_a_checkpoint_keeps_its_weights_bit_for_bit(tmp_path):
    path = tmp_path / "one.ckpt"
    weights = {
        "network.a": torch.tensor([1.0, -3.4e38, -0.0, 1e-42]),
        "network.b": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16(),
        "network.count": torch.tensor(7),
    }
    weights["network.count"] = weights["network.count"][None]
    torch.save({"state_dict": weights, "epoch": 3, "medseg": content()}, path)
    options = {"postprocess": OFF | {"classes": {"thing": {"largest": True}}}, "inference": INFERENCE}
    record = dict.fromkeys(("n_cases", "gain", "standard_error", "mean_dice"), 1)
    rewrite(path, partial(tuned, options=options, record=record))
    raw = torch.load(path, weights_only=True)
    assert_same_weights(raw["state_dict"], weights)
    assert raw["epoch"] == 3
    assert read_checkpoint(path).content["config"]["postprocess"]["classes"] == {"thing": {"largest": True}}
    rewrite(path, partial(tuned, options={**options, "postprocess": OFF | {"largest": True}}, record=record))  # again
    rewrite(path, untuned)
    raw = torch.load(path, weights_only=True)
    assert raw["medseg"] == content()
    assert_same_weights(raw["state_dict"], weights)
    assert [file.name for file in tmp_path.iterdir()] == ["one.ckpt"]


def test_a_checkpoint_of_an_older_format_becomes_one_of_the_present(tmp_path):
    path = tmp_path / "old.ckpt"
    path.write_bytes((HERE.parent / "inference" / "checkpoints" / "format_1.ckpt").read_bytes())
    rewrite(path, lambda description: description)
    description = torch.load(path, weights_only=True)["medseg"]
    assert description["format"] == FORMAT
    assert description == read_checkpoint(path).content


def write_run(folder, names, description, **dataset):
    """A run directory, as training leaves it, beside its ``data``; these cases are its validation part."""
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {}, "medseg": description}, folder / "checkpoints" / "best.ckpt")
    write_split(folder, names)
    paths = ("dataset/folder.yaml", "common/dataset.yaml")
    own, common = (yaml.safe_load((HERE.parents[1] / "conf" / path).read_text()) for path in paths)
    node = common | {name: value for name, value in own.items() if name != "defaults"}
    node |= {"name": "test", "root": str(folder.parent / "data"), **dataset}
    (folder / "config.yaml").write_text(yaml.safe_dump({"dataset": node}))
    return folder


def write_image(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, np.eye(4)).to_filename(path)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_dir(work):
    """A run with a network that copies its input's threshold, and 24 validation cases that all have a speck."""
    names = [f"case_{number:02d}" for number in range(N)]
    for number, name in enumerate(names):
        write_image(work / "data" / "images" / f"{name}.nii.gz", (specks(1 + number % 4) == 1).astype(np.uint8))
        write_image(work / "data" / "masks" / f"{name}.nii.gz", (truth_of() == 1).astype(np.uint8))
    return write_run(work / "run", names, content(), labels={"background": 0, "thing": 1})


def write_split(folder, names):
    split = {"train": [], "val": names, "test": names[:1]}
    (folder / "splits.json").write_text(json.dumps({"format": 1, "seed": 0, "hashes": {}, **split}))


def command(name, folder, *settings):
    trust = "trust=[thresholding.Threshold,thresholding.Probabilities]"
    return main([name, f"checkpoint={folder}", trust, "device=cpu", *settings])


def tune(folder, *settings):
    status = command("eval", folder, "tune=postprocess", *settings, f"run_dir={folder.parent / 'tuned'}")
    return status, json.loads((folder.parent / "tuned" / "tuning.json").read_text())


def test_the_command_tunes_and_prediction_follows(run_dir, tmp_path, capsys):
    status, report = tune(run_dir)
    assert status == 0
    assert report["choice"] == {"thing": {"largest": True}}
    gains = np.array([1 - 2 * 64 / (64 + 64 + 1 + number % 4) for number in range(N)])
    assert (report["gain"], report["standard_error"]) == pytest.approx((gains.mean(), sem(gains)))
    assert report["mean_dice"] == pytest.approx({"before": 1 - gains.mean(), "after": 1})
    assert "kept" in capsys.readouterr().out
    result = json.loads((tmp_path / "tuned" / "result.json").read_text())
    assert (result["status"], result["score"]) == ("done", pytest.approx(1))
    assert not list((tmp_path / "tuned").rglob("*.npz"))

    def voxels(*settings):
        command("predict", run_dir, "input=data/images/case_03.nii.gz", "output=masks", *settings)
        return int(np.asarray(nib.load("masks/case_03.nii.gz").dataobj).sum())

    assert voxels() == 64
    assert voxels("postprocess.largest=false") == 68  # the command line goes first
    command("eval", run_dir, "subset=val", "run_dir=report")
    assert json.loads(Path("report/metrics.json").read_text())["mean"]["dice"] == pytest.approx(1)
    assert command("eval", run_dir, "tune=undo") == 0
    assert voxels() == 68
    assert command("eval", run_dir, "tune=undo") == 1
    assert "nothing to undo" in capsys.readouterr().err


def test_regions_are_tuned_from_their_probabilities(work):
    """The network is sure at 0.65 of what is not there, and unsure at 0.35 of parts that are."""
    names = [f"case_{number:02d}" for number in range(N)]
    truth = truth_of()
    for number, name in enumerate(names):
        whole, parts = np.where(truth > 0, 0.9, 0.1), np.where(truth == 2, 0.35, 0.1)
        whole[6:9, 6, : 3 + number % 3] = 0.65
        for ending, array in (("a", whole), ("b", parts)):
            write_image(work / "data" / "images" / f"{name}_{ending}.nii.gz", array.astype(np.float32))
        write_image(work / "data" / "masks" / f"{name}.nii.gz", truth)
    description = content(classes=CLASSES.labels, regions=NESTED.regions, channels=[["_a"], ["_b"]])
    description["config"]["model"] = {"_target_": "thresholding.Probabilities"}
    description["config"]["preprocessing"]["normalize"] = ["none"] * 2
    node = {"labels": CLASSES.labels, "regions": NESTED.regions, "channels": ["_a", "_b"]}
    run_dir = write_run(work / "run", names, description, **node)
    status, report = tune(run_dir)
    assert status == 0
    assert report["choice"]["parts"] == {"threshold": 0.3}
    assert len(report["choice"]["whole"]) == 1  # one option is enough: what is left of the rest gains nothing
    before = [(2 * 80 / (160 + 3 * (3 + number % 3)) + 0) / 2 for number in range(N)]
    assert report["mean_dice"] == pytest.approx({"before": np.mean(before), "after": 1})
    command("eval", run_dir, "subset=val", "run_dir=after")
    command("eval", run_dir, "subset=val", "run_dir=plain", "inference.threshold=0.5", "postprocess.min_ml=0")
    for folder, expected in (("after", 1), ("plain", np.mean(before))):
        assert json.loads(Path(folder, "metrics.json").read_text())["mean"]["dice"] == pytest.approx(expected)


def test_nineteen_cases_are_too_few(run_dir, caplog):
    write_split(run_dir, [f"case_{number:02d}" for number in range(19)])
    before = (run_dir / "checkpoints" / "best.ckpt").read_bytes()
    status, report = tune(run_dir)
    assert status == 0
    assert report == {"n_cases": 19, "needed": 20, "changed": False, "candidates": []}
    assert "19 cases to choose on, 20 are needed" in caplog.text
    assert (run_dir / "checkpoints" / "best.ckpt").read_bytes() == before


def test_a_broken_case_stops_no_other(run_dir):
    (run_dir.parent / "data" / "masks" / "case_00.nii.gz").write_bytes(b"broken")
    status, report = tune(run_dir)
    assert (status, report["n_cases"], report["changed"]) == (3, 23, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["tune=postproces"], "Did you mean 'postprocess'"),
        (["tune=postprocess", "subset=test"], "options are chosen on the validation cases"),
        (["tune=postprocess", "postprocess.largest=true"], r"leave out postprocess.largest"),
        (["tune=postprocess", "inference.threshold=0.4"], r"leave out inference.threshold"),
        (["postprocess.classes={thin: {largest: true}}"], "'thing'"),
        (["inference.thresholds={thing: 0.4}"], "no regions"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(run_dir, settings, message, capsys):
    assert command("eval", run_dir, *settings) == 1
    assert message in capsys.readouterr().err
    assert not (run_dir.parent / "outputs").exists()


def test_options_of_classes_are_checked_before_training(small, tmp_path):
    config = small(2)
    config["postprocess"]["classes"] = {"cor": {"largest": True}}
    with pytest.raises(MedsegError, match=r"classes\.cor.*'core'"):
        train.run(config | {"run_dir": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


def test_tuning_names_a_checkpoint_that_cannot_be_tuned(tmp_path):
    with pytest.raises(MedsegError, match="no such file"):
        rewrite(tmp_path / "none.ckpt", untuned)
