"""Real scans, where they are present, through the layouts, the checks and the way there and back."""

import numpy as np
import pytest

from medseg.io.dataset import label_map, open_dataset
from medseg.io.files import read_mask, read_scan
from medseg.io.labels import LabelMap
from medseg.io.splits import make_split
from medseg.preprocessing.fingerprint import read_labelled, survey
from medseg.preprocessing.preprocessor import Preprocessor


def open_at(root, layout, **node):
    common = {"root": str(root), "modality": None, "labels": None, "group": None, "group_file": None}
    return open_dataset(common | node | {"layout": {"_target_": f"medseg.io.layouts.{layout.pop('name')}"} | layout})


@pytest.fixture(scope="session")
def hippocampus(real_data):
    root = real_data / "hippocampus"
    return open_at(root, {"name": "decathlon", "root": str(root)}, group_file=str(root / "groups.csv"))


@pytest.fixture(scope="session")
def nuclei(real_data):
    root = str(real_data / "nuclei")
    return open_at(root, {"name": "folder", "root": root, "images": "images", "masks": "masks", "channels": None})


@pytest.fixture(scope="session")
def cardiac(real_data):
    root = str(real_data / "cardiac_slices")
    layout = {"name": "folder", "root": root, "images": "Images", "masks": "Labels", "channels": None}
    return open_at(root, layout, group="^(.+?)-IM-")


def test_the_data_sets_are_found_whole(hippocampus, nuclei, cardiac):
    assert [len(dataset.cases) for dataset in (hippocampus, nuclei, cardiac)] == [199, 100, 131]
    assert label_map(hippocampus).names == ("background", "anterior", "posterior")
    assert label_map(nuclei).values == label_map(cardiac).values == (0, 255)
    assert len({case.group for case in cardiac.cases}) == 8


def test_the_two_sides_of_a_scan_stay_together(hippocampus):
    split = make_split(hippocampus.cases, val=0.1, test=0.2, folds=None, fold=0, seed=0, file=None)
    group = {case.id: case.group for case in hippocampus.cases}
    parts = [{group[name] for name in part} for part in (split.train, split.val, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    numbers = {name: int(name.split("_")[1]) for name in group}
    for name, number in numbers.items():
        for other in (other for other, its in numbers.items() if number % 2 and its == number + 1):
            assert group[name] == group[other]


def test_every_hippocampus_passes_the_survey(hippocampus):
    fingerprint = survey(hippocampus.cases, label_map(hippocampus))
    assert fingerprint.spatial_dims == 3
    assert fingerprint.channels == 1
    assert len(set(fingerprint.hashes.values())) == 199


def test_there_and_back_on_another_grid(hippocampus):
    import torch

    classes = label_map(hippocampus)
    preprocessor = Preprocessor(spacing=[0.8, 1.2, 1.0], normalize=["zscore"])
    for case in hippocampus.cases[:5]:
        scan, truth = read_labelled(case, classes)
        image, geometry = preprocessor(scan)
        assert abs(float(image.mean())) < 0.3
        label = preprocessor.label(truth, geometry, 3)
        scores = torch.nn.functional.one_hot(label.long(), 3).movedim(-1, 0).float()
        back = np.concatenate([slab.argmax(0).numpy() for _, slab in geometry.slabs(scores, torch.eye(3)[0])], axis=-1)
        for index in (1, 2):
            dice = 2 * ((back == index) & (truth == index)).sum() / ((back == index).sum() + (truth == index).sum())
            assert dice > 0.93


def test_four_channels_of_one_patient(real_data):
    folder = real_data / "ms_lesions" / "patient07"
    scan = read_scan([folder / f"{name}.nii.gz" for name in ("FLAIR", "T1", "T1POST", "T2")])
    assert scan.image.shape == (4, 182, 218, 182)
    truth = LabelMap({"background": 0, "lesion": 1}).encode(read_mask(folder / "lesions.nii.gz", scan), "lesions")
    assert 0 < truth.sum() < truth.size // 100
    image, geometry = Preprocessor(spacing=[2.0, 2.0, 2.0], normalize=["zscore"] * 4)(scan)
    assert image.shape[1:] == geometry.shape
    assert all(size < whole / 1.8 for size, whole in zip(image.shape[1:], scan.shape, strict=True))
