"""A folder of scans: broken ones among them, again, in shards, on devices, killed, interrupted; ensembles."""

import csv
import gzip
import itertools
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from leftovers import leftovers
from PIL import Image
from thresholding import TARGET, Threshold, blob, write_checkpoint

from medseg.errors import MedsegError
from medseg.inference.predictor import Predictor
from medseg.io.case import Scan
from medseg.jobs.predict import predict, steps
from medseg.jobs.predict.pipeline import Stage
from medseg.jobs.predict.scans import find_scans
from medseg.preprocessing.cache import COPIES

HERE = str(Path(__file__).parent)
KILLS = 2


@pytest.fixture
def folder(composed, tmp_path):
    """Return ``run(**changes)``: predict ``tmp_path/scans`` into ``tmp_path/masks``."""
    write_checkpoint(tmp_path / "c.ckpt", dims=3)

    def run(**changes):
        config = composed("predict", "device=cpu")
        config |= {"checkpoint": str(tmp_path / "c.ckpt"), "input": str(tmp_path / "scans"), "trust": [TARGET]}
        return predict.run(config | {"output": str(tmp_path / "masks")} | changes)

    return run


def write_scans(folder, count, shape=(16, 18, 20)):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        body = np.roll(blob(shape), number % 5, 0).astype(np.int16) * (number + 1)
        nib.save(nib.Nifti1Image(body, np.diag([1, 2, 1.5, 1])), folder / f"scan{number:03}.nii.gz")


def table(output):
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def masks(output):
    """The bytes of every file that is meant for the user, the table excepted, which holds times."""
    return {
        path.relative_to(output): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".medseg" not in path.parts and path.name != "predictions.csv"
    }


# ---- broken in twenty ways


def nifti(path, data, affine=None, change=None):
    image = nib.Nifti1Image(data, np.eye(4) if affine is None else affine)
    if change:
        change(image.header)
    nib.save(image, path)
    return path


def header_field(value, offset, kind):
    """Write a whole scan, then overwrite a field of its header: nibabel would not write such a file."""

    def write(path):
        nifti(path, blob((16, 18, 20)).astype(np.float32))
        raw = bytearray(gzip.decompress(path.read_bytes()))
        struct.pack_into(kind, raw, offset, *value)
        path.write_bytes(gzip.compress(bytes(raw)))

    return write


def altered(change):
    def write(path):
        nifti(path, blob((16, 18, 20)).astype(np.float32))
        path.write_bytes(change(path.read_bytes()))

    return write


def voxel(value):
    def write(path):
        data = blob((16, 18, 20)).astype(np.float32)
        data[3, 4, 5] = value
        nifti(path, data)

    return write


BROKEN = {
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "truncated": (altered(lambda raw: raw[: len(raw) // 2]), "damaged"),
    "few bytes": (altered(lambda raw: raw[:20]), "damaged"),
    "checksum": (altered(lambda raw: raw[:-8] + bytes(4) + raw[-4:]), "CRC"),
    "packed twice": (altered(gzip.compress), "damaged"),
    "text": (lambda path: path.write_text("the scan is on the other disk"), "damaged"),
    "short data": (altered(lambda raw: gzip.compress(gzip.decompress(raw)[:-1000])), "damaged"),
    "short header": (altered(lambda raw: gzip.compress(gzip.decompress(raw)[:100])), "damaged"),
    "nan": (voxel(np.nan), "NaN"),
    "infinite": (voxel(np.inf), "infinite"),
    "constant": (lambda path: nifti(path, np.full((16, 18, 20), 7, np.int16)), "Constant"),
    "singular": (header_field([0.0] * 4, 280, "<4f"), "singular"),
    "nan affine": (header_field([np.nan] * 4, 280, "<4f"), "singular"),
    "picture": (lambda path: nifti(path, blob((16, 18)).astype(np.float32)), "2D"),
    "two channels": (lambda path: nifti(path, np.stack([blob((16, 18, 20))] * 2, -1).astype(np.float32)), "2 channel"),
    "five axes": (lambda path: nifti(path, np.ones((4, 4, 4, 2, 2), np.float32)), "no scan"),
    "complex": (lambda path: nifti(path, blob((16, 18, 20)).astype(np.complex64)), "complex"),
    "magic": (header_field([b"xxxx"], 344, "<4s"), "damaged"),
    "type": (header_field([999], 70, "<h"), "damaged"),
    "huge": (header_field([3, 32000, 32000, 32000, 1, 1, 1, 1], 40, "<8h"), "damaged"),
}


def test_twenty_broken_scans_among_two_hundred(folder, tmp_path):
    assert len(BROKEN) == 20
    write_scans(tmp_path / "scans", 180)
    for name, (write, _) in BROKEN.items():
        write(tmp_path / "scans" / f"broken {name}.nii.gz")
    before = {path: path.read_bytes() for path in (tmp_path / "scans").iterdir()}
    result = folder()
    assert result["status"] == "some_failed"
    assert {path: path.read_bytes() for path in (tmp_path / "scans").iterdir()} == before
    rows = {row["case"]: row for row in table(tmp_path / "masks")}
    assert len(rows) == 200
    assert sum(row["status"] == "done" for row in rows.values()) == 180 == len(masks(tmp_path / "masks"))
    for name, (_, reason) in BROKEN.items():
        row = rows[f"broken {name}"]
        assert row["status"] == "failed"
        assert reason in row["error"], (name, row["error"])
        assert "unexpected" not in row["error"]
        assert f"broken {name}" in result["reason"]


def test_a_bug_in_one_scan_stops_no_other(folder, tmp_path, monkeypatch):
    write_scans(tmp_path / "scans", 3)
    keep, calls = Predictor.predict_labels, itertools.count()

    def predict_labels(self, prepared, observers=()):
        if next(calls) == 1:  # scans are decided one by one, in order
            raise IndexError("who would have thought")
        return keep(self, prepared, observers)

    monkeypatch.setattr(Predictor, "predict_labels", predict_labels)
    result = folder()
    assert result["status"] == "some_failed"
    assert "unexpected IndexError: who would have thought" in result["reason"]
    assert sorted(masks(tmp_path / "masks")) == [Path("scan000.nii.gz"), Path("scan002.nii.gz")]


def test_a_scan_whose_probabilities_are_not_finite_fails_and_the_others_go_on(folder, tmp_path, monkeypatch):
    write_scans(tmp_path / "scans", 3)
    logits = Threshold.forward

    def overflow(self, x):  # as in fp16; scan001 alone has voxels of exactly 2
        return logits(self, x) * (float("inf") if (x == 2).any() else 1)

    monkeypatch.setattr(Threshold, "forward", overflow)
    result = folder(uncertainty=True, save_probabilities=True)
    assert result["status"] == "some_failed"
    status = {row["case"]: (row["status"], row["error"]) for row in table(tmp_path / "masks")}
    assert [status[f"scan00{number}"][0] for number in range(3)] == ["done", "failed", "done"]
    assert "precision=fp32" in status["scan001"][1]
    assert {path.name for path in masks(tmp_path / "masks")} >= {"scan000.nii.gz", "scan002.nii.gz"}
    assert not [path for path in masks(tmp_path / "masks") if "scan001" in str(path)]


# ---- again


def changed_times(output):
    return {path: path.stat().st_mtime_ns for path in output.rglob("*.nii.gz")}


def test_done_scans_are_skipped_by_content_not_by_presence(folder, tmp_path):
    write_scans(tmp_path / "scans", 4)
    folder()
    output, first = tmp_path / "masks", masks(tmp_path / "masks")
    times = changed_times(output)
    folder()
    assert changed_times(output) == times
    (output / "scan000.nii.gz").write_bytes(b"half a mask")  # changed
    (output / "scan001.nii.gz").unlink()  # gone
    write_scans(tmp_path / "other", 8)
    (tmp_path / "other" / "scan004.nii.gz").replace(tmp_path / "scans" / "scan002.nii.gz")  # made of something else
    folder()
    again = masks(output)
    assert [again[Path(f"scan00{n}.nii.gz")] == first[Path(f"scan00{n}.nii.gz")] for n in range(4)] == [
        True, True, False, True,
    ]  # fmt: skip
    assert {path.name: path.stat().st_mtime_ns == times.get(path) for path in output.glob("*.nii.gz")} == {
        "scan000.nii.gz": False, "scan001.nii.gz": False, "scan002.nii.gz": False, "scan003.nii.gz": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"skip_done": False}, {"inference": {"tta": True}}, {"postprocess": {"largest": True}}]
)
def test_other_settings_make_masks_anew(folder, tmp_path, change):
    write_scans(tmp_path / "scans", 1)
    folder()
    times = changed_times(tmp_path / "masks")
    folder(**change)
    assert changed_times(tmp_path / "masks") != times


def test_another_model_makes_masks_anew(folder, tmp_path):
    write_scans(tmp_path / "scans", 1)
    folder()
    write_checkpoint(tmp_path / "c.ckpt", dims=3, values=(0, 9))
    folder()
    assert np.asarray(nib.load(tmp_path / "masks" / "scan000.nii.gz").dataobj).max() == 9


def test_an_output_folder_inside_the_input(folder, tmp_path):
    write_scans(tmp_path / "scans", 3)
    for _ in range(2):
        assert folder(output=str(tmp_path / "scans" / "masks"))["status"] == "done"
    assert len(table(tmp_path / "scans" / "masks")) == 3


# ---- shards and devices


def test_shards_share_a_folder_and_one_table(folder, tmp_path):
    write_scans(tmp_path / "scans", 7)
    folder(output=str(tmp_path / "whole"))
    for place in (2, 1, 3):
        folder(predict={"shard": f"{place}/3"})
    assert masks(tmp_path / "masks") == masks(tmp_path / "whole")
    without_times = [[{**row, "seconds": ""} for row in table(tmp_path / name)] for name in ("masks", "whole")]
    assert without_times[0] == without_times[1]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_shard_that_is_none(folder, tmp_path, shard):
    write_scans(tmp_path / "scans", 1)
    with pytest.raises(MedsegError, match=r"predict\.shard=.*2/8"):
        folder(predict={"shard": shard})


def command(tmp_path, *settings):
    """The command in a process of its own."""
    places = [f"checkpoint={tmp_path / 'c.ckpt'}", f"input={tmp_path / 'scans'}", f"output={tmp_path / 'masks'}"]
    arguments = [sys.executable, "-m", "medseg", "predict", *places, "device=cpu", f"trust=[{TARGET}]", *settings]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, str(Path(HERE).parents[1])])}
    return {"args": arguments, "env": environment}


def test_a_folder_on_two_devices(folder, tmp_path):
    write_scans(tmp_path / "scans", 5)
    folder(output=str(tmp_path / "whole"))
    (tmp_path / "scans" / "bad.nii.gz").write_bytes(b"")
    done = subprocess.run(**command(tmp_path, "trainer.devices=2"), capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "5 of 6 masks" in done.stderr
    assert masks(tmp_path / "masks") == masks(tmp_path / "whole")
    assert len(table(tmp_path / "masks")) == 6


def test_two_devices_from_python_run_the_given_config_and_not_the_programs_arguments(folder, tmp_path, monkeypatch):
    write_scans(tmp_path / "scans", 3)
    folder(output=str(tmp_path / "whole"))
    monkeypatch.setattr(sys, "argv", ["notebook", "predict", f"output={tmp_path / 'elsewhere'}"])
    result = folder(trainer={"devices": 2})
    assert result["status"] == "done"
    assert masks(tmp_path / "masks") == masks(tmp_path / "whole")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("status", [2, -9])
def test_a_process_that_breaks_down_is_not_hidden_by_older_records(folder, tmp_path, monkeypatch, status):
    write_scans(tmp_path / "scans", 2)
    folder()
    monkeypatch.setattr("medseg.jobs.predict.predict.on_devices", lambda *arguments: [0, status])
    with pytest.raises(MedsegError, match=f"1 of 2 processes broke down .exit status {status}"):
        folder(trainer={"devices": 2})


def test_a_process_that_did_not_begin_is_not_hidden_by_older_records(folder, tmp_path, monkeypatch):
    write_scans(tmp_path / "scans", 2)
    folder()
    monkeypatch.setattr("medseg.jobs.predict.predict.on_devices", lambda *arguments: [0, 1])
    with pytest.raises(MedsegError, match=r"1 scan\(s\) were not reached"):
        folder(trainer={"devices": 2})


# ---- ended early


def test_killed_and_resumed_the_masks_are_those_of_an_undisturbed_run(folder, tmp_path):
    write_scans(tmp_path / "scans", 40, (40, 44, 48))
    folder(output=str(tmp_path / "whole"), save_probabilities=True)
    rng = random.Random(0)
    for _ in range(KILLS):
        before = len(list((tmp_path / "masks").rglob("*.json")))
        process = subprocess.Popen(**command(tmp_path, "save_probabilities=true"), stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list((tmp_path / "masks").rglob("*.json"))) < min(before + 2, 39):
            time.sleep(0.01)
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    folder(save_probabilities=True)
    assert not leftovers(tmp_path / "masks")
    assert masks(tmp_path / "masks") == masks(tmp_path / "whole")
    assert len(masks(tmp_path / "masks")) == 40 * 3


INTERRUPTED_AT_THE_FIFTH_SCAN = """
import itertools, os, signal
from medseg.cli.command_line import main
from medseg.inference.predictor import Predictor

predict_labels, calls = Predictor.predict_labels, itertools.count()

def predict_or_be_interrupted(*arguments):
    if next(calls) == 4:
        os.kill(os.getpid(), signal.SIGINT)
    return predict_labels(*arguments)

Predictor.predict_labels = predict_or_be_interrupted
raise SystemExit(main())
"""


def test_ctrl_c_ends_at_once_and_leaves_nothing_half_written(folder, tmp_path):
    write_scans(tmp_path / "scans", 100, (40, 44, 48))
    interrupted = command(tmp_path)
    interrupted["args"][1:3] = ["-c", INTERRUPTED_AT_THE_FIFTH_SCAN]
    process = subprocess.Popen(**interrupted, stderr=subprocess.PIPE, text=True)
    _, error = process.communicate(timeout=300)  # a guard against hanging
    assert process.returncode == 130
    assert "interrupted" in error
    assert "Traceback" not in error
    assert not leftovers(tmp_path / "masks")
    assert 0 < len(table(tmp_path / "masks")) < 100


# ---- ensembles and probabilities


def test_an_ensemble_is_the_mean_of_its_members_whatever_their_grids(folder, tmp_path):
    """Thresholds of sigmoid-like scores: the mean of two networks' probabilities decides."""
    write_scans(tmp_path / "scans", 2)
    for name, spacing in (("a", None), ("b", None), ("c", [1.2, 1.7, 1.1])):
        write_checkpoint(tmp_path / f"{name}.ckpt", dims=3, spacing=spacing)
    checkpoints = [str(tmp_path / f"{name}.ckpt") for name in "abc"]
    folder(checkpoint=checkpoints, save_probabilities=True)
    parts = []
    for name in "abc":
        folder(checkpoint=str(tmp_path / f"{name}.ckpt"), output=str(tmp_path / name), save_probabilities=True)
        parts.append(nib.load(tmp_path / name / "probabilities" / "scan001" / "thing.nii.gz").get_fdata())
    mean = nib.load(tmp_path / "masks" / "probabilities" / "scan001" / "thing.nii.gz").get_fdata()
    np.testing.assert_allclose(mean, sum(parts) / 3, atol=1.01 / 255)
    mask = np.asarray(nib.load(tmp_path / "masks" / "scan001.nii.gz").dataobj)
    np.testing.assert_array_equal(mask[mean > 0.51], 1)
    np.testing.assert_array_equal(mask[mean < 0.49], 0)


def test_a_folder_of_runs_is_an_ensemble(folder, tmp_path):
    write_scans(tmp_path / "scans", 1)
    for fold in "01":
        place = tmp_path / "folds" / fold / "checkpoints"
        place.mkdir(parents=True)
        write_checkpoint(place / "best.ckpt", dims=3)
    assert len(Predictor.load(tmp_path / "folds", trust=[TARGET], device="cpu").groups[0].models) == 2
    assert folder(checkpoint=str(tmp_path / "folds"))["status"] == "done"


def test_models_that_cannot_vote_together(folder, tmp_path):
    write_scans(tmp_path / "scans", 1)
    write_checkpoint(tmp_path / "other.ckpt", dims=3, values=(0, 5))
    with pytest.raises(MedsegError, match=r"same classes(.|\n)*other\.ckpt"):
        folder(checkpoint=[str(tmp_path / "c.ckpt"), str(tmp_path / "other.ckpt")])
    write_checkpoint(tmp_path / "other.ckpt", dims=2)
    with pytest.raises(MedsegError, match="same number of dimensions"):
        folder(checkpoint=[str(tmp_path / "c.ckpt"), str(tmp_path / "other.ckpt")])


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_probabilities_lie_where_the_mask_lies(folder, tmp_path, flips):
    (tmp_path / "scans").mkdir()
    body = blob((16, 18, 20))
    nib.save(nib.Nifti1Image(body.astype(np.float32), np.diag([*flips, 1])), tmp_path / "scans" / "a.nii")
    folder(save_probabilities=True)
    thing, rest = (
        nib.load(tmp_path / "masks" / "probabilities" / "a" / f"{name}.nii.gz") for name in ("thing", "background")
    )
    np.testing.assert_allclose(thing.affine, np.diag([*flips, 1]))
    assert thing.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(thing.get_fdata() > 0.5, body)
    np.testing.assert_allclose(thing.get_fdata() + rest.get_fdata(), 1, atol=1.01 / 255)


def test_probabilities_of_pictures(composed, tmp_path):
    (tmp_path / "scans").mkdir()
    Image.fromarray((blob((40, 50)) * 255).astype(np.uint8)).save(tmp_path / "scans" / "a.png")
    write_checkpoint(tmp_path / "c.ckpt", dims=2)
    config = composed("predict", "device=cpu", "save_probabilities=true") | {"trust": [TARGET]}
    config |= {"checkpoint": str(tmp_path / "c.ckpt"), "input": str(tmp_path / "scans")}
    predict.run(config | {"output": str(tmp_path / "masks")})
    shares = nib.load(tmp_path / "masks" / "probabilities" / "a" / "thing.nii.gz").get_fdata()
    np.testing.assert_array_equal(shares > 0.5, blob((40, 50)))


def test_records_tell_what_was_written(folder, tmp_path):
    write_scans(tmp_path / "scans", 1)
    folder(save_probabilities=True)
    (path,) = (tmp_path / "masks" / ".medseg").glob("*.json")
    record = json.loads(path.read_text())
    assert set(record["files"]) == {
        "scan000.nii.gz", "probabilities/scan000/background.nii.gz", "probabilities/scan000/thing.nii.gz",
    }  # fmt: skip


def test_what_reading_a_scan_warns_of_is_logged_by_every_run_also_where_its_mask_is_there(folder, tmp_path, caplog):
    write_scans(tmp_path / "scans", 2)
    nib.save(nib.Nifti1Image(blob((16, 18, 20)).astype(np.int16), None), tmp_path / "scans" / "scan001.nii.gz")
    times = []
    for changes in ({}, {}, {"skip_done": False}):
        caplog.clear()
        folder(**changes)
        assert ["scan001" in message for message in caplog.messages if "neither sform" in message] == [True]
        times.append(changed_times(tmp_path / "masks"))
    assert times[0] == times[1] != times[2]


def test_a_scan_with_a_fill_value_fails_alone_and_is_named_with_it(folder, tmp_path):
    write_scans(tmp_path / "scans", 2)
    voxel(-3.4e38)(tmp_path / "scans" / "filled.nii.gz")
    result = folder()
    assert result["status"] == "some_failed"
    rows = {row["case"]: row for row in table(tmp_path / "masks")}
    assert [rows[name]["status"] for name in ("filled", "scan000", "scan001")] == ["failed", "done", "done"]
    assert "filled.nii.gz: 1 of 5760 voxels has the value -3.4e+38" in rows["filled"]["error"]
    assert not (tmp_path / "masks" / "filled.nii.gz").exists()


def test_a_scan_in_memory_is_checked_as_one_in_a_file(folder, tmp_path):
    predictor = Predictor.load(tmp_path / "c.ckpt", trust=[TARGET], device="cpu")
    image = blob((16, 18, 20)).astype(np.float32)[None]
    assert predictor(Scan(image, np.eye(4))).indices.any()
    for value in (np.nan, 1e20):
        image[0, 3, 4, 5] = value
        with pytest.raises(MedsegError, match="the scan: 1 of 5760 voxels"):
            predictor(Scan(image, np.eye(4)))


# ---- channels that are not there


def write_channels(folder):
    """Two patients, of whom one lacks t2 and another t1; the body is in every channel."""
    folder.mkdir()
    for name in ("p1_t1", "p1_t2", "p2_t1", "p3_t2"):
        image = nib.Nifti1Image(blob((16, 18, 20)).astype(np.float32), np.diag([1, 2, 1.5, 1]))
        nib.save(image, folder / f"{name}.nii.gz")


@pytest.mark.parametrize("reference", [0, 1])
def test_a_network_trained_with_channel_dropout_does_without_a_file(folder, tmp_path, reference):
    write_channels(tmp_path / "scans")
    dropout = {"intensity": [{"_target_": "medseg.augmentation.ChannelDropout", "probability": 0.2}]}
    options = {"dims": 3, "channels": 2, "endings": [["_t1"], ["_t2"]], "reading": ("error", reference)}
    write_checkpoint(tmp_path / "c.ckpt", **options, augment=dropout)
    assert folder()["status"] == "done"
    rows = {row["case"]: row for row in table(tmp_path / "masks")}
    assert {name: row["missing_channels"] for name, row in rows.items()} == {"p1": "", "p2": "_t2", "p3": "_t1"}
    sizes = {name: int(row["thing_voxels"]) for name, row in rows.items()}  # the network looks at the first channel
    assert sizes == {"p1": blob((16, 18, 20)).sum(), "p2": blob((16, 18, 20)).sum(), "p3": 0}


def test_any_other_network_refuses_the_case_with_the_channel(folder, tmp_path):
    write_channels(tmp_path / "scans")
    write_checkpoint(tmp_path / "c.ckpt", dims=3, channels=2, endings=[["_t1"], ["_t2"]])
    result = folder()
    assert "p2 has no file ending in _t2" in result["reason"]
    assert "p3 has no file ending in _t1" in result["reason"]
    assert [row["case"] for row in table(tmp_path / "masks") if row["status"] == "done"] == ["p1"]


# ---- several readers


def stages_for(monkeypatch, device, tasks, *, threads=16, free=1e12, added_channels=0):
    stage = {"added_channels": added_channels, "has_first_stage": added_channels > 0}
    predictor = SimpleNamespace(device=torch.device(device), **stage)
    prediction = SimpleNamespace(predictor=predictor, read=1, segment=2, write=3)
    monkeypatch.setattr(steps, "free_memory", lambda: free)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    return [(stage.at_once, stage.threads) for stage in steps.FolderPrediction.stages(prediction, tasks)]


def test_a_gpu_has_as_many_readers_as_cores_and_memory_allow_and_a_cpu_one(monkeypatch, tmp_path):
    write_scans(tmp_path, 2)
    small, large = find_scans(tmp_path, tmp_path / "masks", None)[0]
    nifti(large.images[0], np.random.default_rng(0).normal(size=(32, 32, 32)))
    tasks, each = [small, large], COPIES * 4 * 32**3
    assert stages_for(monkeypatch, "cpu", tasks) == [(1, 1), (1, 16), (1, 1)]
    assert stages_for(monkeypatch, "cuda:1", tasks) == [(8, 2), (1, 16), (1, 1)]
    assert stages_for(monkeypatch, "cuda:1", tasks, threads=4) == [(3, 1), (1, 4), (1, 1)]
    assert stages_for(monkeypatch, "cuda:1", tasks, threads=1) == [(1, 1), (1, 1), (1, 1)]
    assert stages_for(monkeypatch, "cuda:1", tasks, free=2 * each * 7)[0][0] == 5  # two more wait or are segmented
    assert stages_for(monkeypatch, "cuda:1", tasks, free=each)[0][0] == 1
    assert stages_for(monkeypatch, "cpu", tasks, added_channels=1) == [
        (1, 16),
        (1, 16),
        (1, 1),
    ]
    assert stages_for(monkeypatch, "cuda:1", tasks, free=2 * 2 * each * 7, added_channels=1)[0][0] == 5
    large.images[0].unlink()
    assert stages_for(monkeypatch, "cuda:1", tasks)[0][0] == 8


def test_several_readers_make_the_same_masks_table_and_log(folder, tmp_path, monkeypatch, caplog):
    write_scans(tmp_path / "scans", 9)
    BROKEN["nan"][0](tmp_path / "scans/scan004.nii.gz")
    results = []
    for at_once in (1, 4):
        monkeypatch.setattr(
            *(steps.FolderPrediction, "stages"),
            lambda self, tasks, n=at_once: [Stage(self.read, 1, n), Stage(self.segment, 1), Stage(self.write, 1)],
        )
        caplog.clear()
        folder(output=str(tmp_path / "masks"), skip_done=False)
        rows = [{**row, "seconds": ""} for row in table(tmp_path / "masks")]
        results.append((masks(tmp_path / "masks"), rows, caplog.messages))
    assert results[0] == results[1]
