"""``medseg doctor`` tells what works, and what to do where something does not. No GPU is needed."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medseg.config import extras
from medseg.jobs import doctor
from medseg.system.gpus.unused import UnusedGpu
from medseg.system.relaunch import START_METHOD
from medseg.training.data import workers


@pytest.fixture
def examined(composed, tmp_path, monkeypatch, capsys):
    """Return ``examined(**changes)``: the result, what was printed, and the findings by name."""
    monkeypatch.setattr(doctor, "WRITTEN", 1 << 16)
    monkeypatch.setattr(doctor, "AT_ONCE", 1 << 14)
    monkeypatch.setattr(doctor, "unused_gpu", lambda: None)

    def run(**changes):
        file = tmp_path / "doctor.json"
        config = composed("doctor") | {"cache_dir": str(tmp_path / "cache"), "json": str(file)} | changes
        result = doctor.run(config)
        return result, capsys.readouterr().out, {each["name"]: each for each in json.loads(file.read_text("utf-8"))}

    return run


def test_all_is_told_within_80_columns_and_nothing_is_left_behind(examined, tmp_path):
    result, printed, found = examined(device="cpu")
    assert result["status"] == "done"
    assert {"medseg", "torch", "lightning", "monai", "cpu", "compiling", "workers", "cache"} <= found.keys()
    assert "forward and backward, works" in found["cpu"]["text"]
    assert "MB/s" in found["cache"]["text"]
    assert max(map(len, printed.splitlines())) <= 80
    assert [path.name for path in tmp_path.iterdir()] == ["doctor.json"]


def test_a_gpu_that_cannot_be_used_is_a_failure_unless_it_was_hidden(examined, monkeypatch):
    monkeypatch.setattr(doctor, "unused_gpu", lambda: UnusedGpu("the driver is too old", "Update the driver."))
    result, printed, found = examined()
    assert result["status"] == "failed"
    assert result["reason"] == "GPU: not used: the driver is too old"
    assert "→ Update the driver." in printed
    assert "cpu" in found  # which is examined all the same
    monkeypatch.setattr(doctor, "unused_gpu", lambda: UnusedGpu("CUDA_VISIBLE_DEVICES='' hides all GPUs"))
    assert examined()[0]["status"] == "done"


def test_a_device_that_is_not_there_is_a_failure(examined):
    result, _, found = examined(device="cuda:7")
    assert result["status"] == "failed"
    assert found["cuda:7"]["is_failure"]


def test_a_cache_that_cannot_be_written_is_a_failure(examined, monkeypatch):
    def full(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor, "TemporaryFile", full)
    result, printed, _ = examined(device="cpu")
    assert result["status"] == "failed"
    assert "No space left on device" in printed


def test_a_cache_in_the_place_of_a_file_is_a_failure(examined, tmp_path):
    (tmp_path / "file").touch()
    result, printed, _ = examined(device="cpu", cache_dir=str(tmp_path / "file" / "cache"))
    assert result["status"] == "failed"
    assert "Not a directory" in " ".join(printed.split())


def test_a_device_that_computes_nothing_is_a_failure(monkeypatch):
    def fails(*shape, device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch, "ones", fails)
    found = doctor.device_works(torch.device("cpu"))
    assert found.is_failure
    assert found.text.endswith("no kernel image is available for execution on the device")


def test_gpus_are_told_apart(monkeypatch):
    """One that is there by name alone: what it is, before its convolution fails for lack of it."""
    monkeypatch.setattr(doctor, "pick_precision", lambda name, device: "bf16")
    properties = SimpleNamespace(name="H200", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100e9, 141e9))
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: self)
    monkeypatch.setattr(doctor, "autocast", lambda device, precision: torch.autocast("cpu", enabled=False))
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape))
    found = doctor.device_works(torch.device("cuda:3"))
    assert found.name == "cuda:3"
    assert found.text.startswith("H200, 141.0 GB of memory, 100.0 free, capability 9.0; a convolution in bf16")


def test_why_compiling_does_not_work(monkeypatch):
    def fails(function, options):
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    assert "not tried" in doctor.compiling_works(torch.device("cpu")).text
    monkeypatch.setattr(torch, "compile", fails)
    found = doctor.compiling_works(torch.device("meta"))
    assert "Failed to find C compiler" in found.text
    assert "build-essential" in found.cure
    assert not found.is_failure  # trainings go on uncompiled
    monkeypatch.setattr(torch, "compile", lambda function, options: function)
    assert doctor.compiling_works(torch.device("meta")).text.startswith("works on meta")


def test_workers_and_their_shared_memory_are_those_of_a_training(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(workers, "SHARED_MEMORY", Path(__file__).parent)
    monkeypatch.setattr(doctor, "SHARED_MEMORY", Path(__file__).parent)
    monkeypatch.setattr(doctor, "cores", lambda: 4)
    needed = workers.shared_bytes(4, doctor.BATCH_BYTES)

    def cures(free, is_on_gpu):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))
        method, shared = doctor.room_for_data(is_on_gpu=is_on_gpu)
        assert f"start by {START_METHOD};" in method.text
        assert not method.cure
        return shared.cure

    assert "--shm-size=1g" in cures(needed, is_on_gpu=True)  # of which a tenth stays free
    assert not cures(needed, is_on_gpu=False)
    assert not cures(2 * needed, is_on_gpu=True)


def test_missing_extras_say_what_they_are_for(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "onnx" else object())
    (found,) = doctor.missing_extras()
    assert (found.name, found.text) == ("onnx", "onnx missing: medseg export, and ONNX files as models")
    assert "pip install 'medseg[onnx]'" in found.cure
