"""One anatomy in every orientation that a file can have, through training, eval and predict."""

import csv
import itertools
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import inv_ornt_aff

from medseg.jobs.evaluate import evaluate
from medseg.jobs.predict import predict
from medseg.jobs.train import train

SHAPE = (16, 18, 20)
SPACING = np.diag([1.0, 1.2, 0.9])
TURN = np.array([[0.95, -0.3, 0.1], [0.3, 0.95, 0], [-0.1, 0, 1]])
KINDS = {
    "straight": np.eye(3),
    "oblique": np.linalg.qr(TURN)[0],
    "sheared": TURN @ [[1, 0.2, 0], [0, 1, -0.2], [0, 0, 1]],
}
ORDERS, FLIPS = itertools.permutations(range(3)), itertools.product([1, -1], repeat=3)
TURNS = [np.array([*zip(order, flips, strict=True)]) for order, flips in itertools.product(ORDERS, FLIPS)]
EXACT = {"_target_": "thresholding.Threshold", "value": 0.5}


def write_case(root, name, matrix, turn):
    """Write an ellipsoid with a bump that lies at the same place in mm on every grid, its intensities above 0.5."""
    affine = np.eye(4)
    affine[:3, :3] = matrix @ SPACING
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    shape = tuple(np.array(SHAPE)[np.argsort(turn[:, 0])])
    affine = affine @ inv_ornt_aff(turn, SHAPE)
    mm = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    body = np.linalg.norm(mm / [4, 5.5, 6.5] - [0.2, 0, 0.1], axis=-1) < 1
    body |= (np.abs(mm - [-4, -5, 5]) < 2).all(-1)
    noise = np.random.default_rng(len(name)).uniform(-0.4, 0.4, shape)
    for folder, array in {"images": body + noise, "masks": body}.items():
        (root / folder).mkdir(exist_ok=True, parents=True)
        nib.Nifti1Image(array.astype(np.float32), affine).to_filename(root / folder / f"{name}.nii")


def rows_of(folder):
    with (folder / "cases.csv").open(newline="") as file:
        return {row["case"]: float(row["dice"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("orientations")
    for (kind, matrix), (number, turn) in itertools.product(KINDS.items(), enumerate(TURNS)):
        write_case(folder, f"{kind}_{number:02}", matrix, turn)
    return folder


@pytest.fixture(scope="module")
def run(root, composed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = composed(
        "train", "dataset=folder", "dataset.modality=mri", "model.depth=2", "model.base_channels=8", "augment=none",
        "optimizer.lr=0.01", "trainer.max_time=null", "trainer.max_epochs=2", "trainer.steps_per_epoch=25",
        "trainer.accelerator=cpu", "plan.batch_size=2", "logger=none",
    )  # fmt: skip
    config["dataset"]["root"] = str(root)
    train.run(config | {"run_dir": str(folder / "run"), "cache_dir": str(folder / "cache")})
    return folder / "run"


def test_training_learns_from_all_and_the_report_finds_all(run):
    scores = rows_of(run / "test")
    assert {name.split("_")[0] for name in scores} == {*KINDS}
    assert min(scores.values()) > 0.85
    assert json.loads((run / "test" / "metrics.json").read_text())["mean"]["dice"] > 0.9


def test_eval_and_predict_give_the_reports_dice(run, root, composed, tmp_path):
    config = composed("eval", "device=cpu") | {"checkpoint": str(run), "run_dir": str(tmp_path / "eval")}
    evaluate.run(config)
    scores = rows_of(tmp_path / "eval")
    assert scores == rows_of(run / "test")
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in scores:
        shutil.copy(root / "images" / f"{name}.nii", scans)
    config = composed("predict", "device=cpu") | {"checkpoint": str(run), "input": str(scans)}
    predict.run(config | {"output": str(tmp_path / "masks")})
    for name, score in scores.items():
        mask, truth = (nib.load(folder / f"{name}.nii") for folder in (tmp_path / "masks", root / "masks"))
        np.testing.assert_array_equal(mask.affine, truth.affine)
        found, true = (np.asarray(image.dataobj) == 1 for image in (mask, truth))
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) == pytest.approx(score, abs=1e-6)


def test_an_exact_segmenter_is_perfect_on_every_case(run, root, composed, tmp_path, monkeypatch):
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    config = checkpoint["medseg"]["config"]
    config["model"] = EXACT
    config["preprocessing"] |= {"normalize": ["none"], "spacing": None}
    torch.save({"state_dict": {}, "medseg": checkpoint["medseg"]}, tmp_path / "exact.ckpt")
    config = composed("eval", "device=cpu", "dataset=folder")
    config["dataset"]["root"] = str(root)
    config |= {"checkpoint": str(tmp_path / "exact.ckpt"), "run_dir": str(tmp_path / "eval")}
    evaluate.run(config | {"trust": [EXACT["_target_"]]})
    scores = rows_of(tmp_path / "eval")
    assert len(scores) == 3 * 48
    assert set(scores.values()) == {1.0}
