"""The correction loop: the least certain masks out, corrected masks in, and a training that begins where one ended."""

import csv
import json
import logging

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from medseg.errors import MedsegError
from medseg.jobs.predict import predict
from medseg.jobs.train import train
from medseg.training.transfer.sources import read_source
from medseg.training.transfer.transfer import transfer_weights


@pytest.fixture(scope="session")  # a worker may leave this file for others and come back
def run_dir(small, workplace):
    folder = workplace / "first run"
    train.run(small(3) | {"run_dir": str(folder)})
    return folder


@pytest.fixture(scope="module")
def laid_out(run_dir, composed, workplace, tmp_path_factory):
    """Scans that are new to the run, and what predict lays out of them."""
    from medseg.io.layouts.synthetic import write_phantom

    new = tmp_path_factory.mktemp("new")
    write_phantom(new, dims=3, channels=1, cases=3, size=32, seed=77)
    for number, path in enumerate(sorted((new / "imagesTr").iterdir())):
        path.rename(path.with_name(f"new_{number}.nii.gz"))
    output = tmp_path_factory.mktemp("masks")
    config = composed("predict", "device=cpu", "worst=2")
    predict.run(config | {"checkpoint": str(run_dir), "input": str(new / "imagesTr"), "output": str(output)})
    return output


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_least_certain_cases_are_laid_out(laid_out):
    worst = [row["case"] for row in rows_of(laid_out / "uncertainty.csv")][:2]
    rows = rows_of(laid_out / "to_correct/cases.csv")
    assert [row["id"] for row in rows] == worst
    assert sorted(path.name for path in (laid_out / "to_correct").iterdir()) == sorted(
        ["cases.csv", *(f"{name}.seg.nrrd" for name in worst)]
    )
    for row in rows:
        scan, mask = (sitk.ReadImage(path) for path in (row["image"], str(laid_out / "to_correct" / row["label"])))
        predicted = sitk.ReadImage(str(laid_out / f"{row['id']}.nii.gz"))
        assert mask.GetSize() == scan.GetSize()
        np.testing.assert_allclose(mask.GetOrigin(), scan.GetOrigin(), atol=1e-4)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(predicted))
        assert "edema" in [mask.GetMetaData(key) for key in mask.GetMetaDataKeys() if key.endswith("_Name")]


def test_corrected_masks_train_further_from_the_runs_weights(laid_out, run_dir, small, tmp_path, caplog):
    first, second = rows_of(laid_out / "to_correct/cases.csv")
    mask = laid_out / "to_correct" / first["label"]
    image = sitk.ReadImage(str(mask))
    image[5, 5, 5] = 1
    sitk.WriteImage(image, str(mask), useCompression=True)
    config = small(3, "trainer.max_epochs=1") | {"run_dir": str(tmp_path / "run")}
    config["dataset"] |= {"corrections": str(laid_out / "to_correct")}
    config["finetune"] |= {"checkpoint": str(run_dir)}
    with caplog.at_level(logging.INFO):
        assert train.run(config)["status"] == "done"
    before, after = (json.loads((folder / "splits.json").read_text()) for folder in (run_dir, tmp_path / "run"))
    assert set(after["train"]) == {*before["train"], first["id"]}
    assert (after["val"], after["test"]) == (before["val"], before["test"])
    assert (tmp_path / "run/plan.json").read_text() == (run_dir / "plan.json").read_text()
    assert second["id"] in caplog.text  # as it was predicted
    assert "weights of" in caplog.text


def test_weights_are_those_of_the_run(run_dir):
    from medseg.inference.checkpoint import read_checkpoint
    from medseg.inference.loading import read_models

    model = read_models(run_dir)[0]
    expected = {name: value.clone() for name, value in model.network.state_dict().items()}
    for parameter in model.network.parameters():
        torch.nn.init.zeros_(parameter)
    spec = model.description["config"]["model"]
    source = read_source(run_dir)
    transfer = transfer_weights(model.network, spec, source, model.label_map.outputs, regions=False)
    transfer.put_into(model.network)
    assert transfer.share == 1
    assert not transfer.skipped
    for name, value in model.network.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    with pytest.raises(MedsegError, match=r"none of its .* weights fits this network, a Conv3d"):
        transfer_weights(torch.nn.Conv3d(1, 2, 3), {}, source, model.label_map.outputs, regions=False)
    assert read_checkpoint(run_dir).label_map == model.label_map


def test_a_checkpoint_without_its_run_is_begun_with_but_warned_of(run_dir, small, tmp_path, caplog):
    (tmp_path / "alone.ckpt").write_bytes((run_dir / "checkpoints/best.ckpt").read_bytes())
    config = small(3, "trainer.max_epochs=1", "trainer.steps_per_epoch=1") | {"run_dir": str(tmp_path / "run")}
    config["finetune"] |= {"checkpoint": str(tmp_path / "alone.ckpt")}
    with caplog.at_level(logging.INFO):
        assert train.run(config)["status"] == "done"
    assert "its training scans are unknown" in caplog.text
    assert "100.00 % of the parameters" in caplog.text
