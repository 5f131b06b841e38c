"""Trainings that begin with published weights, downloaded from a web server on this machine."""

import io
import json
import logging

import pytest
import torch
from file_server import serving
from published_files import drawn, torchvision_shapes

from medseg.errors import MedsegError
from medseg.jobs.inspect import inspect
from medseg.jobs.predict import predict
from medseg.jobs.train import pretrain, train
from medseg.system import terminal

SETTINGS = (
    *("model=flexible_unet", "model.backbone=resnet18", "model.base_channels=4", "model.pretrained=imagenet"),
    *("trainer.max_time=null", "trainer.max_epochs=1", "trainer.steps_per_epoch=1", "trainer.accelerator=cpu"),
    *("dataset.dims=2", "dataset.cases=10", "dataset.size=64", "plan.batch_size=2", "logger=none", "augment=none"),
)


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        buffer = io.BytesIO()
        torch.save(drawn(torchvision_shapes("resnet18")), buffer)
        running.files["resnet18.pth"] = buffer.getvalue()
        yield running


@pytest.fixture
def settings(composed, workplace, server, tmp_path):
    """Return ``settings(*overrides)``: the config of a training of one step that begins with the server's file."""

    def compose(*overrides, command="train"):
        kept = [setting for setting in SETTINGS if command == "train" or not setting.startswith("augment")]
        config = composed(command, *kept, *overrides)
        config["dataset"]["root"] = str(workplace / "phantom")
        config["cache_dir"] = str(workplace / "cache")
        entry = {"url": server.url("resnet18.pth"), "checksum": None}
        config["weights"] = {"folder": str(tmp_path / "weights"), "published": {"resnet18": {"imagenet": entry}}}
        return config | {"run_dir": str(tmp_path / "run")}

    return compose


def test_from_imagenet_to_masks(composed, settings, server, tmp_path, workplace, caplog):
    caplog.set_level(logging.INFO, "medseg")
    server.requests.clear()
    train.run(settings("preprocessing.normalize=[unit]", "optimizer.lr=1e-9"))
    assert [name for name, _ in server.requests] == [
        "resnet18.pth"
    ]  # though it is read before the run directory is made and in training
    said = (tmp_path / "run" / "train.log").read_text()
    for line in (
        "weights: imagenet for ",
        "first convolution: the mean over red, green, blue, times 3/1, for the one channel",
        "input: normalised by unit; brought to the scale 'standard' of the weights by 4.425 x -1.987",
    ):
        assert said.count(line) == 1
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    begun = drawn(torchvision_shapes("resnet18"))["layer4.1.conv2.weight"]
    torch.testing.assert_close(checkpoint["state_dict"]["network.encoder.layer4.1.conv2.weight"], begun)
    assert str(tmp_path) not in json.dumps(checkpoint["medseg"])
    (tmp_path / "weights" / "resnet18-imagenet.pth").unlink()
    config = composed("predict", "device=cpu") | {
        "checkpoint": str(tmp_path / "run"),
        "output": str(tmp_path / "masks"),
    }
    scan = sorted((workplace / "phantom").glob("2d*/images/*"))[0]
    assert predict.run(config | {"input": str(scan)})["status"] == "done"
    assert len(server.requests) == 1


def test_a_file_of_one_s_own_needs_no_server_and_is_read_once(settings, server, tmp_path):
    server.requests.clear()
    file = tmp_path / "copied (1).pth"
    file.write_bytes(server.files["resnet18.pth"])
    config = settings()
    config["model"]["weights"] = str(file)
    train.run(config)
    assert server.requests == []
    content = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["medseg"]
    assert content["config"]["model"]["weights"] is None
    assert content["config"]["model"]["pretrained"] == "imagenet"
    file.unlink()
    config["trainer"]["max_epochs"] = 2
    assert train.run(config | {"resume": config["run_dir"]})["status"] == "done"


def test_what_cannot_be_had_stops_before_anything_is_written(settings, server, tmp_path):
    config = settings()
    config["weights"]["published"]["resnet18"]["imagenet"]["url"] = server.url("gone.pth")
    with pytest.raises(MedsegError, match=r"(?s)gone\.pth cannot be had.*404.*resnet18-imagenet\.pth"):
        train.run(config)
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_stops_before_anything_is_written(settings, tmp_path):
    config = settings("model.backbone=resnet34")
    table = config["weights"]["published"]
    table["resnet34"] = table.pop("resnet18")
    with pytest.raises(MedsegError, match=r"(?s)does not hold these weights.*layer1\.2\.conv1"):
        train.run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model=swin_unetr", "model.pretrained=swinvit", "model.base_channels=24"], "swinvit have 48"),
        (["model=flexible_unet", "model.pretrained=null", "model.weights=mine.pth"], "say by model.pretrained whose"),
    ],
)
def test_values_that_the_weights_do_not_have_are_refused(composed, workplace, tmp_path, overrides, says):
    rest = [setting for setting in SETTINGS if not setting.startswith("model")]
    config = composed("train", *overrides, *rest) | {"run_dir": str(tmp_path / "run")}
    config["dataset"]["root"] = str(workplace / "phantom")
    with pytest.raises(MedsegError, match=says):
        train.run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=segresnet", "model.pretrained=wholebody_ct"], {"base_channels": 32, "depth": 3}),
        (["model=swin_unetr"], {"base_channels": 24}),
    ],
)
def test_the_plan_has_what_the_weights_need(composed, workplace, tmp_path, overrides, expected):
    rest = [setting for setting in SETTINGS if not setting.startswith(("model", "dataset.dims", "dataset.size"))]
    config = composed("inspect", *overrides, *rest, "dataset.dims=3", "dataset.size=32", "plan.patch_size=[64,32,32]")
    config["dataset"]["root"], config["cache_dir"] = str(workplace / "phantom"), str(workplace / "cache")
    inspect.run(config | {"run_dir": str(tmp_path / "run")})
    planned = json.loads((tmp_path / "run" / "plan.json").read_text())["model"]
    assert expected.items() <= planned.items()


def test_a_download_is_shown_on_a_terminal(monkeypatch):
    shown = io.StringIO()
    console = terminal.Console(file=shown, force_terminal=True, width=120)
    monkeypatch.setattr(terminal, "interactive_terminal", lambda: console)
    pieces = [bytes(1_000_000)] * 3
    assert list(terminal.with_download_bar(pieces, 2_000_000, 5_000_000, "downloading net.pth")) == pieces
    assert "downloading net.pth" in shown.getvalue()
    assert "5.0/5.0 MB" in shown.getvalue()
    monkeypatch.undo()
    assert list(terminal.with_download_bar(pieces, 0, None, "downloading")) == pieces  # nothing in a pipe


def test_of_an_encoder_that_is_frozen_nothing_changes(settings, tmp_path):
    train.run(settings("finetune.freeze_encoder=true", "finetune.freeze_norm=true"))
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in drawn(torchvision_shapes("resnet18")).items():
        if not name.startswith("fc.") and "running" not in name and name != "conv1.weight":
            assert torch.equal(state[f"network.encoder.{name}"], value), name


def test_pretraining_on_one_s_own_scans_goes_on_from_published_weights(settings, tmp_path):
    pretrain.run(settings("optimizer.lr=1e-9", command="pretrain"))
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    begun = drawn(torchvision_shapes("resnet18"))["layer4.1.conv2.weight"]
    torch.testing.assert_close(state["network.encoder.layer4.1.conv2.weight"], begun)
