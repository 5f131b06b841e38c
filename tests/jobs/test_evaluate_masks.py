"""``medseg eval predictions=DIR``: masks made elsewhere get the report that a model's own get."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from medseg.config.check import resolve
from medseg.config.schema import typed
from medseg.config.settings import DatasetSettings
from medseg.errors import MedsegError
from medseg.inference.predictor import Predictor
from medseg.io.datasets.dataset import by_id, open_dataset
from medseg.io.datasets.splits import read_split
from medseg.io.labels import LabelMap
from medseg.jobs.evaluate import evaluate
from medseg.jobs.evaluate.candidates import Candidate, with_own_names


@pytest.fixture
def tested(trained):
    """The run, the node of its data set, its classes and its test cases."""
    saved = resolve(yaml.safe_load((trained / "config.yaml").read_text()))["dataset"]
    dataset = open_dataset(typed(DatasetSettings, saved))
    return trained, dataset, by_id(dataset.cases, read_split(trained / "splits.json").test)


@pytest.fixture
def masks(tested, tmp_path):
    """The run's own masks of its test cases, as a folder of files."""
    run, _, cases = tested
    predictor = Predictor.load(run, device="cpu")
    folder = tmp_path / "masks"
    folder.mkdir()
    for case in cases:
        predictor(case.images).save(folder / case.images[0].name)
    return folder


@pytest.fixture
def evaluated(tested, composed, tmp_path):
    """Return ``evaluated(**changes)``: eval on the run's data set, named on the command line."""
    run, dataset, cases = tested

    def go(**changes):
        root = cases[0].images[0].parent.parent
        name = "decathlon" if (root / "dataset.json").is_file() else "folder"
        config = composed("eval", "device=cpu", f"dataset={name}", "subset=test")
        config["dataset"] |= {"root": str(root), "labels": dict(dataset.labels)}
        config["split"]["file"] = str(run / "splits.json")
        return evaluate.run(config | {"run_dir": str(tmp_path / "eval")} | changes)

    return go


def report_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def scores_of(folder: Path) -> list[dict]:
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_masks_on_disk_get_the_report_of_their_model(tested, masks, evaluated, tmp_path):
    run, _, _ = tested
    result = evaluated(predictions=str(masks))
    assert result["status"] == "done"
    assert report_of(tmp_path / "eval")["classes"] == report_of(run / "test")["classes"]
    assert [row["dice"] for row in scores_of(tmp_path / "eval")] == [row["dice"] for row in scores_of(run / "test")]
    assert list((tmp_path / "eval" / "overlays").rglob("*.png"))


def test_masks_and_models_side_by_side(tested, masks, evaluated, tmp_path):
    run, _, _ = tested
    result = evaluated(predictions=[str(masks)], checkpoint=[str(run), str(run)], ensemble=False)
    folders = sorted(path.parent.name for path in (tmp_path / "eval").glob("*/metrics.json"))
    assert folders == sorted(["masks", f"{run.name}-1", f"{run.name}-2"])
    means = {report_of(tmp_path / "eval" / name)["mean"]["dice"] for name in folders}
    assert means == {result["test_score"]}
    told = {name: f"training in {run}" in (tmp_path / "eval" / name / "report.html").read_text() for name in folders}
    assert told == {name: name != "masks" for name in folders}  # whose training a report tells of
    comparison = json.loads((tmp_path / "eval" / "comparison.json").read_text())
    assert [run["name"] for run in comparison["runs"]] == [f"{run.name}-1", f"{run.name}-2", "masks"]
    assert {one["rank"] for one in comparison["ranking"]["runs"]} == {1}
    assert {one["difference"] for one in comparison["comparisons"] if one["metric"] == "dice"} == {0.0}


def test_a_missing_mask_and_one_of_another_size_fail_by_name(tested, masks, evaluated, tmp_path):
    _, _, cases = tested
    assert len(cases) > 1
    (masks / cases[0].images[0].name).unlink()
    result = evaluated(predictions=str(masks))
    assert (result["status"], result["reason"]) == ("some_failed", "1 case(s) failed")
    assert report_of(tmp_path / "eval")["n_cases"] == len(cases) - 1
    assert f"{cases[0].id}: no mask of this case in" in (tmp_path / "eval" / "eval.log").read_text()


def test_a_mask_of_another_size_is_no_case(tested, masks, evaluated, tmp_path):
    _, _, cases = tested
    for case in cases:
        path = masks / case.images[0].name
        if path.name.endswith(".png"):
            from PIL import Image

            Image.fromarray(np.zeros((5, 6), np.uint8)).save(path)
        else:
            nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.uint8), np.eye(4)), path)
    with pytest.raises(MedsegError, match="no case could be scored"):
        evaluated(predictions=str(masks))
    assert "grid" in (tmp_path / "eval" / "eval.log").read_text()


def test_what_is_to_be_evaluated_must_be_said(composed, masks, tmp_path):
    config = composed("eval", "device=cpu")
    with pytest.raises(MedsegError, match="what is to be evaluated"):
        evaluate.run(config)
    with pytest.raises(MedsegError, match="need the data set that they are of"):
        evaluate.run(config | {"predictions": str(masks)})
    with pytest.raises(MedsegError, match="takes a checkpoint, and no predictions"):
        evaluate.run(config | {"predictions": str(masks), "tune": "postprocess"})


def test_candidates_of_one_name_are_numbered():
    named = with_own_names([Candidate(name, None) for name in ("a", "b", "a")])  # type: ignore[arg-type]
    assert [candidate.name for candidate in named] == ["a-1", "b", "a-2"]


def test_unknown_voxels_cannot_be_predicted(tmp_path):
    from medseg.io.case import Case, Scan
    from medseg.jobs.evaluate.candidates import from_folder

    (tmp_path / "m").mkdir()
    nib.save(nib.Nifti1Image(np.full((3, 4, 5), 9, np.uint8), np.eye(4)), tmp_path / "m" / "a.nii.gz")
    labels = LabelMap({"background": 0, "organ": 1, "ignore": 9})
    case = Case("a", "a", (tmp_path / "a.nii.gz",))
    candidate = from_folder(tmp_path / "m", [case], labels)
    with pytest.raises(MedsegError, match="cannot hold the value of unknown voxels"):
        candidate.segment(case, Scan(np.zeros((1, 3, 4, 5), np.float32), np.eye(4)))


def test_the_report_tells_strata_apart(tested, composed, tmp_path):
    """A table with a column of sites: the same numbers as those of each site's rows."""
    run, dataset, _ = tested
    lines = ["id,image,label,group,site"]
    for number, case in enumerate(dataset.cases):
        lines.append(f"{case.id},{case.images[0]},{case.labels[0].path},{case.group},{'AB'[number % 2]}")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    config = composed("eval", "device=cpu", "dataset=table", f"dataset.root={tmp_path}", "metrics.strata=[site]")
    config["dataset"]["labels"] = dict(dataset.labels)
    evaluate.run(config | {"checkpoint": str(run), "run_dir": str(tmp_path / "eval"), "subset": "all"})
    report, rows = report_of(tmp_path / "eval"), scores_of(tmp_path / "eval")
    for site, part in report["strata"]["site"].items():
        own = [float(row["dice"]) for row in rows if row["site"] == site and row["class"] == "edema" and row["dice"]]
        assert part["classes"]["edema"]["dice"]["mean"] == pytest.approx(np.mean(own))
        assert part["n_cases"] == 5
    config["metrics"]["strata"] = ["scanner"]
    shutil.rmtree(tmp_path / "eval")
    with pytest.raises(MedsegError, match=r"metrics\.strata: the data set's table has no column scanner"):
        evaluate.run(config | {"checkpoint": str(run), "run_dir": str(tmp_path / "eval"), "subset": "all"})
