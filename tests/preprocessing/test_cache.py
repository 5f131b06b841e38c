"""The cache of preprocessed cases: made once, never stale, never half-written."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile
from medseg.io.files.sizes import Size, size_of
from medseg.io.labels import LabelMap
from medseg.preprocessing import file_hashes
from medseg.preprocessing.cache import amount, cached, cached_cases, compact, foretold_bytes, load
from medseg.preprocessing.geometry import Geometry
from medseg.preprocessing.preprocessor import Preprocessor

CLASSES = LabelMap({"background": 0, "lesion": 5})
PREPROCESSOR = Preprocessor(normalize=["zscore"])


@pytest.fixture
def case(tmp_path):
    image = np.random.default_rng(0).normal(size=(12, 14, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "image.nii")
    nib.save(nib.Nifti1Image((image > 1).astype(np.uint8) * 5, np.eye(4)), tmp_path / "mask.nii")
    return Case("a", "a", (tmp_path / "image.nii",), (LabelFile(tmp_path / "mask.nii"),))


def test_what_is_stored_is_what_was_prepared(case, tmp_path):
    content = load(cached(case, PREPROCESSOR, CLASSES, tmp_path / "cache"))
    truth = np.asarray(nib.load(case.labels[0].path).dataobj) == 5
    np.testing.assert_array_equal(content["truth"].numpy() == 1, truth)
    assert content["image"].shape == (1, *Geometry.from_dict(content["geometry"]).shape)
    foreground = content["image"][content["image"] > content["image"].min()]  # what the statistics are taken over
    assert foreground.mean().item() == pytest.approx(0, abs=1e-5)
    [voxels] = content["locations"]
    assert len(voxels) == truth.sum()
    assert (content["label"][tuple(voxels.T.long())] == 1).all()
    assert content["false_positives"].shape == (0, 3)  # there is no first stage


class Everywhere(Preprocessor):
    """A preprocessor whose first stage finds each of two classes everywhere."""

    added_channels = 2

    def __call__(self, scan, region=None):
        image, geometry = super().__call__(scan, region)
        return torch.cat([image, torch.ones(2, *image.shape[1:])]), geometry


@pytest.mark.parametrize(("annotated", "some"), [(None, True), (("one", "two"), True), (("one",), True), ((), False)])
def test_what_a_first_stage_finds_is_false_only_where_its_class_was_annotated(case, tmp_path, annotated, some):
    classes = LabelMap({"background": 0, "one": 5, "two": 6})
    content = load(cached(replace(case, annotated=annotated), Everywhere(normalize=["none"]), classes, tmp_path))
    is_background = content["label"] == 0
    assert len(content["false_positives"]) == is_background.sum() * some
    assert is_background[tuple(content["false_positives"].T.long())].all()


def test_half_precision_is_for_values_that_it_holds():
    z_scores = torch.randn(2, 9, 9, 9, generator=torch.Generator().manual_seed(0))
    half = compact(z_scores)
    assert half.dtype == torch.float16
    assert (half.float() - z_scores).abs().max() < 2e-3
    assert compact(torch.zeros(1, 5, 5)).dtype == torch.float16, "a constant channel"
    assert compact((100 * z_scores).round()).dtype == torch.float16, "counts, such as those of photographs"
    for image in (1000 + z_scores, 1e5 * z_scores, torch.cat([z_scores, 3000 + z_scores])):
        assert compact(image) is image, "offsets larger than the contrast, values out of range, one such channel"


def test_a_case_is_prepared_once_until_something_changes(case, tmp_path):
    folder = tmp_path / "cache"
    first = cached(case, PREPROCESSOR, CLASSES, folder)
    written = first.stat().st_ino
    assert cached(case, PREPROCESSOR, CLASSES, folder) == first
    assert first.stat().st_ino == written  # written anew it would be another file
    others = {
        cached(case, Preprocessor(normalize=["unit"]), CLASSES, folder),
        cached(case, PREPROCESSOR, LabelMap({"background": 0, "other": 5}), folder),
    }
    image = np.asarray(nib.load(case.images[0]).dataobj) + 1
    nib.save(nib.Nifti1Image(image, np.eye(4)), case.images[0])
    assert len({first, *others, cached(case, PREPROCESSOR, CLASSES, folder)}) == 4


def test_a_full_disk_is_one_message_and_leaves_nothing(case, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MedsegError, match=r"cannot write .*No space left"):
        cached(case, PREPROCESSOR, CLASSES, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_tensors_are_read_from_the_disk_when_touched(case, tmp_path):
    path = cached(case, PREPROCESSOR, CLASSES, tmp_path / "cache")
    assert torch.equal(load(path)["image"], torch.load(path, weights_only=True)["image"])


def test_cases_are_made_in_parallel_and_come_in_order(case, tmp_path, caplog):
    caplog.set_level("INFO", "medseg")
    others = [Preprocessor(normalize=["unit"]), PREPROCESSOR]
    for preprocessor in others:
        [path] = cached_cases([case], preprocessor, CLASSES, tmp_path / "cache")
        assert path == cached(case, preprocessor, CLASSES, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert "preprocessing 1 cases, about 0 MB" in caplog.text
    caplog.clear()
    cached_cases([case], PREPROCESSOR, CLASSES, tmp_path / "cache")
    assert not caplog.text


def test_a_start_that_changes_nothing_reads_no_bytes_of_scans(case, tmp_path, monkeypatch):
    monkeypatch.setattr(file_hashes, "TICK", -(10**12))
    paths = cached_cases([case], PREPROCESSOR, CLASSES, tmp_path / "cache")
    file_hashes.hashes_in.cache_clear()  # as in a new process
    monkeypatch.setattr(file_hashes, "file_hash", None)
    assert cached_cases([case], PREPROCESSOR, CLASSES, tmp_path / "cache") == paths


def test_a_disk_without_space_is_refused_before_anything_is_written(case, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=9000))
    with pytest.raises(MedsegError, match="are free, but 1 preprocessed cases take about 0 MB"):
        cached_cases([case], PREPROCESSOR, CLASSES, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=90_000))
    cached_cases([case], PREPROCESSOR, CLASSES, tmp_path / "cache")


@pytest.mark.parametrize("offset", [0, 2000])
def test_the_size_of_a_cache_is_foretold_by_a_few_cases(tmp_path, offset):
    """With an offset and no normalisation half precision does not do; all cases have air around them."""
    rng, cases = np.random.default_rng(0), []
    for number in range(24):
        image = np.zeros((30, 40, 25 + number % 5), np.float32)
        image[5:25, 10:35, 3:20] = offset + rng.normal(0.3, 1, (20, 25, 17))
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / f"image{number}.nii")
        nib.save(nib.Nifti1Image((image > offset).astype(np.uint8) * 5, np.eye(4)), tmp_path / f"mask{number}.nii")
        files = (tmp_path / f"image{number}.nii",), (LabelFile(tmp_path / f"mask{number}.nii"),)
        cases.append(Case(str(number), str(number), *files))
    preprocessor = Preprocessor(normalize=["none"])
    total = foretold_bytes(cases, preprocessor, CLASSES)
    paths = cached_cases(cases, preprocessor, CLASSES, tmp_path / "cache")
    assert sum(path.stat().st_size for path in paths) == pytest.approx(total, rel=0.1)


@pytest.mark.parametrize(("number", "text"), [(5e6, "5 MB"), (2.34e9, "2.3 GB")])
def test_amounts_are_written_in_words(number, text):
    assert amount(number) == text


def test_the_size_of_a_case_is_told_by_its_header(case):
    assert size_of(case) == Size(12 * 14 * 16, 1, 1.0)
    case.images[0].write_bytes(b"no scan")
    assert size_of(case).voxels == 0


PROCESS = """
import sys
from pathlib import Path
from medseg.io.case import Case, LabelFile
from medseg.io.labels import LabelMap
from medseg.preprocessing.cache import cached
from medseg.preprocessing.preprocessor import Preprocessor

root = Path(sys.argv[1])
case = Case("a", "a", (root / "image.nii",), (LabelFile(root / "mask.nii"),))
print(flush=True)
sys.stdin.readline()
for strength in range(1, 30):
    preprocessor = Preprocessor(normalize=["zscore"], denoise="gaussian", denoise_strength=strength)
    print(cached(case, preprocessor, LabelMap({"background": 0, "lesion": 5}), root / "cache").name, flush=True)
"""


def test_two_processes_that_make_the_same_files_at_once_are_both_right(case, tmp_path):
    start = [sys.executable, "-c", PROCESS, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(start, **pipes) for _ in range(2)]
    for process in both:
        process.stdout.readline()  # ready
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    names = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert names[0] == names[1]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(names[0])
    for name in names[0]:
        assert load(tmp_path / "cache" / name)["image"].isfinite().all()
