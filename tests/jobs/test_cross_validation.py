"""The reports of a sweep of folds, and the selection among several, with networks that threshold and need no training."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from thresholding import TARGET, blob, write_checkpoint

from medseg.errors import MedsegError
from medseg.inference.loading import files_of
from medseg.inference.predictor import Predictor
from medseg.jobs.evaluate import cross_validation
from medseg.jobs.evaluate.cross_validation import cross_validate

NAMES = [f"c{number:02}" for number in range(12)]
TEST = NAMES[9:]
FOLDS = [NAMES[first:9:3] for first in range(3)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Volumes whose structure is 1, but for a half of it that is 0.6 in every second; the others have 0.6 beside it."""
    root = tmp_path_factory.mktemp("data") / "Dataset001_X"
    truth = blob((16, 18, 20))
    beside = np.roll(truth, 4, axis=0) & ~truth
    within = truth & (np.arange(18)[:, None] < 9)
    for number, name in enumerate(NAMES):
        image = truth.astype(np.float32)
        image[within if number % 2 else beside] = 0.55 + number / 1000  # so that no two scans are the same
        for folder, file, voxels in (("imagesTr", f"{name}_0000", image), ("labelsTr", name, truth.astype(np.uint8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / folder / f"{file}.nii.gz")
    labels = {"background": 0, "thing": 1}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 12, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def write_run(folder, data, val, overrides, value, last):
    """A run's directory, whose chosen weights threshold at one value and the last ones at another."""
    (folder / "checkpoints").mkdir(parents=True)
    write_checkpoint(folder / "checkpoints" / "best.ckpt", dims=3, value=value)
    write_checkpoint(folder / "checkpoints" / "last.ckpt", dims=3, value=last)
    train = [name for name in NAMES if name not in (*val, *TEST)]
    split = {"train": train, "val": list(val), "test": TEST, "hashes": {name: f"hash of {name}" for name in NAMES}}
    (folder / "splits.json").write_text(json.dumps({"format": 1, "seed": 0, **split}))
    node = {"name": "x", "root": str(data), "layout": {"_target_": "medseg.io.layouts.nnunet", "root": str(data)}}
    config = {"dataset": node, "metrics": {"names": ["dice"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "result.json").write_text(json.dumps({"status": "done", "score": 0.5, "overrides": overrides}))
    return folder


def write_sweep(folder, data, value, last=0.3):
    for fold, val in enumerate(FOLDS):
        write_run(folder / str(fold), data, val, [f"model.value={value}", f"split.fold={fold}"], value, last)
    settings = ["-m", f"model.value={value}", "split.fold=0,1,2"]
    record = {"settings": settings, "has_ended": True, "rankings": [], "best": [], "ensemble": [0, 1, 2]}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def sweep(data, tmp_path):
    return write_sweep(tmp_path / "sweep", data, 0.5)


def validate(sweep, **options):
    return cross_validate(sweep, device="cpu", trust=[TARGET], **options)


def read(path):
    return json.loads(Path(path).read_text())


def dice_of(folder):
    rows = [line.split(",") for line in (folder / "cases.csv").read_text().splitlines()]
    columns = [rows[0].index(name) for name in ("case", "dice", "fold")]
    return [tuple(row[column] for column in columns) for row in rows[1:]]


def test_each_case_is_reported_once_by_the_model_of_its_fold(sweep, capsys):
    result = validate(sweep)
    report = read(sweep / "cross_validation" / "metrics.json")
    rows = dice_of(sweep / "cross_validation")
    assert sorted(name for name, _, _ in rows) == NAMES[:9]
    assert {name: fold for name, _, fold in rows} == {name: f"fold {k}" for k in range(3) for name in FOLDS[k]}
    of_folds = [np.mean([float(dice) for _, dice, of in rows if of == f"fold {fold}"]) for fold in range(3)]
    over = {"mean": pytest.approx(np.mean(of_folds)), "std": pytest.approx(np.std(of_folds, ddof=1)), "n": 3}
    assert report["over_strata"]["fold"]["dice"] == result["over_folds"] == over
    assert result["score"] == report["mean"]["dice"] == pytest.approx(np.mean([float(dice) for _, dice, _ in rows]))
    assert f"{np.mean(of_folds):.3f} ± {np.std(of_folds, ddof=1):.3f}" in capsys.readouterr().out
    assert (sweep / "cross_validation" / "report.html").is_file()


def test_the_difference_to_the_last_weights_is_said(sweep, capsys):
    validate(sweep)
    chosen, last = (sweep / "cross_validation" / part for part in ("", "last"))
    (of_chosen, of_last) = ({name: float(dice) for name, dice, _ in dice_of(folder)} for folder in (chosen, last))
    difference = np.mean([of_chosen[name] - of_last[name] for name in of_chosen])
    report = read(chosen / "metrics.json")
    assert report["against"]["difference"] == pytest.approx(difference)
    text = f"against the last weights, for which nothing was chosen on these cases: Dice {difference:+.4f} (95 % interv"
    assert any(note.startswith(text) for note in report["notes"])
    assert text in (chosen / "report.html").read_text()
    assert f"Dice {difference:+.4f}" in " ".join(capsys.readouterr().out.split())
    assert "chosen on no cases" in read(last / "metrics.json")["notes"][0]


def test_the_ensemble_is_tested_on_what_no_fold_has_seen(sweep):
    result = validate(sweep)
    report = read(sweep / "test" / "metrics.json")
    assert (report["subset"], report["n_cases"]) == ("test", 3)
    assert result["test_score"] == report["mean"]["dice"]
    assert len(files_of(sweep)) == 3  # the folder is still what predict takes


def test_without_a_test_part_or_last_weights_the_rest_is_written(sweep, caplog):
    for run in range(3):
        split = read(sweep / str(run) / "splits.json")
        (sweep / str(run) / "splits.json").write_text(json.dumps({**split, "test": []}))
    (sweep / "1" / "checkpoints" / "last.ckpt").unlink()
    caplog.set_level("INFO", "medseg")
    assert validate(sweep)["test_score"] is None
    assert "the split has no test part" in caplog.text
    [note] = [note for note in read(sweep / "cross_validation" / "metrics.json")["notes"] if "last weights" in note]
    assert note.startswith("not compared with the last weights, which are not there: ")
    assert not (sweep / "test").exists()


def test_what_is_done_is_not_done_again(sweep, data, monkeypatch):
    done = []
    evaluate = cross_validation.evaluate_cases

    def counting(*arguments):
        done.append(arguments[3].name)
        return evaluate(*arguments)

    monkeypatch.setattr(cross_validation, "evaluate_cases", counting)
    first = validate(sweep)
    assert done == ["last", "cross_validation", "test"]
    assert validate(sweep) == first
    assert len(done) == 3
    (sweep / "cross_validation" / "made_of.json").unlink()  # as a kill leaves it
    validate(sweep)
    assert done[3:] == ["cross_validation"]
    write_checkpoint(sweep / "0" / "checkpoints" / "best.ckpt", dims=3, value=0.8)
    assert validate(sweep)["score"] != first["score"]
    assert done[4:] == ["cross_validation", "test"]
    (sweep / "cross_validation" / "last" / "metrics.json").write_text("{")
    validate(sweep)
    assert "last" in done[6:]


def test_folds_must_be_complete(sweep):
    record = read(sweep / "sweep.json")
    (sweep / "sweep.json").write_text(json.dumps({**record, "ensemble": None}))
    with pytest.raises(MedsegError, match="not the complete folds"):
        validate(sweep)
    assert not (sweep / "cross_validation").exists()
