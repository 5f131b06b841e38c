"""What readers of a folder of masks get beside them: overlays, a page, uncertainty and a ranking."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from medseg.jobs.predict import predict

HERE = str(Path(__file__).parent)
TARGET = "thresholding.Threshold"


def write_checkpoint(path, dims, **further):
    """A network whose probability of the one class is softmax(±20 (x - 0.5)) of the intensity x."""
    preprocessing = {
        "spacing": None, "resize": None, "crop": False, "normalize": ["none"], "window": None, "denoise": None,
        "denoise_strength": 1.0,
    }  # fmt: skip
    config = {
        "model": {"_target_": TARGET, "value": 0.5},
        "preprocessing": preprocessing,
        "inference": {"overlap": 0.5, "tta": False, "threshold": None, "batch_size": 2},
        "postprocess": {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0},
        "trainer": {"precision": "fp32"},
        "plan": {"patch_size": [16] * dims, "mirror_axes": [], "slice_axis": None, "context": 0},
        "dataset": {"name": "test", "geometry": "error", "reference": 0},
    }
    content = {
        "format": 2, "version": "0", "config": config, "channels": None, "regions": None, "region_order": None,
        "classes": {"background": 0, "thing": 1}, **further,
    }  # fmt: skip
    torch.save({"state_dict": {}, "medseg": content}, path)
    return str(path)


@pytest.fixture
def run_predict(composed, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", 3)

    def run(**changes):
        config = composed("predict", "device=cpu") | {"trust": [TARGET], "checkpoint": checkpoint}
        config |= {"input": str(tmp_path / "scans"), "output": str(tmp_path / "masks")}
        return predict.run(config | changes)

    return run


@pytest.fixture
def scans(tmp_path):
    """A certain case, one with a border of guesses, one with nothing but a near miss, and a broken file."""
    folder = tmp_path / "scans"
    folder.mkdir()
    body = np.zeros((16, 18, 20), np.float32)
    body[4:9, 5:11, 6:13] = 1
    unsure, missed = body.copy(), np.zeros_like(body)
    unsure[4:9, 5:11, 13] = 0.5  # of both classes alike; the first one, background, is taken
    missed[8, 9, 10] = 0.49
    for name, image in {"sure": body, "unsure": unsure, "missed": missed}.items():
        nib.save(nib.Nifti1Image(image, np.diag([2, 2, 3, 1])), folder / f"{name}.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"")
    return folder


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_entropy_maps_and_the_ranking(run_predict, scans, tmp_path):
    run_predict(uncertainty=True)
    x = nib.load(scans / "unsure.nii.gz").get_fdata()
    p = 1 / (1 + np.exp(-40 * (x - 0.5)))
    expected = -(p * np.log2(np.maximum(p, 1e-30)) + (1 - p) * np.log2(np.maximum(1 - p, 1e-30)))
    found = nib.load(tmp_path / "masks/uncertainty/unsure.nii.gz")
    np.testing.assert_allclose(found.get_fdata(), expected, atol=0.5 / 255 + 1e-4)
    np.testing.assert_array_equal(found.affine, np.diag([2, 2, 3, 1]))
    rows = {row["case"]: row for row in table(tmp_path / "masks/predictions.csv")}
    inside, rim = 5 * 6 * 7, 2 * (5 * 6 + 5 * 7 + 6 * 7)
    assert float(rows["unsure"]["uncertainty"]) == pytest.approx(5 * 6 / (inside + rim), abs=1e-3)
    assert float(rows["sure"]["uncertainty"]) == 0
    assert rows["broken"]["uncertainty"] == ""
    ranking = table(tmp_path / "masks/uncertainty.csv")
    assert [(row["rank"], row["case"]) for row in ranking] == [("1", "missed"), ("2", "unsure"), ("3", "sure")]


def test_sizes_are_in_the_table(run_predict, scans, tmp_path):
    run_predict()
    rows = {row["case"]: row for row in table(tmp_path / "masks/predictions.csv")}
    assert list(rows["sure"]) == ["case", "status", "seconds", "thing_ml", "thing_mm2", "thing_voxels", "error"]
    assert float(rows["sure"]["thing_ml"]) == pytest.approx(5 * 6 * 7 * 12 / 1000)
    faces = 2 * (10 * 12 + 10 * 21 + 12 * 21)
    assert float(rows["sure"]["thing_mm2"]) == pytest.approx(faces, rel=0.2)  # a small box along the grid
    assert float(rows["missed"]["thing_mm2"]) == 0
    assert not (tmp_path / "masks/uncertainty.csv").exists()


@pytest.mark.parametrize("wanted", [True, "png", "html"])
def test_overlays_and_the_page(run_predict, scans, tmp_path, wanted):
    run_predict(overlays=wanted)
    with Image.open(tmp_path / "masks/overlays/sure.png") as picture:
        assert picture.width > 500
    page = tmp_path / "masks/contact_sheet.html"
    assert page.exists() == (wanted == "html")
    if wanted == "html":
        text = page.read_text("utf-8")
        assert text.count("<article") == 4
        assert text.count("data:image/jpeg;base64,") == 3
        assert 'href="overlays/sure.png"' in text
        assert "4 cases · 1 failed · 1 nothing found" in text


def test_the_page_is_made_of_what_is_done_already(run_predict, scans, tmp_path):
    run_predict(overlays="png")
    before = (tmp_path / "masks/overlays/sure.png").stat().st_mtime_ns
    run_predict(overlays="html")
    assert (tmp_path / "masks/overlays/sure.png").stat().st_mtime_ns == before
    assert (tmp_path / "masks/contact_sheet.html").read_text("utf-8").count("<img") == 3


def test_scans_unlike_the_training_data_are_flagged(run_predict, scans, tmp_path):
    ranges = {"the left-right spacing in mm": [2, 2, 1.4, 2.9], "thing in ml": [2, 3, 1, 4]}
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", 3, training_data=ranges)
    image = nib.load(scans / "sure.nii.gz")
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32), np.diag([5, 1, 2, 1])), scans / "coarse.nii.gz")
    run_predict(checkpoint=checkpoint, overlays="html")
    rows = {row["case"]: row["unlike"] for row in table(tmp_path / "masks/predictions.csv")}
    assert rows["sure"] == rows["broken"] == ""
    assert rows["missed"] == "thing in ml is 0, in training 2 to 3"
    assert rows["coarse"] == "the left-right spacing in mm is 5, in training 2 to 2"
    assert "2 unlike the training data" in (tmp_path / "masks/contact_sheet.html").read_text("utf-8")


def test_without_ranges_it_is_said_once_and_there_is_no_column(run_predict, scans, tmp_path, caplog):
    with caplog.at_level("INFO"):
        run_predict()
    assert caplog.text.count("out-of-distribution check disabled") == 1
    assert "unlike" not in table(tmp_path / "masks/predictions.csv")[0]
