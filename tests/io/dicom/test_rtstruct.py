"""RTSTRUCT: written contours filled by scikit-image, awkward ones, and those of other programs."""

import numpy as np
import pytest
from scan_files import read_scan
from scipy.ndimage import gaussian_filter
from skimage.draw import polygon2mask

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile, Scan
from medseg.io.datasets.annotations import classes_of_segments, read_labels
from medseg.io.files.write_masks import write_classes
from medseg.io.labels import LabelMap

pydicom = pytest.importorskip("pydicom")

CLASSES = LabelMap({"background": 0, "Körper": 3, "tumour": 7, "absent": 9})
OBLIQUE = (0.9541666, -0.2080757, 0.2151061, 0.2785886, 0.880128, -0.3843997)
SHAPE = (30, 24, 5)
RAS = np.diag([-1.0, -1, 1])


def mask(shape=SHAPE):
    noise = gaussian_filter(np.random.default_rng(1).normal(size=shape), (1.2, 1.2, 0))
    indices = np.digitize(noise, [-0.05, 0.15]).astype(np.uint8)  # blobs with holes, and islands in them
    indices[:, :, 1] = 0
    indices[3, 4, 1] = 2  # one voxel
    indices[20, 20, 1] = indices[21, 21, 1] = 1  # two that touch at a corner
    return indices


def case(path, **options):
    return Case("a", "a", (), (LabelFile(path),), **options)


def written(path, series, indices=None):
    write_classes(path, mask() if indices is None else indices, CLASSES, series, "rtstruct")
    return path


@pytest.mark.parametrize(
    "options", [{}, {"orientation": OBLIQUE}, {"tilt": 0.7}, {"spacing": (0.05, 2.0), "step": 9.0}], ids=str
)
def test_a_written_mask_is_read_back(tmp_path, made_series, options):
    series = made_series(SHAPE, **options)
    path = written(tmp_path / "a.dcm", series)
    np.testing.assert_array_equal(read_labels(case(path), CLASSES, series), mask())
    assert classes_of_segments(case(path)) == ["Körper", "tumour", "absent"]


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE])
def test_scikit_image_fills_the_contours_to_the_mask(tmp_path, made_series, orientation):
    series = made_series(SHAPE, orientation)
    dataset = pydicom.dcmread(written(tmp_path / "a.dcm", series))
    to_voxels = np.linalg.inv(series.affine)
    by_uid = {pydicom.dcmread(path).SOPInstanceUID: place for place, path in enumerate(series.layout.paths)}
    drawn = np.zeros((3, *SHAPE), dtype=bool)
    for index, structure in enumerate(dataset.ROIContourSequence):
        for contour in structure.get("ContourSequence", []):
            points = np.array(contour.ContourData, float).reshape(-1, 3) @ RAS
            voxels = points @ to_voxels[:3, :3].T + to_voxels[:3, 3]
            place = by_uid[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            np.testing.assert_allclose(voxels[:, 2], place, atol=1e-3)
            assert contour.NumberOfContourPoints == len(points)
            drawn[index, :, :, place] ^= polygon2mask(SHAPE[:2], voxels[:, :2])
    np.testing.assert_array_equal(drawn, [mask() == index for index in (1, 2, 3)])
    assert tuple(dataset.ROIContourSequence[0].ROIDisplayColor) == (0xE6, 0x9F, 0x00)
    assert [item.ROIName for item in dataset.StructureSetROISequence] == ["Körper", "tumour", "absent"]
    reference = dataset.ReferencedFrameOfReferenceSequence[0]
    series_item = reference.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert (reference.FrameOfReferenceUID, series_item.SeriesInstanceUID) == ("1.9", "1.5")
    assert {item.ReferencedSOPInstanceUID for item in series_item.ContourImageSequence} == set(by_uid)
    assert all(len(value) <= 16 for value in map(str, dataset.ROIContourSequence[0].ContourSequence[0].ContourData))


def test_the_same_mask_is_the_same_file(tmp_path, made_series):
    series = made_series(SHAPE)
    first = written(tmp_path / "a.dcm", series).read_bytes()
    assert written(tmp_path / "b.dcm", series).read_bytes() == first
    assert pydicom.dcmread(tmp_path / "a.dcm").StructureSetDate == "20240131"


def square(center, size, place, series):
    """Return the contour of a square of voxels, from outer edge to outer edge, in mm LPS."""
    corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * (size / 2) + center
    points = np.insert(corners, 2, place, axis=1) @ series.affine[:3, :3].T + series.affine[:3, 3]
    return (points @ RAS).ravel()


def structures(path, series, contours, kind="CLOSED_PLANAR", tmp=None):
    """Write a structure set of these contours, all of the first structure."""
    dataset = pydicom.dcmread(written(path, series, np.zeros(SHAPE, np.uint8)))
    items = []
    for points in contours:
        item = pydicom.Dataset()
        item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points) // 3
        item.ContourData = [f"{value:.6f}"[:16] for value in points]
        items.append(item)
    dataset.ROIContourSequence[0].ContourSequence = items
    dataset.save_as(path)
    return path


def test_contours_of_other_programs(tmp_path, made_series):
    series = made_series(SHAPE)
    outer, hole, island = (square((10, 12), size, 2, series) for size in (15, 9, 3))
    path = structures(tmp_path / "a.dcm", series, [outer, hole, island, island, square((20, 5), 1, 4, series)])
    expected = np.zeros(SHAPE, np.uint8)
    expected[3:18, 5:20, 2] = 1
    expected[6:15, 8:17, 2] = 0
    expected[9:12, 11:14, 2] = 1  # though it is there twice
    expected[20, 5, 4] = 1
    np.testing.assert_array_equal(read_labels(case(path), CLASSES, series), expected)
    flip = np.array([[0, 0, -1, 29], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])  # slices along the second axis
    turned = Scan(np.zeros((1, 24, 5, 30), np.float32), series.affine @ flip)
    np.testing.assert_array_equal(read_labels(case(path), CLASSES, turned), np.flip(expected, 0).transpose(1, 2, 0))


def test_points_are_passed_over_and_contours_beyond_the_scan_left_out(tmp_path, made_series, caplog):
    series = made_series(SHAPE)
    inside, outside = square((10, 12), 5, 4, series), square((10, 12), 5, 7, series)
    path = structures(tmp_path / "a.dcm", series, [inside], kind="POINT")
    assert not read_labels(case(path), CLASSES, series).any()
    path = structures(tmp_path / "b.dcm", series, [inside, outside])
    assert read_labels(case(path), CLASSES, series).sum() == 25
    assert "1 of 2 contours lie beyond the slices" in caplog.text


@pytest.mark.parametrize("number", ["nan", "inf", "two"])
def test_corners_that_are_nowhere_are_refused(tmp_path, made_series, number):
    series = made_series(SHAPE)
    path = written(tmp_path / "a.dcm", series)
    content, dataset = path.read_bytes(), pydicom.dcmread(path)
    first = str(dataset.ROIContourSequence[0].ContourSequence[0].ContourData[0]).encode()
    padded = number.encode().ljust(len(first))
    assert len(padded) == len(first)
    place = content.index(first + b"\\")
    (tmp_path / "b.dcm").write_bytes(content[:place] + padded + content[place + len(first) :])
    with pytest.raises(MedsegError, match=r"b\.dcm"):
        read_labels(case(tmp_path / "b.dcm"), CLASSES, series)


@pytest.mark.parametrize(
    ("move", "message"),
    [
        ((0, 0, 0.5), "lies between slices 2 and 3"),
        ((0, 0, 10), "all its contours lie beyond the slices"),
    ],
)
def test_contours_off_the_slices_are_refused(tmp_path, made_series, move, message):
    series = made_series(SHAPE)
    points = square((10, 12), 5, 2 + move[2], series)
    path = structures(tmp_path / "a.dcm", series, [points])
    with pytest.raises(MedsegError, match=message):
        read_labels(case(path), CLASSES, series)


def test_askew_contours_and_other_series_are_refused(tmp_path, made_series):
    series = made_series(SHAPE)
    points = square((10, 12), 9, 2, series)
    points[2] += 3
    points[4] += 3
    points[3] += 3
    with pytest.raises(MedsegError, match="askew to the slices"):
        read_labels(case(structures(tmp_path / "a.dcm", series, [points])), CLASSES, series)
    path = written(tmp_path / "b.dcm", series)
    dataset = pydicom.dcmread(path)
    for item in dataset.StructureSetROISequence:
        item.ReferencedFrameOfReferenceUID = "1.99"
    dataset.save_as(path)
    np.testing.assert_array_equal(read_labels(case(path), CLASSES, series), mask())  # it still names the series
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    study.RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.98"
    dataset.save_as(path)
    with pytest.raises(MedsegError, match=r"drawn on another series .* it refers to 1\.98"):
        read_labels(case(path), CLASSES, series)


@pytest.mark.parametrize("name", ["rt", "invalid_reference_rt", "non_existent_reference_rt"])
def test_real_structures_are_filled_as_by_scikit_image(real_data, name):
    folder = real_data / "readers" / "dicom_rtstruct" / "mock_data"
    series = read_scan([folder])
    path = folder / f"{name}.dcm"
    dataset = pydicom.dcmread(path)
    names = classes_of_segments(case(path))
    to_voxels = np.linalg.inv(series.affine)
    for index, structure in enumerate(dataset.ROIContourSequence):
        truth = np.zeros(series.shape, bool)
        for contour in structure.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3) @ RAS
            voxels = points @ to_voxels[:3, :3].T + to_voxels[:3, 3]
            if round(voxels[0, 2]) in (0, 1):
                truth[:, :, round(voxels[0, 2])] ^= polygon2mask(series.shape[:2], voxels[:, :2])
        label_map = LabelMap({"background": 0, names[index]: 1})
        read = read_labels(case(path, segments={names[index]: names[index], "*": None}), label_map, series)
        assert truth.any()
        assert np.count_nonzero((read > 0) != truth) <= 0.002 * truth.sum()  # centres on an edge of a hole


def test_a_real_structure_set_of_other_slices_is_refused_with_a_reason(real_data):
    folder = real_data / "readers" / "dicom_rtstruct"
    series = read_scan([folder / "oriented_data"])
    with pytest.raises(MedsegError, match=r"dummy_rt\.dcm: .*another series"):
        read_labels(case(folder / "empty" / "dummy_rt.dcm", segments={"*": "Körper"}), CLASSES, series)
