"""eval and predict from a run's checkpoint give what the run's own test gave."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, MeanIoU

from medseg.config.check import resolve
from medseg.config.schema import typed
from medseg.config.settings import DatasetSettings
from medseg.errors import MedsegError
from medseg.inference.predictor import Predictor
from medseg.io.datasets.dataset import open_dataset
from medseg.jobs.evaluate import evaluate
from medseg.jobs.predict import predict
from medseg.jobs.train import train


@pytest.fixture
def eval_config(composed, workplace, tmp_path):
    def make(checkpoint, **changes):
        config = composed("eval", "device=cpu")
        return config | {"checkpoint": str(checkpoint), "run_dir": str(tmp_path / "eval")} | changes

    return make


def report_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_eval_repeats_the_report_of_the_run(trained, eval_config, tmp_path):
    result = evaluate.run(eval_config(trained))
    assert result["status"] == "done"
    assert report_of(tmp_path / "eval") == report_of(trained / "test")
    assert (tmp_path / "eval" / "cases.csv").read_text() == (trained / "test" / "cases.csv").read_text()


def test_masks_of_predict_give_the_report_and_monai_agrees(trained, composed, workplace, tmp_path):
    """The way round by files: predict the test images alone, compare the written masks with the truth."""
    import yaml

    saved = resolve(yaml.safe_load((trained / "config.yaml").read_text()))
    ids = json.loads((trained / "splits.json").read_text())["test"]
    cases = {case.id: case for case in open_dataset(typed(DatasetSettings, saved["dataset"])).cases}
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ids:
        shutil.copy(cases[name].images[0], scans / cases[name].images[0].name)
    config = composed("predict", "device=cpu")
    moved = tmp_path / "elsewhere.ckpt"
    shutil.copy(trained / "checkpoints" / "best.ckpt", moved)
    result = predict.run(config | {"checkpoint": str(moved), "input": str(scans), "output": str(tmp_path / "masks")})
    assert result["status"] == "done"

    from medseg.io.files.read import read_mask

    dice = DiceMetric(include_background=False, reduction="none", num_classes=4)
    iou = MeanIoU(include_background=False, reduction="none")
    for name in ids:
        truth = torch.from_numpy(read_mask(cases[name].labels[0].path).astype(np.int64))
        mask = torch.from_numpy(read_mask(tmp_path / "masks" / cases[name].images[0].name).astype(np.int64))
        dice(mask[None, None], truth[None, None])
        one_hot = [torch.nn.functional.one_hot(x, 4).movedim(-1, 0)[None] for x in (mask, truth)]
        iou(*one_hot)
    report = report_of(trained / "test")
    means = [report["classes"][name]["dice"]["mean"] for name in ("edema", "core", "enhancing")]
    np.testing.assert_allclose(means, np.nanmean(dice.aggregate().numpy(), axis=0), atol=1e-6)
    means = [report["classes"][name]["iou"]["mean"] for name in ("edema", "core", "enhancing")]
    np.testing.assert_allclose(means, np.nanmean(iou.aggregate().numpy(), axis=0), atol=1e-6)


def test_another_data_set_and_part(trained, eval_config, composed, tmp_path):
    own = report_of(trained / "test")["n_cases"]
    evaluate.run(eval_config(trained, subset="all"))
    everything = report_of(tmp_path / "eval")
    assert everything["subset"] == "all"
    assert everything["n_cases"] == 10 > own
    assert everything["classes"]["core"]["dice"]["ci95"] is None  # five patients are too few


def test_a_checkpoint_that_lost_its_run_needs_a_data_set(trained, eval_config, tmp_path):
    shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "lost.ckpt")
    with pytest.raises(MedsegError, match="dataset=folder"):
        evaluate.run(eval_config(tmp_path / "lost.ckpt"))
    assert not (tmp_path / "eval").exists()


def test_a_part_without_cases_is_refused(small, eval_config, tmp_path):
    train.run(small(2, "split.test=0") | {"run_dir": str(tmp_path / "run")})
    with pytest.raises(MedsegError, match=r"subset=test.*no case"):
        evaluate.run(eval_config(tmp_path / "run"))


def test_one_bad_case_stops_no_other(trained, composed, tmp_path, caplog):
    caplog.set_level("INFO", "medseg")
    report = report_of(trained / "test")
    with (trained / "test" / "cases.csv").open(newline="") as file:
        name = next(csv.DictReader(file))["case"]
    root = tmp_path / "copy"
    import yaml

    saved = resolve(yaml.safe_load((trained / "config.yaml").read_text()))["dataset"]
    case = {case.id: case for case in open_dataset(typed(DatasetSettings, saved)).cases}[name]
    root = case.images[0].parent.parent
    copied = tmp_path / "copy"
    shutil.copytree(root, copied)
    image = copied / case.images[0].relative_to(root)
    image.write_bytes(image.read_bytes()[:100])
    labels = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}
    name = "decathlon" if (root / "dataset.json").is_file() else "folder"
    config = composed("eval", "device=cpu", f"dataset={name}", "subset=test")
    config["dataset"] |= {"root": str(copied), "labels": labels}
    config["split"]["file"] = str(trained / "splits.json")
    result = evaluate.run(config | {"checkpoint": str(trained), "run_dir": str(tmp_path / "eval")})
    assert result["status"] == "some_failed"
    found = report_of(tmp_path / "eval")
    assert found["n_cases"] == report["n_cases"] - 1
    assert len(found["problems"]) == 1
    assert found["problems"][0].startswith(case.id)
    page = (tmp_path / "eval" / "report.html").read_text()
    assert "1 case(s) could not be scored" in page
    assert "config.yaml of the evaluation" in page
    assert caplog.messages[-1] == f"report: {tmp_path / 'eval' / 'report.html'}"


def test_a_network_is_loaded_without_lightning_and_monai(trained):
    import subprocess
    import sys

    code = (
        "import sys, medseg; p = medseg.Predictor.load(sys.argv[1], device='cpu');"
        "assert not {'lightning', 'monai', 'hydra'} & set(sys.modules), set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(trained)], check=True)


def test_the_predictor_refuses_what_does_not_fit(trained):
    predictor = Predictor.load(trained, device="cpu")
    dims = predictor.dims
    from medseg.io.case import Scan

    other = Scan(np.zeros((1, *[8] * (5 - dims)), np.float32), np.eye(4))
    with pytest.raises(MedsegError, match=f"takes {dims}D"):
        predictor(other)
