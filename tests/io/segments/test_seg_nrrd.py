"""``.seg.nrrd``: written files as pynrrd and SimpleITK see them, and files in the forms that 3D Slicer has."""

import numpy as np
import pytest
import SimpleITK as sitk

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile, Scan
from medseg.io.datasets.annotations import classes_of_segments, read_labels
from medseg.io.files.read_segments import read_segments, segment_names
from medseg.io.files.write_masks import write_classes
from medseg.io.labels import LabelMap

nrrd = pytest.importorskip("nrrd")

OBLIQUE = np.array([[-0.7, 0.2, 0.1, 12.0], [0.15, 0.9, -0.4, -30.5], [0.1, 0.3, 2.4, 7.25], [0, 0, 0, 1]])
ORGANS = LabelMap({"background": 0, "Leber – groß": 3, "tumour": 7, "absent": 9})


def scan(affine=OBLIQUE, shape=(7, 6, 5)):
    return Scan(np.zeros((1, *shape), np.float32), affine)


def mask(shape=(7, 6, 5)):
    return np.random.default_rng(0).integers(0, 3, shape, dtype=np.uint8)


def case(path, **options):
    return Case("a", "a", (), (LabelFile(path),), **options)


def slicer(path, array, segments, space="left-posterior-superior", affine=OBLIQUE, offset=(0, 0, 0)):
    """Write a file as 3D Slicer does, by pynrrd: (i, j, k) or (layers, i, j, k)."""
    to_lps = np.diag([-1.0, -1, 1, 1]) if space.startswith("left") else np.eye(4)
    placed = to_lps @ affine
    directions = placed[:3, :3].T
    header = {
        "space": space,
        "kinds": ["list"] * (array.ndim == 4) + ["domain"] * 3,
        "space directions": np.vstack([[np.nan] * 3] * (array.ndim == 4) + [directions]),
        "space origin": (placed @ [*offset, 1])[:3],
    }
    for number, segment in enumerate(segments):
        header |= {f"Segment{number}_{key}": str(value) for key, value in segment.items()}
    nrrd.write(str(path), array, header)
    return path


def test_a_written_mask_is_what_others_read(tmp_path):
    path, indices = tmp_path / "a.seg.nrrd", mask()
    write_classes(
        path, indices, ORGANS, scan(), "seg.nrrd", {"tumour": {"value": "4147007", "scheme": "SCT", "meaning": "Mass"}}
    )
    values = ORGANS.decode(indices)
    array, header = nrrd.read(str(path))
    np.testing.assert_array_equal(array, values)
    assert array.dtype == np.uint8
    np.testing.assert_allclose(header["space directions"], (np.diag([-1, -1, 1]) @ OBLIQUE[:3, :3]).T, atol=1e-9)
    np.testing.assert_allclose(header["space origin"], [-12.0, 30.5, 7.25])
    assert [header[f"Segment{number}_LabelValue"] for number in range(3)] == ["3", "7", "9"]
    assert header["Segment1_Name"] == "tumour"
    assert header["Segment1_Extent"] == "0 6 0 5 0 4"
    assert header["Segment0_Color"] == "0.901961 0.623529 0"
    assert "~SCT^85756007^Tissue~SCT^4147007^Mass~^^~" in header["Segment1_Tags"]
    image = sitk.ReadImage(path)
    assert image.GetMetaData("Segment0_Name") == "Leber – groß"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, values)


def test_what_is_written_is_read_back_and_the_same_each_time(tmp_path):
    path, indices = tmp_path / "a.seg.nrrd", mask()
    for name in ("a.seg.nrrd", "b.seg.nrrd"):
        write_classes(tmp_path / name, indices, ORGANS, scan(), "seg.nrrd")
    assert path.read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()
    np.testing.assert_array_equal(read_labels(case(path), ORGANS, scan()), indices)
    assert classes_of_segments(case(path)) == ["Leber – groß", "tumour", "absent"]


def test_values_that_a_label_map_cannot_hold_become_indices(tmp_path):
    colours = LabelMap({"background": "#000000", "red": "#ff0000", "large": 70000})
    write_classes(tmp_path / "a.seg.nrrd", mask(), colours, scan(), "seg.nrrd")
    np.testing.assert_array_equal(nrrd.read(str(tmp_path / "a.seg.nrrd"))[0], mask())
    np.testing.assert_array_equal(read_labels(case(tmp_path / "a.seg.nrrd"), colours, scan()), mask())


@pytest.mark.parametrize("space", ["left-posterior-superior", "right-anterior-superior"])
def test_layers_overlap_and_are_painted_in_order(tmp_path, caplog, space):
    layers = np.zeros((2, 7, 6, 5), np.uint8)
    layers[0, 1:5] = 1
    layers[0, 5] = 2
    layers[1, 3:6, 2] = 1
    segments = [
        {"ID": "s1", "Name": "Liver", "LabelValue": 1, "Layer": 0},
        {"ID": "s2", "Name": "skin", "LabelValue": 2, "Layer": 0},
        {"ID": "s3", "Name": "tumour", "LabelValue": 1, "Layer": 1},
    ]
    path = slicer(tmp_path / "x.seg.nrrd", layers, segments, space)
    labels = LabelMap({"background": 0, "liver": 1, "tumour": 2})
    read = read_labels(case(path, segments={"skin": None}), labels, scan())
    expected = layers[0] * (layers[0] == 1)
    expected[layers[1] == 1] = 2
    np.testing.assert_array_equal(read, expected)
    assert "painted over those before them are 'tumour' in 10 voxels" in caplog.text


def test_slicer_4_has_a_layer_a_segment_and_no_values(tmp_path):
    layers = np.zeros((2, 7, 6, 5), np.uint8)
    layers[0, 1:3] = layers[1, 4:6] = 1
    path = slicer(tmp_path / "x.seg.nrrd", layers, [{"ID": "s1", "Name": "a"}, {"ID": "s2", "Name": "b"}])
    read = read_labels(case(path), LabelMap({"background": 0, "a": 1, "b": 2}), scan())
    np.testing.assert_array_equal(read, layers[0] + 2 * layers[1])


def test_a_cropped_and_flipped_file_is_laid_in_place(tmp_path, caplog):
    indices = mask() & 1
    segments = [{"ID": "s1", "Name": "a", "LabelValue": 1, "Layer": 0}]
    path = slicer(tmp_path / "x.seg.nrrd", indices[2:6, 1:4, 1:], segments, offset=(2, 1, 1))
    expected = np.zeros_like(indices)
    expected[2:6, 1:4, 1:] = indices[2:6, 1:4, 1:]
    labels = LabelMap({"background": 0, "a": 1})
    np.testing.assert_array_equal(read_labels(case(path), labels, scan()), expected)
    flip = np.array([[0, -1, 0, 5], [1, 0, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1]])  # i of the scan runs along j
    turned = scan(OBLIQUE @ np.linalg.inv(flip), (6, 7, 5))
    read = read_labels(case(path), labels, turned)
    np.testing.assert_array_equal(read, np.flip(expected.transpose(1, 0, 2), (0, 2)))
    smaller = scan(OBLIQUE, (5, 6, 5))
    np.testing.assert_array_equal(read_labels(case(path), labels, smaller), expected[:5])
    assert f"{indices[5, 1:4, 1:].sum()} voxels of its segments lie beyond the scan" in caplog.text


def test_another_grid_is_refused_or_resampled(tmp_path):
    indices = np.zeros((7, 6, 5), np.uint8)
    indices[2:5, 1:5, 1:4] = 1
    path = slicer(tmp_path / "x.seg.nrrd", indices, [{"ID": "s1", "Name": "a", "LabelValue": 1, "Layer": 0}])
    fine = scan(OBLIQUE @ np.diag([0.5, 0.5, 0.5, 1]), (14, 12, 10))
    labels = LabelMap({"background": 0, "a": 1})
    with pytest.raises(MedsegError, match=r"x\.seg\.nrrd: its shape .* dataset\.geometry=resample"):
        read_labels(case(path), labels, fine)
    read = read_labels(case(path, geometry="resample"), labels, fine)
    assert read[8:9, 4:8, 4:6].all()
    assert 8 * indices.sum() * 0.55 < read.sum() < 8 * indices.sum() * 1.3


def test_unknown_segments_are_named(tmp_path):
    segments = [{"ID": "s1", "Name": "Tumor", "LabelValue": 1, "Layer": 0}, {"ID": "s2", "LabelValue": 2, "Layer": 0}]
    path = slicer(tmp_path / "x.seg.nrrd", mask(), segments)
    labels = LabelMap({"background": 0, "liver": 1, "tumour": 2})
    with pytest.raises(MedsegError, match=r"'Tumor', 's2' are none of the classes liver, tumour.*\*.*null"):
        read_labels(case(path), labels, scan())
    read = read_labels(case(path, segments={"tum*": "TUMOUR", "*": None}), labels, scan())
    np.testing.assert_array_equal(read, 2 * (mask() == 1))


def test_one_class_for_all_segments_of_a_file(tmp_path):
    segments = [{"ID": f"s{value}", "LabelValue": value, "Layer": 0} for value in (1, 2)]
    path = slicer(tmp_path / "x.seg.nrrd", mask(), segments)
    labels = LabelMap({"background": 0, "liver": 1, "tumour": 2})
    one = Case("a", "a", (), (LabelFile(path, 2),))
    np.testing.assert_array_equal(read_labels(one, labels, scan()), 2 * (mask() > 0))


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "x.seg.nrrd").write_bytes(b"NRRD0004\nnonsense")
    with pytest.raises(MedsegError, match=r"no readable NRRD"):
        segment_names(tmp_path / "x.seg.nrrd")
    path = slicer(tmp_path / "y.seg.nrrd", mask(), [])
    with pytest.raises(MedsegError, match=r"names no segments"):
        segment_names(path)
    path = slicer(tmp_path / "z.seg.nrrd", mask(), [{"Name": "a", "LabelValue": 1, "Layer": 3}])
    with pytest.raises(MedsegError, match=r"a are in layers that it lacks \(1\)"):
        read_segments(path, scan())
    path = slicer(tmp_path / "w.seg.nrrd", mask(), [{"Name": "a", "LabelValue": "one", "Layer": 0}])
    with pytest.raises(MedsegError, match=r"no number"):
        segment_names(path)
    whole = slicer(tmp_path / "t.seg.nrrd", mask(), [{"Name": "a", "LabelValue": 1, "Layer": 0}])
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(MedsegError, match=r"damaged, truncated"):
        read_segments(whole, scan())
