"""Label maps of any file values: encoded, decoded, written and read back, and regions that nest."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_files import read_scan

from medseg.errors import MedsegError
from medseg.inference.segmenter import Regions
from medseg.io.case import Scan
from medseg.io.files.read import read_mask
from medseg.io.files.write_masks import write_mask
from medseg.io.labels import IGNORE, LabelMap, file_value, number

LARGEST = 2**31 - 1
WHOLE = st.sampled_from(
    [0, 1, 2, 127, 128, 255, 256, 65535, 65536, 2**24, 2**24 + 255, 2**25, LARGEST, -1, -128, -LARGEST]
)
INTEGERS = WHOLE | st.integers(-LARGEST, LARGEST)
COLOURS = st.integers(0, 0xFFFFFF).map("#{:06x}".format)


@st.composite
def label_maps(draw, values=INTEGERS | COLOURS, ignore=True):
    """Two to eight classes of one value or several, and perhaps voxels to ignore."""
    lists = st.lists(st.lists(values, min_size=1, max_size=3), min_size=2, max_size=8)
    classes = draw(lists.filter(lambda found: len({number(v) for vs in found for v in vs}) == sum(map(len, found))))
    names = ["background", *(f"class {place}" for place in range(1, len(classes)))]
    if ignore and len(names) > 2 and draw(st.booleans()):
        names[-1] = "ignore"
    return LabelMap(
        {n: vs if len(vs) > 1 or draw(st.booleans()) else vs[0] for n, vs in zip(names, classes, strict=True)}
    )


def index_of(label_map):
    """The class index of each number, looked up in a plain dict."""
    return {
        number(value): IGNORE if name == "ignore" else label_map.names.index(name)
        for name, values in label_map.labels.items()
        for value in (values if isinstance(values, list) else [values])
    }


@given(label_maps(), st.data())
def test_each_value_becomes_its_class_and_any_other_is_refused(label_map, data):
    table = index_of(label_map)
    near = st.sampled_from(sorted(table)).flatmap(lambda value: st.integers(value - 1, value + 1))
    values = data.draw(st.lists(st.sampled_from(sorted(table)) | near, max_size=20))
    values = np.clip(np.array(values, np.int64), -LARGEST, LARGEST).astype(np.int32)
    expected = np.array([table.get(int(value), IGNORE) for value in values], np.uint8)
    assert np.array_equal(label_map.encode(values, "a.nii", others_unknown=True), expected)
    if set(values.tolist()) <= table.keys():
        assert np.array_equal(label_map.encode(values, "a.nii"), expected)
    else:
        with pytest.raises(MedsegError, match=r"a\.nii: .* none of the declared"):
            label_map.encode(values, "a.nii")


@given(label_maps(), st.data())
def test_decoded_indices_are_encoded_to_themselves(label_map, data):
    n = len(label_map.names)
    shape = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    indices = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, n, shape).astype(np.uint8)
    values = label_map.decode(indices)
    assert values.shape == indices.shape
    assert {int(value) for value in values.ravel()} == {label_map.values[index] for index in indices.ravel()}
    assert np.array_equal(label_map.encode(values.astype(np.int32), ""), indices)


@given(INTEGERS | st.integers(0, 0xFFFFFF).map(lambda code: number(f"#{code:06x}")))
def test_a_number_is_that_of_its_file_value(value):
    assert number(file_value(value)) == value


@given(st.integers(LARGEST + 1) | st.integers(max_value=-LARGEST - 1) | st.floats() | st.booleans() | st.text())
def test_values_that_no_mask_holds_are_refused(value):
    if isinstance(value, str) and len(value) == 7 and value.startswith("#"):
        return
    with pytest.raises(MedsegError, match=r"dataset\.labels"):
        LabelMap({"background": 0, "a": value})


@given(st.sets(st.integers(-LARGEST, LARGEST), min_size=2, max_size=32))
def test_values_of_masks_become_classes_with_the_lowest_or_0_as_background(values):
    label_map = LabelMap.from_values(values)
    assert set(label_map.values) == values
    assert label_map.values[0] == (0 if 0 in values else min(values))
    assert len(set(label_map.names)) == len(values)


@given(st.sampled_from([".nii.gz", ".nii", ".nrrd", ".mha"]), label_maps(INTEGERS, ignore=False), st.data())
def test_masks_of_any_values_are_read_back_from_volumes(tmp_path_factory, suffix, label_map, data):
    path = tmp_path_factory.getbasetemp() / f"labels{suffix}"
    shape = data.draw(st.tuples(*[st.integers(2, 4)] * 3))
    indices = np.random.default_rng(0).integers(0, len(label_map.names), shape).astype(np.uint8)
    like = Scan(np.zeros((1, *shape), np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
    if suffix.startswith(".nii"):
        write_zeros(path, shape)
        like = read_scan([path])
    write_mask(path, label_map.decode(indices), like)
    assert np.array_equal(label_map.encode(read_mask(path), str(path)), indices)


@given(
    label_maps(WHOLE | st.integers(0, 70000) | COLOURS | st.integers(0, LARGEST), ignore=False),
    st.sampled_from([".png", ".tif", ".bmp"]),
)
def test_masks_of_pictures_are_read_back_or_refused(tmp_path_factory, label_map, suffix):
    path = tmp_path_factory.getbasetemp() / f"picture{suffix}"
    indices = np.random.default_rng(1).integers(0, len(label_map.names), (5, 4)).astype(np.uint8)
    like = Scan(np.zeros((1, 5, 4), np.float32), np.eye(4), unit="px")
    values = label_map.decode(indices)
    grey = [value for value in values.ravel().tolist() if not str(file_value(value)).startswith("#")]
    most = 65535 if len(grey) == values.size and suffix != ".bmp" else 255
    if all(0 <= value <= most for value in grey):
        write_mask(path, values, like)
        assert np.array_equal(label_map.encode(read_mask(path), str(path)), indices)
    else:
        with pytest.raises(MedsegError, match=f"^{re.escape(str(path))}: "):
            write_mask(path, values, like)


def write_zeros(path, shape):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.diag([1.0, 2.0, 3.0, 1.0])), path)


@given(st.data(), st.booleans())
def test_regions_nest_and_what_is_painted_is_in_every_larger_region(data, nested):
    n = data.draw(st.integers(2, 6))
    labels = {"background": 0} | {f"c{place}": place for place in range(1, n)}
    sizes = sorted(data.draw(st.sets(st.integers(1, n - 1), min_size=1)), reverse=True)
    order = data.draw(st.permutations(range(1, n)))  # each region a part of the one before it
    members = {f"r{size}": [f"c{index}" for index in order[:size]] for size in sizes}
    painted = [f"c{order[size - 1]}" for size in sizes]
    label_map = LabelMap(labels, members, painted, nested=nested)
    masks = np.random.default_rng(data.draw(st.integers(0, 999))).random((len(sizes), 40)) < 0.6
    found = Regions.of(label_map).paint(list(masks))
    for voxel, marks in enumerate(masks.T):
        expected = 0
        for place, mark in enumerate(marks):
            if mark and (not nested or marks[:place].all()):
                expected = order[sizes[place] - 1]
        assert found[voxel] == expected
    if nested:  # read as regions again, the painted map is the masks made to nest
        for place, size in enumerate(sizes):
            assert np.array_equal(np.isin(found, order[:size]), masks[: place + 1].all(axis=0))
