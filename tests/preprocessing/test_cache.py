"""The cache of preprocessed cases: made once, never stale, never half-written."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile
from medseg.io.labels import LabelMap
from medseg.preprocessing.cache import cached, load
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


def test_a_case_is_prepared_once_until_something_changes(case, tmp_path):
    folder = tmp_path / "cache"
    first = cached(case, PREPROCESSOR, CLASSES, folder)
    written = first.stat().st_mtime_ns
    assert cached(case, PREPROCESSOR, CLASSES, folder) == first
    assert first.stat().st_mtime_ns == written
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
