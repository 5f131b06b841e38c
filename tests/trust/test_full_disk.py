"""A full disk ends a job with one message that names file and cause; what was there before stays whole."""

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from leftovers import leftovers
from processes import FILLER, FilledDisk, FullDisk, check_whole, run, said
from small_jobs import EVAL, PREDICT, RESUME, SMALL, TRAIN, again, check_same, content

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.files.write_masks import write_classes
from medseg.io.labels import LabelMap

FULL = "No space left on device"
UNRANKED = tuple(setting for setting in PREDICT if setting != "worst=1")
"""Without a choice of the worst cases, which a scan that fails changes for good."""
ON_DISK = ("train", *SMALL, "logger=tensorboard", "run_dir=run")


def check_said(place, *names):
    """Look for one message that names a file and the cause."""
    messages = [line for line in said(place).splitlines() if line.startswith("medseg: ")]
    assert len(messages) == 1, said(place)
    assert "Traceback" not in said(place), said(place)
    assert "Logging error" not in said(place), said(place)
    assert FULL in said(place), said(place)
    assert all(name in said(place) for name in names), said(place)


def points(quick, *others):
    """Return full disks as parameters; the first is part of every test run."""
    return [pytest.param(quick, id=str(quick))] + [
        pytest.param(each, id=str(each), marks=pytest.mark.trust) for each in others
    ]


@pytest.mark.parametrize(
    "disk",
    points(
        FullDisk("*/last.ckpt", 2),
        FullDisk("*/metrics.csv", 2),
        FullDisk("*/result.json"),
        FullDisk("*/overlays/*.png", 2),
        FullDisk("*/test/metrics.json"),
        FullDisk("*/test/report.html"),
    ),
)
def test_a_training_keeps_its_last_checkpoint(finished, tmp_path, disk):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    shutil.rmtree(place / "run")
    assert run(TRAIN, place, disk) == 1, said(place)
    check_said(place, disk.which.rpartition("/")[2].removeprefix("*"))
    check_whole(place)
    assert not leftovers(place)
    again(RESUME, place)
    check_same(place / "run", finished / "run")


@pytest.mark.trust
@pytest.mark.parametrize(
    "disk",
    [
        FullDisk("*.fingerprint.pt", 3),
        FullDisk("*.case.pt", 2),
        FullDisk("*best.ckpt", interval=60),
        FullDisk("*/config.yaml"),
    ],
    ids=str,
)
def test_a_training_that_cannot_begin_is_begun_again(data_alone, finished, tmp_path, disk):
    place = tmp_path / "place"
    shutil.copytree(data_alone, place)
    assert run(TRAIN, place, disk) == 1, said(place)
    check_said(place, disk.which.removeprefix("*"))
    check_whole(place)
    assert not leftovers(place)
    again(TRAIN, place)
    check_same(place, finished)


@pytest.mark.parametrize(
    "disk",
    points(
        FullDisk("*case_003.nii.gz", 1, once=True),
        FullDisk("*uncertainty/*", 2, once=True),
        FullDisk("*probabilities/*", 4, once=True),
        FullDisk("*overlays/*.png", 3, once=True),
        FullDisk("*.medseg/*.json", 3, once=True),
    ),
)
def test_a_scan_that_finds_no_room_stops_no_other(finished, undisturbed, tmp_path, disk):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    assert run(UNRANKED, place, disk) == 3, said(place)
    assert FULL in said(place)
    assert "Traceback" not in said(place)
    check_whole(place)
    assert not leftovers(place)
    again(UNRANKED, place)
    check_same(place / "masks", undisturbed(UNRANKED, "masks"))


WRITERS = {
    "image": ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.tif"),
    "seg.nrrd": ("a.seg.nrrd",),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nibabel leaves its file open
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(("form", "name"), [(form, name) for form, names in WRITERS.items() for name in names])
def test_every_writer_of_masks_tells_of_a_full_disk(tmp_path, monkeypatch, form, name):
    @contextmanager
    def full(temporary):
        temporary.symlink_to("/dev/full")
        yield

    shape = (24, 24) if name in ("a.png", "a.tif") else (24, 24, 24)
    scan = Scan(np.zeros((1, *shape), np.float32), np.eye(4), "px" if len(shape) == 2 else "mm")
    indices = np.random.default_rng(0).integers(0, 2, shape, np.uint8)  # too many bytes to wait in a buffer
    monkeypatch.setattr("medseg.system.files.locked_file", full)
    with pytest.raises(MedsegError, match=rf"cannot write .*{name}"):
        write_classes(tmp_path / name, indices, LabelMap({"background": 0, "lesion": 1}), scan, form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.trust
@pytest.mark.parametrize("disk", [FullDisk("*predictions.csv", 1), FullDisk("*case_003.nii.gz")], ids=str)
def test_a_prediction_without_any_room_goes_on_later(finished, undisturbed, tmp_path, disk):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    assert run(PREDICT, place, disk) == 1, said(place)
    check_said(place, "predictions.csv")
    check_whole(place)
    assert not leftovers(place)
    again(PREDICT, place)
    check_same(place / "masks", undisturbed(PREDICT, "masks"))


@pytest.mark.trust
@pytest.mark.parametrize(
    "disk", [FullDisk("*/config.yaml"), FullDisk("*/metrics.json"), FullDisk("*/report.html")], ids=str
)
def test_a_report_that_finds_no_room_is_made_again(finished, undisturbed, tmp_path, disk):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    assert run(EVAL, place, disk) == 1, said(place)
    check_said(place, disk.which.removeprefix("*/"))
    check_whole(place)
    assert not leftovers(place)
    again(EVAL, place)
    check_same(place / "evaluation", undisturbed(EVAL, "evaluation"))


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of 4 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a disk of 4 MB, which can be filled")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.trust
def test_a_training_on_a_disk_that_fills_is_resumed(finished, small_disk):
    place = small_disk / "place"
    shutil.copytree(finished, place)
    shutil.rmtree(place / "run")
    assert run(ON_DISK, place, FilledDisk(4)) == 1
    check_said(place, "run/")
    (place / FILLER).unlink()
    check_whole(place)
    assert not leftovers(place)
    again(RESUME, place)
    for name in ("metrics.csv", "result.json", "checkpoints/best.ckpt", "test/metrics.json"):
        assert content(place / "run" / name) == content(finished / "run" / name), name


@pytest.mark.trust
def test_a_prediction_on_a_disk_that_fills_goes_on(finished, undisturbed, small_disk):
    place = small_disk / "place"
    shutil.copytree(finished, place)
    assert run(PREDICT, place, FilledDisk(4)) in (1, 3)
    (place / FILLER).unlink()
    check_whole(place)
    assert not leftovers(place)
    again(PREDICT, place)
    check_same(place / "masks", undisturbed(PREDICT, "masks"))
