"""BraTS from its folders to written masks: a short training of each generation, and masks known beforehand."""

import csv
import json
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from brats_phantom import write_brats

from medseg.jobs.predict import predict
from medseg.jobs.train import train

SMALL = (
    "model.depth=2",
    "model.base_channels=4",
    "trainer.max_epochs=1",
    "trainer.steps_per_epoch=2",
    "trainer.accelerator=cpu",
    "plan.batch_size=2",
    "logger=none",
)
LAYOUTS = ("2012", "2018", "2020", "2021", "2023", "2024", "_decathlon")

VALUES = {  # by hand from DESIGN.md: what WT, TC and ET are made of
    "2012": ({1, 2, 3, 4}, {1, 3, 4}, {4}),
    "2018": ({1, 2, 4}, {1, 4}, {4}),
    "2020": ({1, 2, 4}, {1, 4}, {4}),
    "2021": ({1, 2, 4}, {1, 4}, {4}),
    "2023": ({1, 2, 3}, {1, 3}, {3}),
    "2024": ({1, 2, 3}, {1, 3}, {3}),
    "_decathlon": ({1, 2, 3}, {2, 3}, {3}),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def trained(request, composed, tmp_path_factory):
    """Return the generation, its data's folder and the directory of a run on it."""
    folder = tmp_path_factory.mktemp("brats")
    layout = f"brats{request.param}".replace("__", "_")
    root = write_brats(folder / "data", layout, cases=8, size=24, seed=0)
    config = composed("train", "dataset=brats", *SMALL)
    config["dataset"]["root"] = str(root)
    train.run(config | {"run_dir": str(folder / "run"), "cache_dir": str(folder / "cache")})
    return request.param, root, folder / "run"


def test_regions_are_learned_and_reported(trained):
    generation, _, run = trained
    report = json.loads((run / "test" / "metrics.json").read_text())
    regions = ["WT", "TC", "ET", "RC"] if generation == "2024" else ["WT", "TC", "ET"]
    assert list(report["classes"]) == regions
    plan = json.loads((run / "plan.json").read_text())["plan"]
    assert (plan["in_channels"], plan["out_channels"]) == (4, len(regions))


def test_unlabelled_cases_are_segmented(trained, composed, tmp_path):
    generation, root, run = trained
    source = root / ("imagesTs" if generation == "_decathlon" else "ValidationData")
    [folder] = [source] if source.is_dir() else [path for path in root.rglob("*") if path.name == "ValidationData"]
    result = predict.run(
        composed("predict") | {"checkpoint": str(run), "input": str(folder), "output": str(tmp_path / "masks")}
    )
    assert result["status"] == "done"
    masks = [*(tmp_path / "masks").rglob("*.nii.gz")]
    assert len(masks) == 2
    allowed = {0, *VALUES[generation][0]} | ({4} if generation == "2024" else set())
    assert set(np.unique(np.concatenate([np.asarray(nib.load(mask).dataobj).ravel() for mask in masks]))) <= allowed


class Copies(torch.nn.Module):
    """Copies its channels: FLAIR is the whole tumour, T1 with contrast agent its core, T2 what enhances."""

    def forward(self, x):
        outputs = torch.stack([x[:, 0], x[:, 2], x[:, 3]], dim=1) - 0.5
        return outputs * 20


@pytest.mark.parametrize("generation", LAYOUTS)
def test_written_values_are_right_region_by_region(generation, composed, tmp_path, monkeypatch):
    from medseg.io.layouts.brats_cases import GENERATIONS, LABELS, regions_of

    name = "decathlon" if generation == "_decathlon" else f"brats{generation}"
    labels = {key: value for key, value in LABELS[GENERATIONS[name]].items() if key != "resection_cavity"}
    regions, order = regions_of(labels)
    monkeypatch.setitem(sys.modules, "copying", sys.modules[__name__])
    content = {
        "format": 2,
        "version": "0",
        "config": {
            "model": {"_target_": "copying.Copies"},
            "preprocessing": {"spacing": None, "resize": None, "crop": False, "normalize": ["none"] * 4},
            "inference": {"overlap": 0.5, "tta": False, "threshold": None, "batch_size": 2},
            "postprocess": {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0},
            "trainer": {"precision": "fp32"},
            "plan": {"patch_size": [16] * 3, "mirror_axes": [], "slice_axis": None, "context": 0},
            "dataset": {"name": "brats", "geometry": "error", "reference": 0},
        },
        "channels": [["_flair"], ["_t1"], ["_t1ce"], ["_t2"]],
        "classes": labels,
        "regions": regions,
        "region_order": order,
    }
    torch.save({"state_dict": {}, "medseg": content}, tmp_path / "copies.ckpt")
    whole, core, enhancing = nested_boxes()
    channels = {"_flair": whole, "_t1": whole, "_t1ce": core, "_t2": enhancing}
    for ending, mask in channels.items():
        path = tmp_path / "scans" / "case" / f"case{ending}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(mask.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    config = composed("predict", "device=cpu", "trust=[copying.Copies]")
    predict.run(
        config
        | {
            "checkpoint": str(tmp_path / "copies.ckpt"),
            "input": str(tmp_path / "scans"),
            "output": str(tmp_path / "masks"),
        }
    )
    [written] = [np.asarray(nib.load(path).dataobj) for path in (tmp_path / "masks").rglob("*.nii.gz")]
    for region, values in zip((whole, core, enhancing), VALUES[generation], strict=True):
        np.testing.assert_array_equal(np.isin(written, list(values)), region)


def nested_boxes():
    """The whole tumour, its core, and what enhances, each within the one before."""
    boxes = np.zeros((3, 20, 22, 24), dtype=bool)
    for box, margin in zip(boxes, (3, 5, 7), strict=True):
        box[margin : 20 - margin, margin : 22 - margin, margin : 24 - margin] = True
    return boxes


def test_groups_are_patients(trained):
    generation, root, run = trained
    if generation == "_decathlon":
        pytest.skip("the Decathlon does not tell patients")
    splits = json.loads((run / "splits.json").read_text())
    with (root / "groups.csv").open(newline="") as file:
        patient_of = {row["id"]: row["group"] for row in csv.DictReader(file)}
    parts = [{patient_of[name] for name in splits[part] if name in patient_of} for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts))
