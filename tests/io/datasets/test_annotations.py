"""Label files of a case painted over each other, against arrays worked out by hand."""

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile
from medseg.io.datasets.annotations import read_labels, values_in_masks
from medseg.io.files.read import read_case
from medseg.io.labels import IGNORE, LabelMap

SHAPE = (2, 4, 2)  # volumes rather than slices


def save(path, row, dtype=np.uint8, *, slope=None, inter=0.0):
    """Write a volume whose every line is ``row``; with ``slope`` as whole numbers that the header scales."""
    values = np.broadcast_to(np.array(row)[None, :, None], SHAPE)
    image = nib.Nifti1Image(values.astype(dtype), np.eye(4))
    if slope is not None:
        stored = np.rint((values - inter) / slope).astype(np.int16)
        image = nib.Nifti1Image(stored, np.eye(4))
        image.header.set_slope_inter(slope, inter)
    nib.save(image, path)
    return path


@pytest.fixture
def read(tmp_path):
    """Return ``read(label_map, *files)``: the class indices along the line of a case with these (row, value) files."""

    def read_files(label_map, *files, other_values="error", **stored):
        image = save(tmp_path / "image.nii", [1, 2, 3, 4], np.int16)
        labels = [
            LabelFile(save(tmp_path / f"{place}.nii", row, **stored), value) for place, (row, value) in enumerate(files)
        ]
        case = Case("a", "a", (image,), tuple(labels), other_values=other_values)
        indices = read_labels(case, LabelMap(label_map), read_case(case))
        assert indices.dtype == np.uint8
        assert (indices == indices[:1, :, :1]).all()
        return indices[0, :, 0].tolist()

    return read_files


ORGANS = {"background": 0, "liver": 1, "tumour": 2}


def test_one_label_map(read):
    assert read({"background": 0, "a": 5, "b": 3}, ([0, 5, 3, 3], None)) == [0, 1, 2, 2]


def test_the_last_of_several_label_maps_is_on_top(read):
    below, above = [1, 1, 0, 0], [0, 2, 2, 0]
    assert read(ORGANS, (below, None), (above, None)) == [1, 2, 2, 0]
    assert read(ORGANS, (above, None), (below, None)) == [1, 1, 2, 0]


def test_masks_of_one_class_hold_any_value(read):
    assert read(ORGANS, ([255, 255, 0, 0], 1), ([0, 1, 7, 0], 2)) == [1, 2, 2, 0]


def test_several_values_make_one_class(read):
    assert read({"background": [0, 9], "tumour": [1, 4]}, ([0, 9, 1, 4], None)) == [0, 0, 1, 1]


def test_a_class_merged_into_the_background_paints_over_nothing(read):
    assert read({"background": [0, 2], "liver": 1}, ([1, 1, 0, 0], 1), ([0, 1, 1, 0], 2)) == [1, 1, 0, 0]


def test_ignored_voxels_are_unknown(read):
    ignored = {"background": 0, "liver": 1, "ignore": [7, 9]}
    assert read(ignored, ([0, 1, 7, 9], None)) == [0, 1, IGNORE, IGNORE]
    assert read(ignored, ([0, 1, 1, 1], None), ([0, 0, 7, 0], None)) == [0, 1, IGNORE, 1]


def test_background_need_not_be_zero(read):
    assert read({"background": 3, "organ": 5}, ([3, 5, 5, 3], None)) == [0, 1, 1, 0]
    assert read({"background": 3, "organ": 5}, ([0, 1, 1, 0], 5)) == [0, 1, 1, 0]


@pytest.mark.parametrize(
    "stored", [{"dtype": np.float32}, {"dtype": np.float64}, {"slope": 0.1}, {"slope": 0.5, "inter": -3.0}]
)
def test_labels_stored_as_float_or_scaled(read, stored):
    assert read(ORGANS, ([0, 1, 2, 1], None), **stored) == [0, 1, 2, 1]
    assert read(ORGANS, ([0, 1, 1, 0], 2), **stored) == [0, 2, 2, 0]


def test_undeclared_values_name_the_file(read):
    with pytest.raises(MedsegError, match=r"1\.nii: 4 voxels have values .*: 3\."):
        read(ORGANS, ([0, 1, 2, 0], None), ([0, 3, 0, 0], None))


def test_a_case_without_labels_is_refused(tmp_path):
    case = Case("a", "a", (save(tmp_path / "image.nii", [1, 2, 3, 4]),))
    with pytest.raises(MedsegError, match="a has no mask"):
        read_labels(case, LabelMap(ORGANS), read_case(case))


def test_found_values_are_those_of_all_files(tmp_path):
    files = (LabelFile(save(tmp_path / "1.nii", [0, 3, 3, 5])), LabelFile(save(tmp_path / "2.nii", [0, 255, 0, 0]), 8))
    assert values_in_masks(Case("a", "a", (), files)) == {0, 3, 5, 8}


@pytest.mark.parametrize(("other_values", "expected"), [("nearest", [0, 0, 1, 2]), ("ignore", [0, IGNORE, 1, IGNORE])])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_values_between_the_classes_are_settled(read, other_values, expected, dtype):
    row = [0, 0.4, 1, 2.9] if dtype == np.float32 else [0, 40, 100, 290]
    unit = 1 if dtype == np.float32 else 100
    labels = {"background": 0, "a": unit, "b": 4 * unit}
    with pytest.raises(MedsegError, match=r"dataset\.other_values=nearest"):
        read(labels, (row, None), dtype=dtype)
    assert read(labels, (row, None), dtype=dtype, other_values=other_values) == expected


@pytest.mark.parametrize(
    ("other_values", "expected"),
    [("error", [0, 1, 1, 1]), ("nearest", [0, 0, 1, 1]), ("ignore", [0, IGNORE, IGNORE, 1])],
)
def test_soft_masks_of_one_class_are_settled(read, other_values, expected):
    found = read({"background": 0, "a": 1}, ([0, 60, 200, 255], 1), other_values=other_values)
    assert found == expected
