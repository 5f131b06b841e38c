"""The reports of folds, and the selection among several, with networks that threshold and need no training."""

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
from medseg.jobs.evaluate import compare, cross_validation, evaluate, selection
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


@pytest.fixture(scope="module")
def validated(data, tmp_path_factory):
    """A folder of two sweeps, a and b, whose networks threshold at 0.5 and at 0.8, with their reports."""
    folder = tmp_path_factory.mktemp("validated")
    for name, value in (("a", 0.5), ("b", 0.8)):
        result = validate(write_sweep(folder / name, data, value))
        (folder / name / "returned.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def sweeps(validated, tmp_path):
    """A copy of these sweeps to change, as old as they are."""
    return [shutil.copytree(validated / name, tmp_path / name) for name in "ab"]


def validate(sweep, **options):
    return cross_validate(sweep, device="cpu", trust=[TARGET], **options)


def read(path):
    return json.loads(Path(path).read_text())


def dice_of(folder):
    rows = [line.split(",") for line in (folder / "cases.csv").read_text().splitlines()]
    columns = [rows[0].index(name) for name in ("case", "dice", "fold")]
    return [tuple(row[column] for column in columns) for row in rows[1:]]


def test_each_case_is_reported_once_by_the_model_of_its_fold(validated):
    sweep = validated / "a"
    report, result = read(sweep / "cross_validation" / "metrics.json"), read(sweep / "returned.json")
    rows = dice_of(sweep / "cross_validation")
    assert sorted(name for name, _, _ in rows) == NAMES[:9]
    assert {name: fold for name, _, fold in rows} == {name: f"fold {k}" for k in range(3) for name in FOLDS[k]}
    of_folds = [np.mean([float(dice) for _, dice, of in rows if of == f"fold {fold}"]) for fold in range(3)]
    over = {"mean": pytest.approx(np.mean(of_folds)), "std": pytest.approx(np.std(of_folds, ddof=1)), "n": 3}
    assert report["over_strata"]["fold"]["dice"] == result["over_folds"] == over
    assert result["score"] == report["mean"]["dice"] == pytest.approx(np.mean([float(dice) for _, dice, _ in rows]))
    page = (sweep / "cross_validation" / "report.html").read_text()
    assert f"{np.mean(of_folds):.3f} ± {np.std(of_folds, ddof=1):.3f}" in page


def test_the_difference_to_the_last_weights_is_said(sweeps, capsys):
    validate(sweeps[0])  # which shows again what is there
    chosen, last = (sweeps[0] / "cross_validation" / part for part in ("", "last"))
    (of_chosen, of_last) = ({name: float(dice) for name, dice, _ in dice_of(folder)} for folder in (chosen, last))
    difference = np.mean([of_chosen[name] - of_last[name] for name in of_chosen])
    report = read(chosen / "metrics.json")
    assert report["against"]["difference"] == pytest.approx(difference)
    text = f"against the last weights, for which nothing was chosen on these cases: Dice {difference:+.4f} (95 % interv"
    assert any(note.startswith(text) for note in report["notes"])
    assert text in (chosen / "report.html").read_text()
    assert f"Dice {difference:+.4f}" in " ".join(capsys.readouterr().out.split())
    assert "chosen on no cases" in read(last / "metrics.json")["notes"][0]


def test_the_ensemble_is_tested_on_what_no_fold_has_seen(validated):
    sweep = validated / "a"
    report = read(sweep / "test" / "metrics.json")
    assert (report["subset"], report["n_cases"]) == ("test", 3)
    assert read(sweep / "returned.json")["test_score"] == report["mean"]["dice"]
    assert len(files_of(sweep)) == 3  # the folder is still what predict takes


def test_without_a_test_part_or_last_weights_the_rest_is_written(data, tmp_path, caplog):
    sweep = write_sweep(tmp_path / "sweep", data, 0.5)
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


def test_last_weights_that_were_chosen_are_not_evaluated_twice_and_what_folds_lack_is_said(data, tmp_path):
    sweep = write_sweep(tmp_path / "sweep", data, 0.5)
    for run in range(3):
        result = read(sweep / str(run) / "result.json")
        result["selection"] = {"best": {"epoch": 4, "dice": 0.5}, "last": {"epoch": 4, "dice": 0.5}}
        result["unlearned"] = ["thing"] * (run > 0)
        (sweep / str(run) / "result.json").write_text(json.dumps(result))
    validate(sweep, test=False)
    assert "chosen the last weights in every fold" in read(sweep / "cross_validation" / "metrics.json")["notes"][1]
    assert not (sweep / "cross_validation" / "last").exists()
    warning = "thing: not learned in training, the validation Dice stayed near 0 (in 2 of 3 models: 1, 2)"
    assert read(sweep / "cross_validation" / "metrics.json")["warnings"] == [warning]


def test_what_is_done_is_not_done_again(sweeps, data, monkeypatch):
    sweep, done = sweeps[0], []
    evaluate_cases = cross_validation.evaluate_cases

    def counting(*arguments):
        done.append(arguments[3].name)
        return evaluate_cases(*arguments)

    monkeypatch.setattr(cross_validation, "evaluate_cases", counting)
    assert validate(sweep) == read(sweep / "returned.json")
    assert done == []
    (sweep / "cross_validation" / "made_of.json").unlink()  # as a kill leaves it
    (sweep / "cross_validation" / "last" / "metrics.json").write_text("{")
    validate(sweep)
    assert done == ["last", "cross_validation"]
    write_checkpoint(sweep / "0" / "checkpoints" / "best.ckpt", dims=3, value=0.8)
    assert validate(sweep)["score"] != read(sweep / "returned.json")["score"]
    assert done[2:] == ["cross_validation", "test"]


def test_folds_must_be_complete(data, tmp_path):
    sweep = write_sweep(tmp_path / "sweep", data, 0.5)
    record = read(sweep / "sweep.json")
    (sweep / "sweep.json").write_text(json.dumps({**record, "ensemble": None}))
    with pytest.raises(MedsegError, match="not the complete folds"):
        validate(sweep)
    assert not (sweep / "cross_validation").exists()


@pytest.fixture
def compared(composed, tmp_path):
    """Return ``compared(*runs)``: what the job returns, its folder being ``out``."""

    def go(*runs, select="best"):
        config = composed("compare", "runs=[]", "device=cpu") | {"runs": list(map(str, runs)), "select": select}
        return compare.run(config | {"trust": [TARGET], "run_dir": str(tmp_path / "out")})

    return go


def test_two_cross_validations_are_compared_case_by_case(validated, compared, tmp_path):
    compared(validated / "a", validated / "b", select=None)
    found = read(tmp_path / "out" / "comparison.json")
    assert (found["n_cases"], found["notes"], len(found["comparisons"])) == (9, [], 1)
    assert [run["name"] for run in found["runs"]] == ["model.value=0.5", "model.value=0.8"]


def test_the_best_of_cross_validations_and_their_ensemble_is_selected(validated, data, compared, tmp_path, capsys):
    pair = [validated / name for name in "ab"]
    result = compared(*pair)
    reports = {run["name"]: Path(run["report"]) for run in read(tmp_path / "out" / "comparison.json")["runs"]}
    both = "model.value=0.5 + model.value=0.8"
    assert list(reports) == ["model.value=0.5", "model.value=0.8", both]
    dice = {name: read(folder / "metrics.json")["mean"]["dice"] for name, folder in reports.items()}
    selected = read(tmp_path / "out" / "selected.json")
    assert dice[selected["selected"]] == max(dice.values()) == pytest.approx(selected["dice"]) == result["score"]
    assert selected["difference"] == pytest.approx(selected["dice"] - dice[selected["second"]])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Selected: {selected['selected']}, of" in shown
    assert "It is the best of 3 candidates on the same 9 cases." in shown
    assert "Selected: " in (tmp_path / "out" / "comparison.html").read_text()

    # each case by those of both that have not seen it, as an ensemble of just these two predicts it
    rows = dict(row[:2] for row in dice_of(reports[both]))
    for fold, name in ((0, "c03"), (1, "c04"), (2, "c05")):
        models = [run / str(fold) for run in pair]
        mask = Predictor.load(models, device="cpu", trust=[TARGET])(data / "imagesTr" / f"{name}_0000.nii.gz").indices
        truth = nib.load(data / "labelsTr" / f"{name}.nii.gz").get_fdata()
        assert float(rows[name]) == pytest.approx(2 * (mask * truth).sum() / (mask.sum() + truth.sum()))


def test_folds_of_which_one_has_failed_are_a_candidate_on_the_cases_of_the_others(sweeps, compared, tmp_path, caplog):
    """Of a sweep of its own, which is no ensemble then, and whose folder has no report of all cases."""
    shutil.rmtree(sweeps[0] / "cross_validation")
    record = read(sweeps[0] / "sweep.json")
    (sweeps[0] / "sweep.json").write_text(json.dumps({**record, "ensemble": None}))
    result = read(sweeps[0] / "2" / "result.json")
    (sweeps[0] / "2" / "result.json").write_text(json.dumps({**result, "status": "failed"}))
    compared(*sweeps)
    assert f"left out: {sweeps[0] / '2'} (failed)" in caplog.text
    found = read(tmp_path / "out" / "comparison.json")
    both = "model.value=0.5 + model.value=0.8"
    assert [run["name"] for run in found["runs"]] == ["model.value=0.5", "model.value=0.8", both]
    assert found["n_cases"] == 6


def test_the_settings_of_several_cross_validations_of_a_sweep_name_them(data, compared, tmp_path):
    sweep = tmp_path / "sweep"
    for job, (value, fold) in enumerate([(value, fold) for value in (0.5, 0.8) for fold in range(3)]):
        own = [f"run_dir='{sweep}'", f"model.value={value}", f"split.fold={fold}"]
        write_run(sweep / str(job), data, FOLDS[fold], own, value, value)
    (sweep / "sweep.json").write_text('{"settings": ["--config-name", "train"], "jobs": {}}')
    other = write_run(tmp_path / "other", data, FOLDS[0], [], 0.9, 0.9)
    compared(sweep, other)
    found = read(tmp_path / "out" / "comparison.json")
    assert [run["name"] for run in found["runs"]][:3] == ["model.value=0.5", "model.value=0.8", "other"]


def test_members_of_an_ensemble_may_have_other_folds(data, tmp_path, monkeypatch):
    """Of each the model that has not seen the case; a case that one of them has not validated is left out."""
    folds = [NAMES[0:3], NAMES[3:8]]
    runs = [write_run(tmp_path / f"x{fold}", data, val, [], 0.5, 0.5) for fold, val in enumerate(folds)]
    of_each = [[run / "checkpoints" / "best.ckpt" for run in runs], files_of(write_sweep(tmp_path / "y", data, 0.5))]
    monkeypatch.setattr(cross_validation.Reports, "write", lambda self, folder, subset, cases, models_of, *_: models_of)
    models_of = cross_validation.Reports(runs[0], "cpu", [TARGET]).write_out_of_fold(tmp_path / "out", of_each)
    assert models_of == {
        name: (of_each[0][number >= 3], of_each[1][number % 3]) for number, name in enumerate(NAMES[:8])
    }


def test_a_selection_is_a_checkpoint_wherever_it_is_moved_with_its_runs(sweeps, compared, composed, tmp_path):
    compared(*sweeps)
    runs = read(tmp_path / "out" / "selected.json")["runs"]
    (tmp_path / "moved").mkdir()
    for name in ("a", "b", "out"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    moved = tmp_path / "moved" / "out"
    assert [file.is_file() for file in files_of(moved)] == [True] * len(runs)
    config = composed("eval", "device=cpu", "examples=0") | {"checkpoint": str(moved), "trust": [TARGET]}
    evaluate.run(config | {"run_dir": str(tmp_path / "tested")})
    assert read(tmp_path / "tested" / "metrics.json")["n_cases"] == 3
    shutil.rmtree((moved / runs[0]).resolve())
    with pytest.raises(MedsegError, match=r"selected.json: of the \d models that were selected, 1 are not there"):
        files_of(moved)


@pytest.mark.parametrize("runs", [None, [], [3], "run", {"a": 1}])
def test_selections_may_be_damaged(tmp_path, runs):
    (tmp_path / "selected.json").write_text(json.dumps({"runs": runs}))
    with pytest.raises(MedsegError, match=r"selected\.json: runs must be a list of run directories"):
        files_of(tmp_path)


def test_jobs_of_one_sweep_are_told_apart_by_their_settings(data, compared, tmp_path, monkeypatch):
    """Folds of two settings are two cross-validations; single runs are compared on their own validation cases."""
    grid = tmp_path / "grid"
    for job, (value, fold) in enumerate((value, fold) for value in (0.5, 0.8) for fold in range(3)):
        write_run(grid / str(job), data, FOLDS[fold], [f"model.value={value}", f"split.fold={fold}"], value, value)
    (grid / "sweep.json").write_text(json.dumps({"settings": [], "rankings": [], "ensemble": None}))
    compared(grid)
    found = read(tmp_path / "out" / "comparison.json")
    assert [run["name"] for run in found["runs"]][:2] == ["model.value=0.5", "model.value=0.8"]
    assert (found["n_cases"], len(found["runs"])) == (9, 3)
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(selection, "MOST", 1)  # too few for an ensemble
    compared(grid / "0", grid / "3")
    found = read(tmp_path / "out" / "comparison.json")
    assert (found["n_cases"], len(found["runs"])) == (3, 2)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(MedsegError, match="1 run found, but two or more are needed"):
        compared(grid / "0")
