"""Layouts side by side: the phantom, and one data set written in each of them."""

import csv
import json

import pytest

from medseg.io.datasets.annotations import read_labels
from medseg.io.datasets.dataset import label_map
from medseg.io.datasets.splits import make_split
from medseg.io.files.read import read_case
from medseg.io.labels import LabelMap
from medseg.io.layouts import decathlon, folder, phantom
from medseg.io.layouts.groups import assign_groups
from medseg.preprocessing.fingerprint.fingerprint import voxel_hash

CASES = 20


@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (2, 2), (3, 1), (3, 2)])
def test_phantom_is_written_once_and_read(tmp_path, dims, channels):
    arguments = {"root": tmp_path, "dims": dims, "channels": channels, "cases": 4, "size": 16, "seed": 0}
    dataset = phantom(**arguments)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert phantom(**arguments) == dataset
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written

    scan = read_case(dataset.cases[0])
    assert (scan.image.ndim, len(scan.image)) == (dims + 1, channels)
    assert read_labels(dataset.cases[0], LabelMap(dataset.labels), scan).max() > 0
    assert dataset.modality == ("mri",) * channels
    assert len({case.group for case in dataset.cases}) == 2


def test_real_layouts(real_data):
    hippocampus = decathlon(real_data / "hippocampus")
    assert (len(hippocampus.cases), hippocampus.problems) == (199, ())
    assert hippocampus.labels == {"background": 0, "anterior": 1, "posterior": 2}
    cases = assign_groups(hippocampus.cases, file=real_data / "hippocampus/groups.csv")
    assert len({case.group for case in cases}) < len(cases)

    slices = folder(real_data / "cardiac_slices", "Images", "Labels")
    assert (len(slices.cases), slices.problems) == (131, ())
    patients = {case.group for case in assign_groups(slices.cases, pattern="^(.+?)-IM-")}
    assert len(patients) == 8
    assert len(folder(real_data / "nuclei").cases) == 100


@pytest.fixture(scope="module")
def hippocampus(real_data, tmp_path_factory):
    """Write links to 20 cases of ``hippocampus`` in four layouts; return the root of each and the ids."""
    source = real_data / "hippocampus"
    description = json.loads((source / "dataset.json").read_text())
    entries = description["training"][:CASES]
    ids = [entry["image"].split("/")[-1].removesuffix(".nii.gz") for entry in entries]
    roots = {name: tmp_path_factory.mktemp(name) for name in ("decathlon", "nnunet", "folder", "table")}
    places = {
        "decathlon": ("imagesTr/{}.nii.gz", "labelsTr/{}.nii.gz"),
        "nnunet": ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"),
        "folder": ("images/{}.nii.gz", "masks/{}_mask.nii.gz"),
        "table": ("{}/scan.nii.gz", "{}/truth.nii.gz"),
    }
    for layout, names in places.items():
        for part, name in zip(("imagesTr", "labelsTr"), names, strict=True):
            for case in ids:
                link = roots[layout] / name.format(case)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source / part / f"{case}.nii.gz")
    (roots["decathlon"] / "dataset.json").write_text(json.dumps(description | {"training": entries}))
    labels = {name: int(value) for value, name in description["labels"].items()}
    raw = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
    (roots["nnunet"] / "dataset.json").write_text(json.dumps(raw))
    with (roots["table"] / "cases.csv").open("w", newline="") as file:
        rows = [(case, f"{case}/scan.nii.gz", f"{case}/truth.nii.gz") for case in ids]
        csv.writer(file).writerows([("id", "image", "label"), *rows])
    return roots, str(source / "groups.csv"), labels


def test_hippocampus_is_the_same_in_every_layout(hippocampus, opened):
    roots, groups, labels = hippocampus
    found = {}
    for layout, root in roots.items():
        named = {} if layout in ("decathlon", "nnunet") else {"labels": labels}
        dataset = opened(layout, root, group_file=groups, modality="mri", **named)
        assert dataset.problems == ()
        hashes = {}
        for case in dataset.cases:
            scan = read_case(case)
            truth = read_labels(case, label_map(dataset), scan)
            hashes[case.id, case.group] = voxel_hash(scan), truth.tobytes()
        split = make_split(dataset.cases, val=0.1, test=0.2, seed=7, data_split=dataset.split_file)
        found[layout] = hashes, split, label_map(dataset), dataset.modality
    assert len(found["decathlon"][0]) == CASES
    for layout in roots:
        assert found[layout] == found["decathlon"], layout
