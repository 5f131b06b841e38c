"""File values, class names and class indices."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile
from medseg.io.datasets.annotations import values_in_masks
from medseg.io.datasets.dataset import values_of
from medseg.io.files.read import read_mask
from medseg.io.labels import COLOUR, IGNORE, LabelMap, file_value, number

BRATS = LabelMap({"background": 0, "necrosis": 4, "edema": 1, "enhancing": 2})


def masked(path):
    return Case(path.stem, path.stem, (), (LabelFile(path),))


def save(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def test_indices_follow_the_order_of_the_classes():
    values = np.array([[0, 1], [2, 4]], np.int32)
    indices = BRATS.encode(values, "m.nii")
    assert indices.dtype == np.uint8
    assert indices.tolist() == [[0, 2], [3, 1]]
    assert BRATS.names == ("background", "necrosis", "edema", "enhancing")
    assert BRATS.values == (0, 4, 1, 2)


@pytest.mark.parametrize("lowest", [0, -5, 7])
def test_encode_agrees_with_a_table_and_decode_inverts_it(lowest):
    rng = np.random.default_rng(0)
    values = rng.permutation(np.arange(lowest, lowest + 300))[:60].tolist()
    label_map = LabelMap({f"class {i}" if i else "background": value for i, value in enumerate(values)})
    indices = rng.integers(0, 60, (3, 40, 5)).astype(np.uint8)
    drawn = np.array([values[i] for i in indices.ravel()], np.int32).reshape(indices.shape)
    np.testing.assert_array_equal(label_map.decode(indices), drawn)
    np.testing.assert_array_equal(label_map.encode(drawn, "m.nii"), indices)
    assert label_map.decode(indices).dtype == (np.int32 if lowest < 0 else np.uint16)


def test_a_forgotten_background_is_named():
    with pytest.raises(MedsegError, match="there is no background: it comes first"):
        LabelMap({"edema": 1, "core": 2})


@pytest.mark.parametrize("stranger", [-1, 3, 9, 2**30])
def test_undeclared_values_are_named_and_counted(stranger):
    values = np.zeros((4, 5), np.int32)
    values[1, :3] = stranger
    with pytest.raises(MedsegError, match=r"case.nii: 3 voxels .*: (-1|3|9|1073741824)\. Declared are .*'necrosis': 4"):
        BRATS.encode(values, "case.nii")


def test_colours_are_file_values(tmp_path):
    pixels = [[[0, 0, 0], [255, 0, 0]], [[0, 0, 255], [255, 255, 255]]]
    label_map = LabelMap({"background": "#000000", "liver": "#FF0000", "kidney": "#0000ff", "spleen": "#ffffff"})
    values = read_mask(save(tmp_path / "m.png", pixels))
    indices = label_map.encode(values, "m.png")
    assert indices.tolist() == [[0, 1], [2, 3]]
    np.testing.assert_array_equal(label_map.decode(indices), values)
    assert label_map.values == (0, COLOUR | 0xFF0000, COLOUR | 0xFF, 255)


def test_number_and_file_value_are_inverse():
    for value in (0, 7, 300, "#010203", "#00ff00", 2**24, 2**24 + 0x070707, 2**25, 2**31 - 1):
        assert file_value(number(value)) == value
    assert number("#070707") == 7


@pytest.mark.parametrize("value", [2**24, 2**24 + 0x070707, 2**25 + 1, 2**31 - 1])
def test_large_numbers_in_volumes_become_classes(tmp_path, value):
    volume = np.zeros((3, 4, 5), np.int32)
    volume[1] = value
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "m.nii.gz")
    values = read_mask(tmp_path / "m.nii.gz")
    label_map = LabelMap.from_values(np.unique(values).tolist())
    assert label_map.labels == {"background": 0, "foreground": value}
    assert (label_map.encode(values, "m.nii.gz") == (volume > 0)).all()


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 255], {"background": 0, "foreground": 255}),
        ([3, 5], {"background": 3, "foreground": 5}),
        ([0, 4, 1], {"background": 0, "class_1": 1, "class_4": 4}),
    ],
)
def test_classes_are_read_off_all_masks(tmp_path, values, labels):
    cases = [masked(save(tmp_path / f"{value}.png", np.full((3, 4), value))) for value in values]
    assert LabelMap.from_values(values_of(cases)).labels == labels
    assert list(LabelMap.from_values(values_of(cases[::-1])).labels) == list(labels)


def test_coloured_classes_are_read_off_masks(tmp_path):
    path = save(tmp_path / "m.png", [[[0, 0, 0], [255, 0, 0], [0, 255, 0]]])
    assert LabelMap.from_values(values_in_masks(masked(path))).labels == {
        "background": 0,
        "class_00ff00": "#00ff00",
        "class_ff0000": "#ff0000",
    }


def test_masks_without_classes_or_with_grey_levels_are_refused(tmp_path):
    empty = save(tmp_path / "empty.png", np.zeros((3, 4)))
    with pytest.raises(MedsegError, match="the masks hold 0 only, so no foreground"):
        LabelMap.from_values(values_in_masks(masked(empty)))
    ramp = save(tmp_path / "ramp.png", np.arange(40)[None])
    with pytest.raises(MedsegError, match=r"ramp: over 32 values.*0, 1, 2, .* and 30 more.*dataset.labels="):
        values_of((masked(empty), masked(ramp)))
    with pytest.raises(MedsegError, match=r"over 32 values: 0, 1, 2, .* and 23 more"):
        LabelMap.from_values(range(33))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0}, "1 classes; 2 to 255"),
        ({f"c{i}": i for i in range(256)}, "256 classes"),
        ({"tumour": 1, "background": 0}, "background must be the first"),
        ({"background": 0, "a": 1, "b": 1}, "1 is the value of more than one class"),
        ({"background": 0, "a": 255, "b": "#ffffff"}, "255 is the value of more than one class"),
        ({"background": 0, "a": "red"}, "a: 'red' is neither a whole number nor a colour"),
        ({"background": 0, "a": 1.5}, "a: 1.5 is neither"),
        ({"background": 0, "a": [1, "x"]}, "a: 'x' is neither"),
        ({"background": 0, "a": []}, "a has no value"),
        ({"background": 0, "a": [1, 2], "b": 2}, "2 is the value of more than one class"),
        ({"background": 0, "a": 1, "ignore": 1}, "1 is the value of more than one class"),
        ({"background": 0, "ignore": 1}, "1 classes; 2 to 255"),
        ({"ignore": 9, "background": 0, "a": 1}, "ignore is no class and cannot be the first"),
        ({"background": False, "a": 1}, "background: False is neither"),
    ],
)
def test_wrong_classes_are_refused(labels, message):
    with pytest.raises(MedsegError, match=message):
        LabelMap(labels)


def test_merged_classes_are_written_with_their_first_value():
    label_map = LabelMap({"background": [0, 9], "organ": [4, 1, 2]})
    indices = label_map.encode(np.array([[0, 9, 1], [2, 4, 0]], np.int32), "m.nii")
    assert indices.tolist() == [[0, 0, 1], [1, 1, 0]]
    assert label_map.decode(indices).tolist() == [[0, 0, 4], [4, 4, 0]]


def test_ignored_values_are_no_class():
    label_map = LabelMap({"background": 0, "ignore": [7, -1], "organ": 1})
    assert label_map.encode(np.array([0, 1, 7, -1], np.int32), "m.nii").tolist() == [0, 1, IGNORE, IGNORE]
    assert (label_map.names, label_map.values) == (("background", "organ"), (0, 1))
    assert label_map.reported == {"organ": (1,)}


BRATS_REGIONS = {"WT": ["necrosis", "edema", "enhancing"], "TC": ["necrosis", "enhancing"], "ET": ["enhancing"]}


def test_regions_are_what_is_learned_and_reported():
    label_map = LabelMap(BRATS.labels, BRATS_REGIONS)
    assert label_map.outputs == ("WT", "TC", "ET")
    assert label_map.reported == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    assert [label_map.names[index] for index in label_map.region_indices] == ["edema", "necrosis", "enhancing"]
    assert BRATS.outputs == BRATS.names
    assert BRATS.region_indices == ()


def test_the_order_of_regions_may_say_what_paints_them():
    label_map = LabelMap(BRATS.labels, BRATS_REGIONS, ["necrosis", "edema", "enhancing"])
    assert label_map.region_indices == (1, 2, 3)


@pytest.mark.parametrize(
    ("regions", "order", "message"),
    [
        ({"WT": ["oedema"]}, None, "WT: 'oedema' is no foreground class. Did you mean 'edema'"),
        ({"WT": ["background", "edema"]}, None, "WT: 'background' is no foreground class"),
        ({"WT": []}, None, "WT has no classes"),
        ({"WT": ["edema", "necrosis"]}, None, "WT: edema, necrosis would be painted; one class is needed"),
        ({"ET": ["edema"], "WT": ["edema", "necrosis"]}, None, "ET: no class would be painted"),
        ({"WT": ["edema"]}, ["edema", "necrosis"], "must name a class for each of the 1 regions"),
        ({"WT": ["edema"]}, ["tumour"], "region_order: 'tumour' is no foreground class"),
    ],
)
def test_regions_that_cannot_be_painted_are_refused(regions, order, message):
    with pytest.raises(MedsegError, match=message):
        LabelMap(BRATS.labels, regions, order)


def test_what_is_known_of_a_partly_annotated_case():
    label_map = LabelMap(BRATS.labels, BRATS_REGIONS)
    some = label_map.annotated(("edema", "enhancing"))
    assert some.tolist() == [True, False, True, True]
    assert label_map.is_known(some).tolist() == [False, False, True]
    assert label_map.is_known(label_map.annotated(None)).all()


def test_a_class_name_that_cannot_be_written_is_refused():
    """JSON may hold half of a character, which no file, TensorBoard's among them, takes."""
    with pytest.raises(MedsegError, match=r"'a\\ud800' is no text"):
        LabelMap({"background": 0, "a\ud800": 1})
