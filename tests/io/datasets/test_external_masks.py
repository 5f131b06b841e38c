"""Masks made elsewhere are found by the names of cases."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.datasets.external_masks import predicted_masks


def case(name: str, image: str = "") -> Case:
    return Case(name, name, (Path(image or f"/data/{name}.png"),))


@pytest.fixture
def folder(tmp_path: Path):
    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)
        return tmp_path

    return make


def test_by_relative_name_with_or_without_an_ending(folder):
    root = folder("a/1.png", "a/2_mask.png", "b/1_seg.png", "other.png")
    found = predicted_masks(root, [case("a/1"), case("a/2"), case("b/1"), case("b/3")])
    assert {name: path.relative_to(root).as_posix() for name, path in found.items()} == {
        "a/1": "a/1.png",
        "a/2": "a/2_mask.png",
        "b/1": "b/1_seg.png",
    }


def test_by_the_name_alone_where_it_is_unique(folder):
    root = folder("1.png", "deep/below/2.png", "scan_0000.png")
    cases = [case("a/1"), case("b/2"), case("c/9", "/data/scan_0000.nii.gz"), case("d/5"), case("e/5")]
    found = predicted_masks(root, cases)
    assert sorted(found) == ["a/1", "b/2", "c/9"]
    assert found["b/2"] == root / "deep/below/2.png"
    folder("5.png")  # of which case?
    assert sorted(predicted_masks(root, cases)) == ["a/1", "b/2", "c/9"]


def test_what_cannot_be_told_is_refused(folder, tmp_path):
    with pytest.raises(MedsegError, match="no such folder"):
        predicted_masks(tmp_path / "absent", [case("1")])
    root = folder("x.png")
    with pytest.raises(MedsegError, match=r"none of its 1 masks is called like a case: x\.png there, 1 in"):
        predicted_masks(root, [case("1")])
    folder("1.png", "1_mask.png")
    with pytest.raises(MedsegError, match="several masks for 1: "):
        predicted_masks(root, [case("1")])


def test_of_a_folder_that_predict_wrote_only_masks_are_taken(folder):
    beside = ("overlays", "uncertainty", "probabilities", "meshes", "to_correct")
    root = folder("set/1.png", *(f"set/{name}/1.png" for name in beside))
    (root / "set" / ".medseg").mkdir()
    assert predicted_masks(root, [case("1")]) == {"1": root / "set" / "1.png"}
    assert predicted_masks(root / "set", [case("1")]) == {"1": root / "set" / "1.png"}


def test_elsewhere_a_folder_of_such_a_name_may_hold_masks(folder):
    root = folder("meshes/1.png")
    assert predicted_masks(root, [case("1")]) == {"1": root / "meshes" / "1.png"}
