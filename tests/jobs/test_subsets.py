"""An evaluation takes the cases of the fold that its models were trained with, never their training cases unsaid."""

import json

import nibabel as nib
import numpy as np
import pytest
import yaml
from thresholding import TARGET, blob, write_checkpoint

from medseg.errors import MedsegError
from medseg.inference.predictor import Predictor
from medseg.io.case import Case, Dataset
from medseg.io.datasets.annotations import read_labelled
from medseg.io.labels import LabelMap
from medseg.io.layouts import nnunet
from medseg.jobs.evaluate import evaluate
from medseg.jobs.training_run import select
from medseg.preprocessing.fingerprint.fingerprint import voxel_hash

NAMES = [f"c{number}" for number in range(6)]
FOLDS = [
    {"train": [name for name in NAMES if name not in NAMES[first : first + 2]], "val": NAMES[first : first + 2]}
    for first in (0, 2, 4)
]


@pytest.fixture
def data(tmp_path):
    """A data set of nnU-Net with its split of three folds."""
    root = tmp_path / "Dataset001_X"
    for name in NAMES:
        for folder, file in (("imagesTr", f"{name}_0000"), ("labelsTr", name)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(blob((16, 18, 20)).astype(np.uint8), np.eye(4)), root / folder / f"{file}.nii.gz")
    labels = {"background": 0, "thing": 1}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 6, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content))
    (root / "splits_final.json").write_text(json.dumps(FOLDS))
    return root


def write_run(folder, data, train, val, test=()):
    """A run's directory with a network that needs no training, and with this split."""
    (folder / "checkpoints").mkdir(parents=True)
    write_checkpoint(folder / "checkpoints" / "best.ckpt", dims=3)
    split = {"train": list(train), "val": list(val), "test": list(test)}
    (folder / "splits.json").write_text(
        json.dumps({"format": 1, "seed": 0, "hashes": {name: f"hash of {name}" for name in NAMES}, **split})
    )
    node = {"name": "x", "root": str(data), "layout": {"_target_": "medseg.io.layouts.nnunet", "root": str(data)}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"dataset": node}))
    return folder


@pytest.fixture
def evaluated(composed, data, tmp_path):
    """Return ``evaluated(checkpoint, *overrides)``: the cases that eval has scored."""

    def run(checkpoint, *overrides):
        config = composed("eval", "device=cpu", "examples=1", *overrides)
        if "layout" in config["dataset"]:
            config["dataset"]["root"] = str(data)
        folder = tmp_path / f"eval {len(list(tmp_path.glob('eval *')))}"
        evaluate.run(config | {"checkpoint": checkpoint, "trust": [TARGET], "run_dir": str(folder)})
        rows = [row for file in folder.rglob("cases.csv") for row in file.read_text().splitlines()[1:]]
        return sorted({row.split(",")[0] for row in rows})

    return run


VAL = ("dataset=nnunet", "subset=val")


@pytest.mark.parametrize("fold", range(3))
def test_validation_cases_are_those_of_the_fold_that_the_run_was_trained_with(evaluated, data, tmp_path, fold):
    run = write_run(tmp_path / "run", data, **FOLDS[fold])
    assert evaluated(str(run), *VAL) == FOLDS[fold]["val"]
    assert evaluated(str(run / "checkpoints" / "best.ckpt"), "subset=val") == FOLDS[fold]["val"]


def test_runs_of_fewer_cases_are_of_the_fold_too(evaluated, data, tmp_path):
    run = write_run(tmp_path / "run", data, FOLDS[1]["train"][:1], FOLDS[1]["val"][:1])
    assert evaluated(str(run), *VAL) == FOLDS[1]["val"]


def test_a_fold_that_is_not_known_has_to_be_said(evaluated, data, tmp_path, caplog):
    run = write_run(tmp_path / "run", data, **FOLDS[2])
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    with pytest.raises(
        MedsegError, match=r"splits_final.json holds 3 folds. Say by split.fold(?s:.)*moved.ckpt: not known"
    ):
        evaluated(str(moved), *VAL)
    assert evaluated(str(moved), *VAL, "split.fold=2") == FOLDS[2]["val"]
    assert "trained with other folds" not in caplog.text
    assert evaluated(str(run), *VAL, "split.fold=0") == FOLDS[0]["val"]
    assert "trained with other folds" in caplog.text
    with pytest.raises(MedsegError, match=r"split.fold=3: .* holds 3 folds"):
        evaluated(str(run), *VAL, "split.fold=3")


@pytest.mark.parametrize("ensemble", ["true", "false"])
def test_models_of_several_folds_have_no_common_validation_cases(evaluated, data, tmp_path, ensemble):
    runs = [str(write_run(tmp_path / f"run {fold}", data, **FOLDS[fold])) for fold in range(2)]
    with pytest.raises(MedsegError, match=r"(?s)Say by split.fold.*run 0.*: fold 0.*run 1.*: fold 1"):
        evaluated(runs, *VAL, f"ensemble={ensemble}")


def test_folds_are_validated_out_of_fold_each_case_once_by_the_model_that_has_not_seen_it(
    evaluated, data, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "medseg")
    runs = [write_run(tmp_path / f"run {fold}", data, **FOLDS[fold]) for fold in range(3)]
    used = {}
    load = Predictor.load

    def spying(path, **options):
        predictor = load(path, **options)
        [file] = path

        def segment(scan):
            used.setdefault(file.parent.parent.name, []).append(scan)
            return predictor(scan)

        segment.label_map = predictor.label_map
        return segment

    monkeypatch.setattr(Predictor, "load", spying)
    assert evaluated(list(map(str, runs)), "subset=val", "examples=0") == NAMES
    assert {run: len(scans) for run, scans in used.items()} == {f"run {fold}": 2 for fold in range(3)}
    report = json.loads((tmp_path / "eval 0" / "metrics.json").read_text())
    assert report["n_cases"] == 6
    assert "each case by the one of 3 models that was not trained on it" in report["notes"][0]
    assert report["notes"][0] in caplog.text
    assert {name: fold["n_cases"] for name, fold in report["strata"]["fold"].items()} == {
        f"fold {fold}": 2 for fold in range(3)
    }
    assert report["over_strata"]["fold"]["dice"]["n"] == 3
    assert "out of fold" in (tmp_path / "eval 0" / "report.html").read_text()


def test_an_ensemble_is_tested_on_cases_alone_that_no_member_has_seen(evaluated, data, tmp_path, caplog):
    one = write_run(tmp_path / "one", data, NAMES[:2], NAMES[2:3], NAMES[3:])
    other = write_run(tmp_path / "other", data, NAMES[1:4], NAMES[4:5], NAMES[5:])
    assert evaluated(str(one)) == NAMES[3:]
    for ensemble in ("true", "false"):
        assert evaluated([str(one), str(other)], f"ensemble={ensemble}") == NAMES[5:]
        assert "1 of 3 cases: 2 were left out, which some model has seen in training" in caplog.text
        caplog.clear()
    third = write_run(tmp_path / "third", data, NAMES[3:5], NAMES[5:])
    with pytest.raises(MedsegError, match=r"subset=test: each of its 3 cases was seen in training by one of the 2"):
        evaluated([str(one), str(third)])


def test_cases_are_known_by_their_voxels_under_any_name(evaluated, data, tmp_path):
    one = write_run(tmp_path / "one", data, NAMES[:2], NAMES[2:3], NAMES[3:])
    other = write_run(tmp_path / "other", data, ["a"], ["b"], ["c"])
    split = json.loads((other / "splits.json").read_text())
    split["hashes"] = {"a": "hash of c3", "b": "hash of c5", "c": "hash of c0"}
    (other / "splits.json").write_text(json.dumps(split))
    assert evaluated([str(one), str(other)]) == ["c4"]


def test_what_the_weights_had_seen_before_counts_too(evaluated, data, tmp_path):
    runs = [write_run(tmp_path / name, data, NAMES[:2], NAMES[2:3], NAMES[3:]) for name in ("one", "other")]
    (runs[1] / "finetune.json").write_text(json.dumps({"seen": {"hash of c4": "train", "hash of c5": "test"}}))
    assert evaluated(list(map(str, runs))) == ["c3", "c5"]


def test_cases_of_another_data_set_that_a_model_was_trained_on_are_said(evaluated, data, tmp_path, caplog):
    """Here all images are the same, so that the one case of the training stands for all of them."""
    run = write_run(tmp_path / "run", data, NAMES[:1], NAMES[1:2])
    split = json.loads((run / "splits.json").read_text())
    scan = read_labelled(nnunet(root=data).cases[0], LabelMap({"background": 0, "thing": 1}))[0]
    split["hashes"] = {NAMES[0]: voxel_hash(scan)}
    (run / "splits.json").write_text(json.dumps(split))
    assert evaluated(str(run), "dataset=nnunet") == NAMES
    assert "6 of 6 cases, such as c0, were trained on by run: their scores are too good" in caplog.text
    report = json.loads((tmp_path / "eval 0" / "metrics.json").read_text())
    assert report["notes"] == ["6 of 6 cases, such as c0, were trained on by run: their scores are too good"]


def test_nnunets_models_are_known_by_their_folder(tmp_path):
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    files = [folder / f"fold_{fold}" / "checkpoint_final.pth" for fold in ("0", "1", "all")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    for name in ("plans.json", "dataset.json"):
        (folder / name).write_text("{}")
    (tmp_path / "splits_final.json").write_text(json.dumps(FOLDS))
    dataset = Dataset(tuple(Case(name, name, ()) for name in NAMES), split_file=tmp_path / "splits_final.json")
    for fold in range(2):
        assert [case.id for case in select(dataset, "val", None, models=[files[fold]])] == FOLDS[fold]["val"]
    for several in (files[:2], files[2:], []):
        with pytest.raises(MedsegError, match=r"Say by split.fold"):
            select(dataset, "val", None, models=several)
