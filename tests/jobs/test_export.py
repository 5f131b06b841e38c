"""``medseg export`` of trained runs, and ``medseg predict`` with the file."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from medseg.cli import command_line
from medseg.config.check import resolve
from medseg.config.schema import typed
from medseg.config.settings import DatasetSettings, ExportSettings
from medseg.errors import MedsegError
from medseg.inference.loading import read_models
from medseg.io.datasets.dataset import open_dataset
from medseg.io.files.read import read_mask
from medseg.jobs import export
from medseg.jobs.predict import predict


@pytest.fixture
def run_export(composed, caplog):
    """Export, and return the result and the log."""

    def run(checkpoint, output, **changes):
        caplog.clear()
        with caplog.at_level("INFO", logger="medseg"):
            config = {"checkpoint": str(checkpoint), "output": str(output)}
            result = export.run(composed("export") | config | changes)
        return result, caplog.text

    return run


@pytest.fixture
def scans(trained, tmp_path):
    """A folder of the run's test images."""
    saved = resolve(yaml.safe_load((trained / "config.yaml").read_text()))
    ids = json.loads((trained / "splits.json").read_text())["test"]
    folder = tmp_path / "scans"
    folder.mkdir()
    for case in open_dataset(typed(DatasetSettings, saved["dataset"])).cases:
        if case.id in ids:
            shutil.copy(case.images[0], folder)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_exported_checked_on_its_own_case_and_predicts_the_same(
    trained, run_export, scans, composed, tmp_path
):
    before = contents(trained)
    result, text = run_export(trained, tmp_path / "exported" / "model.onnx")
    assert result["status"] == "done"
    case = json.loads((trained / "splits.json").read_text())["test"][0]
    assert f"checked on {case}: scores differ by at most " in text
    assert "labels in 0 of " in text
    assert "opset 20, image (batch, " in text
    assert [path.name for path in (tmp_path / "exported").iterdir()] == ["model.onnx"]
    assert contents(trained) == before
    for checkpoint, name in ((trained, "expected"), (tmp_path / "exported" / "model.onnx", "found")):
        config = {"checkpoint": str(checkpoint), "input": str(scans), "output": str(tmp_path / name)}
        done = predict.run(composed("predict", "device=cpu", "precision=fp32") | config)
        assert done["status"] == "done"
    for scan in scans.iterdir():
        expected, found = (read_mask(tmp_path / name / scan.name) for name in ("expected", "found"))
        assert expected.any()
        assert np.mean(expected != found) <= 1e-4


@pytest.mark.parametrize("trained", [2], indirect=True)
def test_a_file_that_differs_is_not_written(trained, run_export, tmp_path, monkeypatch):
    write = export.write_onnx

    def write_other(models, path, trust):
        models = copy.deepcopy(models)
        with torch.no_grad():
            for parameter in models[0].network.parameters():
                parameter.add_(0.05)
        write(models, path, trust)

    monkeypatch.setattr(export, "write_onnx", write_other)
    message = r"does not do what the checkpoint does: scores differ by at most .* \(allowed: 0.001\), labels in \d+ of"
    with pytest.raises(MedsegError, match=message):
        run_export(trained, tmp_path / "folder" / "model.onnx")
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("trained", [3], indirect=True)
def test_noise_where_there_is_no_case(trained, run_export, scans, tmp_path):
    shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    _, text = run_export(tmp_path / "alone.ckpt", tmp_path / "a.onnx")
    assert "ONNX output checked on random noise (" in text
    assert "checked on noise: " in text


def test_noise_fits_networks_of_slices(trained):
    (model,) = read_models(trained)
    assert export.noise(model).shape == tuple(model.patch_size)
    one_slice = replace(model, patch_size=[1, *model.patch_size[1:]])
    assert export.noise(one_slice).shape == (export.THICKNESS, *model.patch_size[1:])


@pytest.mark.parametrize("trained", [2], indirect=True)
def test_the_case_is_the_users_or_the_runs_own(trained, composed, workplace, tmp_path, caplog):
    """Where the user says where the data are, they must be there."""

    def case(checkpoint, **changes):
        config = composed("export") | {"checkpoint": str(checkpoint), "output": "x"} | changes
        return export.case_to_check(typed(ExportSettings, config), model)

    (model,) = read_models(trained)
    assert case(trained, case="scan.nii") == ("scan.nii", (Path("scan.nii"),))
    assert case(trained, case=["t1.nii", "t2.nii"]) == ("t1.nii", (Path("t1.nii"), Path("t2.nii")))
    split = json.loads((trained / "splits.json").read_text())
    assert case(trained)[0] == split["test"][0]
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "splits.json").write_text(json.dumps(split | {"test": []}))
    assert case(run)[0] == split["val"][0]
    (run / "splits.json").write_text(json.dumps(split | {"test": ["lost"]}))
    assert not caplog.records
    assert case(run)[0] == "noise"
    assert "- lost" in caplog.text
    with pytest.raises(MedsegError, match="not in the data set:\n  - lost"):
        case(run, dataset={"root": str(workplace / "phantom")})


def test_the_command_line(tmp_path, capsys):
    (tmp_path / "a.ckpt").write_text("")
    line = ["export", f"checkpoint={tmp_path / 'a.ckpt'}"]
    for arguments, message in (
        ([f"output={tmp_path / 'model.pt'}"], "ends in .onnx"),
        ([f"output={tmp_path / 'model.onnx'}", "case=gone.nii"], "case=gone.nii: no such file"),
        ([f"output={tmp_path / 'model.onnx'}"], "not a checkpoint that can be loaded safely"),
        ([], "output: missing"),
    ):
        assert command_line.main([*line, *arguments]) == 1
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
