"""Broken data: one clear message that names the case, and nothing written."""

import gzip
import json
import os

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.io.layouts.synthetic import write_phantom
from medseg.jobs.train import train

CASES = 6
BAD = "c3"


def save(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


@pytest.fixture
def data(tmp_path):
    """A folder of six small volumes with masks."""
    generator = np.random.default_rng(0)
    for number in range(CASES):
        image = generator.normal(size=(16, 18, 20)).astype(np.float32)
        save(tmp_path / f"images/c{number}.nii.gz", image)
        save(tmp_path / f"masks/c{number}.nii.gz", (image > 1).astype(np.uint8))
    return tmp_path


@pytest.fixture
def train_on(composed, tmp_path):
    def run(*overrides):
        config = composed("train", "dataset=folder", "trainer.accelerator=cpu", "trainer.max_epochs=1", *overrides)
        config["dataset"]["root"] = str(tmp_path)
        return train.run(config | {"run_dir": str(tmp_path / "run"), "cache_dir": str(tmp_path / "cache")})

    return run


def damage(data, kind):
    image, mask = data / f"images/{BAD}.nii.gz", data / f"masks/{BAD}.nii.gz"
    values = np.asarray(nib.load(image).dataobj).copy()
    if kind == "truncated":
        image.write_bytes(image.read_bytes()[:1000])
    elif kind == "truncated inside":
        image.write_bytes(gzip.compress(gzip.decompress(image.read_bytes())[:5000]))
    elif kind == "no image":
        image.write_bytes(b"this is not an image")
    elif kind == "zero bytes":
        image.write_bytes(b"")
    elif kind == "unreadable mask":
        mask.write_bytes(mask.read_bytes()[:50])
    elif kind == "NaN":
        values[2, 3, 4] = np.nan
        save(image, values)
    elif kind == "fill value":
        values[2, 3, 4] = -3.4e38
        save(image, values)
    elif kind == "constant":
        save(image, np.full_like(values, 7))
    elif kind == "shape":
        save(mask, np.ones((16, 18, 19), np.uint8))
    elif kind == "affine":
        save(mask, np.ones(values.shape, np.uint8), np.diag([1, 1, 2, 1]))
    elif kind == "labels":
        save(mask, np.full(values.shape, 5, np.uint8))
    elif kind == "half labels":
        save(mask, np.full(values.shape, 0.5, np.float32))
    elif kind == "2D":
        save(image, values[..., 0])
        save(mask, np.ones(values.shape[:2], np.uint8))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated", "damaged, truncated"),
        ("truncated inside", "damaged, truncated"),
        ("no image", "no readable NIfTI"),
        ("fill value", r"1 of 5760 voxels has the value -3.4e\+38, all others are within"),
        ("zero bytes", "zero|empty|0 bytes"),
        ("unreadable mask", "damaged, truncated"),
        ("NaN", "NaN"),
        ("constant", "[Cc]onstant image"),
        ("shape", r"\(16, 18, 19\).*\(16, 18, 20\)|\(16, 18, 20\).*\(16, 18, 19\)"),
        ("affine", "affine"),
        ("labels", "5.*declared|declared.*5"),
        ("half labels", "whole"),
        ("2D", "2D"),
    ],
)
def test_a_bad_case_is_named_and_nothing_is_written(data, train_on, kind, says):
    damage(data, kind)
    with pytest.raises(MedsegError, match=rf"(?s){BAD}.*({says})"):
        train_on("dataset.labels={background: 0, lesion: 1}")
    assert not (data / "run").exists()
    assert not list((data / "cache").rglob("*.case.pt"))  # but what was noted of the good cases


def test_all_bad_cases_are_listed_at_once(data, train_on):
    damage(data, "NaN")
    (data / "images/c0.nii.gz").write_bytes(b"")
    with pytest.raises(MedsegError, match=r"(?s)2 error\(s\) in a data set of 6 cases.*c0.*c3"):
        train_on("dataset.labels={background: 0, lesion: 1}")


def test_a_class_that_only_the_test_part_has_is_warned_of(data, train_on, caplog):
    for name, value in (("c0", 2), ("c4", 3)):
        mask = np.asarray(nib.load(data / f"masks/{name}.nii.gz").dataobj).copy()
        mask[:2] = value
        save(data / f"masks/{name}.nii.gz", mask)
    parts = {"c0": "test", "c1": "val", "c2": "train", "c3": "train", "c4": "train", "c5": "train"}
    (data / "split.csv").write_text("id,part\n" + "".join(f"{name},{part}\n" for name, part in parts.items()))
    (data / "images/c5.nii.gz").write_bytes((data / "images/c4.nii.gz").read_bytes())
    with pytest.raises(MedsegError, match=r"nowhere\.json"):  # stopped before it trains
        train_on(
            "dataset.labels={background: 0, lesion: 1, rare: 2, single: 3}",
            f"split.file='{data / 'split.csv'}'",
            "plan.file=nowhere.json",
        )
    messages = "\n".join(caplog.messages)
    assert "rare: no training case has it, so that it cannot be learned" in messages
    assert "(cases with it: train 0 of 4, val 0 of 1, test 1 of 1)" in messages
    assert "single: only one training case has it, c4 (cases with it: train 1 of 4, val" in messages


def test_empty_masks_are_a_warning_until_all_are(data, train_on, caplog):
    save(data / f"masks/{BAD}.nii.gz", np.zeros((16, 18, 20), np.uint8))
    with pytest.raises(MedsegError, match=r"plan\.patch_size"):  # so that no training follows
        train_on("dataset.labels={background: 0, lesion: 1}", "plan.patch_size=[7,7,7]")
    assert "1 case(s) have an empty mask" in caplog.text
    assert BAD in caplog.text
    for number in range(CASES):
        save(data / f"masks/c{number}.nii.gz", np.zeros((16, 18, 20), np.uint8))
    with pytest.raises(MedsegError, match="every mask is empty"):
        train_on("dataset.labels={background: 0, lesion: 1}")


def test_the_same_scan_in_two_parts_is_named(data, train_on, caplog):
    for number in range(1, CASES):
        (data / "images/c0.nii.gz").replace(data / f"images/c{number}.nii.gz")
        save(data / "images/c0.nii.gz", np.asarray(nib.load(data / f"images/c{number}.nii.gz").dataobj))
    with pytest.raises(MedsegError, match=r"plan\.patch_size"):
        train_on("plan.patch_size=[7,7,7]")
    assert "the same scan is in two parts of the split" in caplog.text
    assert "6 cases have the same image" in caplog.text


def test_probable_cuts_of_one_scan_in_two_parts_are_named(data, train_on, caplog):
    for number, step in enumerate([5.95897, 6.12345, 5.95897, 6.4321, 6.5432, 7.6543]):  # c0 and c2 are of one scan
        whole = np.random.default_rng(number).gamma(2, 100, size=(16, 18, 20)).astype(np.int16)
        save(data / f"images/c{number}.nii.gz", (whole * step).astype(np.float32))
    (data / "split.csv").write_text("id,part\nc0,train\nc1,val\nc2,test\nc3,train\n")
    with pytest.raises(MedsegError, match=r"plan\.patch_size"):  # so that no training follows
        train_on("plan.patch_size=[7,7,7]", f"split.file='{data / 'split.csv'}'")
    assert "probably the same scan is in two parts of the split, 1 times" in caplog.text
    assert "c0 (train) = c2 (test): equal intensity step, affine and header" in caplog.text


def test_a_part_of_the_split_without_cases_is_refused(data, train_on):
    with pytest.raises(MedsegError, match="a part of the split has no case"):
        train_on("split.test=0.9", "split.val=0.05")


def test_folders_without_scans_are_refused(tmp_path, train_on):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(MedsegError, match="no scans here"):
        train_on()
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_directory_that_cannot_be_written(data, train_on):
    data.chmod(0o500)
    with pytest.raises(MedsegError, match="run directory"):
        train_on()
    data.chmod(0o700)


def test_a_run_directory_below_a_file(data, composed):
    (data / "file").write_text("in the way")
    config = composed("train", "dataset=folder", "trainer.accelerator=cpu")
    config["dataset"]["root"] = str(data)
    with pytest.raises(MedsegError, match="run directory"):
        train.run(config | {"run_dir": str(data / "file" / "run")})


def test_an_unreadable_mask_is_listed_with_all_others_where_classes_are_read_off_masks(composed, tmp_path):
    root = tmp_path / "data"
    write_phantom(root, dims=2, channels=1, cases=6, size=32, seed=0)
    (root / "masks" / "case_001.png").write_bytes(b"no picture")
    (root / "masks" / "case_003.png").unlink()
    config = composed("train", "dataset=folder", "trainer.accelerator=cpu", "trainer.max_epochs=1")
    config["dataset"]["root"] = str(root)
    with pytest.raises(MedsegError, match=r"(?s)2 error.*case_003.*no mask.*case_001.*no readable picture"):
        train.run(config | {"run_dir": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


def test_noise_of_lossy_masks_is_not_learned_as_classes(train_on, tmp_path):
    for number in range(CASES):
        disc = np.hypot(*(np.indices((32, 40)) - np.reshape([14 + number, 20], (2, 1, 1)))) < 9
        for name, pixels in (("images", disc * 90 + number), ("masks", disc * 255)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"c{number}.jpg", quality=100)
    with pytest.raises(MedsegError, match=r"lossy format.*dataset\.labels=.*dataset\.other_values=nearest"):
        train_on()
    assert not (tmp_path / "run").exists()
    small = ("model.depth=2", "model.base_channels=4", "trainer.steps_per_epoch=1", "logger=none")
    result = train_on("dataset.labels={background: 0, disc: 255}", "dataset.other_values=nearest", *small)
    assert result["status"] == "done"
    classes = json.loads((tmp_path / "run/test/metrics.json").read_text())["classes"]
    assert list(classes) == ["disc"]
