"""Regions, unknown voxels and partly annotated cases, from training to the report."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics import compute_dice

from medseg.config.schema import typed
from medseg.config.settings import DatasetSettings
from medseg.jobs.predict import predict
from medseg.jobs.train import train

REGIONS = {"WT": ["edema", "core", "enhancing"], "TC": ["core", "enhancing"], "ET": ["enhancing"]}
VALUES = {"WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")  # a worker may leave this file for others and come back
def run(small, workplace):
    run_dir = workplace / "regions"
    config = small(3, "trainer.max_epochs=6", "optimizer.lr=0.01")
    config["dataset"]["regions"] = REGIONS
    train.run(config | {"run_dir": str(run_dir)})
    return run_dir


def test_the_report_tells_of_regions(run):
    report = json.loads((run / "test" / "metrics.json").read_text())
    assert list(report["classes"]) == list(REGIONS)
    assert {"val_dice_WT", "val_dice_TC", "val_dice_ET"} <= rows_of(run / "metrics.csv")[0].keys()
    assert max(report["classes"][name]["dice"]["mean"] for name in REGIONS) > 0.05  # something was learned


def test_masks_hold_class_values_and_give_the_reports_numbers(run, composed, workplace, tmp_path):
    rows = {(row["case"], row["class"]): row for row in rows_of(run / "test" / "cases.csv")}
    [root] = [path.parent for path in (workplace / "phantom").rglob("3d-1-*/imagesTr")]
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in {case for case, _ in rows}:
        (scans / f"{name}.nii.gz").write_bytes((root / "imagesTr" / f"{name}.nii.gz").read_bytes())
    predict.run(composed("predict") | {"checkpoint": str(run), "input": str(scans), "output": str(tmp_path / "masks")})
    for name in {case for case, _ in rows}:
        found, true = (
            np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj)
            for folder in (tmp_path / "masks", root / "labelsTr")
        )
        assert set(np.unique(found)) <= {0, 1, 2, 3}
        for region, values in VALUES.items():
            masks = [torch.from_numpy(np.isin(array, values))[None, None].float() for array in (found, true)]
            reference = compute_dice(*masks, include_background=True).item()
            assert float(rows[name, region]["dice"] or "nan") == pytest.approx(reference, abs=1e-6, nan_ok=True)
    table = rows_of(tmp_path / "masks" / "predictions.csv")
    assert {"WT_ml", "WT_voxels", "ET_voxels"} <= table[0].keys()


def test_unknown_voxels_are_neither_learned_nor_scored(small, tmp_path):
    config = small(3)
    config["dataset"]["labels"] = {"background": 0, "core": [2, 3], "ignore": 1}
    train.run(config | {"run_dir": str(tmp_path / "run")})
    rows = rows_of(tmp_path / "run" / "test" / "cases.csv")
    assert {row["class"] for row in rows} == {"core"}


def test_what_was_not_annotated_has_no_score(small, workplace, tmp_path):
    from medseg.io.datasets.dataset import open_dataset

    config = small(3)
    plain = json.loads(json.dumps(config["dataset"]))
    plain["layout"] |= {name: plain[key] for name, key in ARGUMENTS.items()}
    ids = [case.id for case in open_dataset(typed(DatasetSettings, plain)).cases]
    table = tmp_path / "annotated.csv"
    table.write_text("id,annotated\n" + "".join(f"{name},edema;core\n" for name in ids[::2]))
    config["dataset"]["annotated_file"] = str(table)
    train.run(config | {"run_dir": str(tmp_path / "run")})
    rows = rows_of(tmp_path / "run" / "test" / "cases.csv")
    partly = [row for row in rows if row["case"] in ids[::2]]
    assert {row["class"] for row in rows} == {"edema", "core", "enhancing"}
    assert {bool(row["truth_voxels"]) for row in partly if row["class"] == "enhancing"} == {False}
    assert {bool(row["truth_voxels"]) for row in partly if row["class"] != "enhancing"} == {True}
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["medseg"]
    assert saved["regions"] == {name: [name] for name in ("edema", "core", "enhancing")}


ARGUMENTS = {"root": "root", "dims": "dims", "channels": "n_channels", "cases": "cases", "size": "size", "seed": "seed"}


@pytest.mark.parametrize("context", [0, 1])
def test_a_2d_network_segments_whole_volumes(small, composed, workplace, tmp_path, context):
    overrides = ("model.spatial_dims=2", f"plan.context={context}", "plan.batch_size=4")
    result = train.run(small(3, *overrides) | {"run_dir": str(tmp_path / "run")})
    assert result["status"] == "done"
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())["plan"]
    assert plan["slice_axis"] is not None
    assert len(plan["patch_size"]) == 2
    scan = next(iter((workplace / "phantom").rglob("3d-1-*/imagesTs/*.nii.gz")))
    predict.run(
        composed("predict") | {"checkpoint": str(tmp_path / "run"), "input": str(scan), "output": str(tmp_path / "out")}
    )
    assert nib.load(tmp_path / "out" / scan.name).shape == nib.load(scan).shape
