"""``medseg export`` of trained runs, and ``medseg predict`` with the file."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from medseg import cli
from medseg.config import resolve
from medseg.errors import MedsegError
from medseg.io.dataset import open_dataset
from medseg.io.files import read_mask
from medseg.jobs import export, predict


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
    for case in open_dataset(saved["dataset"]).cases:
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


def test_a_file_that_differs_is_not_written(trained, run_export, tmp_path, monkeypatch):
    write = export.write_onnx

    def write_other(models, path):
        models = copy.deepcopy(models)
        with torch.no_grad():
            for parameter in models[0].network.parameters():
                parameter.add_(0.05)
        write(models, path)

    monkeypatch.setattr(export, "write_onnx", write_other)
    with pytest.raises(
        MedsegError, match=r"does not do what the checkpoint does: scores differ by at most .* \(allowed"
    ):
        run_export(trained, tmp_path / "folder" / "model.onnx")
    assert list((tmp_path / "folder").iterdir()) == []


def test_the_users_case_and_noise(trained, run_export, scans, tmp_path):
    shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    _, text = run_export(tmp_path / "alone.ckpt", tmp_path / "a.onnx")
    assert "the check is on noise, not on a real case" in text
    assert "checked on noise: " in text
    image = next(scans.iterdir())
    _, text = run_export(tmp_path / "alone.ckpt", tmp_path / "b.onnx", case=str(image))
    assert f"checked on {image}: " in text
    assert "the check is on noise" not in text


def test_own_cases_that_are_gone(trained, run_export, workplace, tmp_path):
    """Where the user says where the data are, they must be there."""
    run = shutil.copytree(trained, tmp_path / "run")
    split = json.loads((run / "splits.json").read_text())
    (run / "splits.json").write_text(json.dumps(split | {"test": ["lost"]}))
    with pytest.raises(MedsegError, match="not in the data set:\n  - lost"):
        run_export(run, tmp_path / "a.onnx", dataset={"root": str(workplace / "phantom")})
    assert not (tmp_path / "a.onnx").exists()
    _, text = run_export(run, tmp_path / "a.onnx")
    assert "the check is on noise" in text
    assert "- lost" in text


def test_the_command_line(tmp_path, capsys):
    (tmp_path / "a.ckpt").write_text("")
    line = ["export", f"checkpoint={tmp_path / 'a.ckpt'}"]
    for arguments, message in (
        ([f"output={tmp_path / 'model.pt'}"], "ends in .onnx"),
        ([f"output={tmp_path / 'model.onnx'}", "case=gone.nii"], "case=gone.nii: no such file"),
        ([f"output={tmp_path / 'model.onnx'}"], "not a checkpoint that can be loaded safely"),
        ([], "output: missing"),
    ):
        assert cli.main([*line, *arguments]) == 1
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
