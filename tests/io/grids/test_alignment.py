"""Channels and masks on other grids, as files: refused, resampled or taken as they lie."""

import logging

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scan_files import read_scan
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile
from medseg.io.datasets.annotations import read_labels
from medseg.io.files.read import read_case, read_mask
from medseg.io.files.write_masks import write_mask
from medseg.io.labels import LabelMap

AFFINE = np.array([[1.0, 0, 0, -10], [0, 1.5, 0, 5], [0, 0, 2, 3], [0, 0, 0, 1]])
SHAPE = (20, 18, 16)


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def texture(seed=0, shape=SHAPE):
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5).astype(np.float32)


def shifted(*mm):
    affine = AFFINE.copy()
    affine[:3, 3] += mm
    return affine


def elsewhere(path, source, *, spacing=(2.0, 1.8, 3.1), angles=(0.2, -0.3, 0.15), kernel=sitk.sitkLinear):
    """Write an image's contents on a rotated, coarser grid around its middle, by SimpleITK."""
    image = sitk.ReadImage(str(source))
    size = [int(n * old / new * 1.3) for n, old, new in zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)]
    direction = np.array(image.GetDirection()).reshape(3, 3) @ Rotation.from_euler("xyz", angles).as_matrix()
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    reference = sitk.Image(size, sitk.sitkUInt8)
    reference.SetSpacing(spacing)
    reference.SetDirection(direction.ravel().tolist())
    reference.SetOrigin((np.array(middle) - direction @ (np.array(spacing) * (np.array(size) - 1) / 2)).tolist())
    sitk.WriteImage(sitk.Resample(image, reference, sitk.Transform(), kernel), str(path))
    return path


def by_itk(path, like, kernel=sitk.sitkLinear):
    image = sitk.ReadImage(str(path))
    lowest = float(sitk.GetArrayViewFromImage(image).min())
    image = sitk.Resample(image, sitk.ReadImage(str(like)), sitk.Transform(), kernel, lowest)
    return sitk.GetArrayFromImage(image).T


@pytest.fixture
def channels(tmp_path):
    """Three channels: two on one grid, the last on a coarser and rotated one."""
    first = save(tmp_path / "a.nii.gz", texture(0) + 5)
    second = save(tmp_path / "b.nii.gz", texture(1) - 3)
    whole = save(tmp_path / "whole.nii.gz", texture(2))
    return [first, second, elsewhere(tmp_path / "c.nii.gz", whole)]


def test_other_grids_are_brought_onto_the_first(channels):
    scan = read_scan(channels, "resample")
    assert scan.image.shape == (3, *SHAPE)
    np.testing.assert_array_equal(scan.image[:2], read_scan(channels[:2]).image)
    np.testing.assert_allclose(scan.image[2], by_itk(channels[2], channels[0]), atol=1e-4)
    np.testing.assert_array_equal(scan.affine, AFFINE)


def test_the_reference_gives_grid_affine_and_form(channels, tmp_path):
    scan, alone = read_scan(channels, "resample", reference=2), read_scan(channels[2:])
    assert scan.shape == alone.shape != SHAPE
    np.testing.assert_array_equal(scan.affine, alone.affine)
    np.testing.assert_array_equal(scan.image[2], alone.image[0])
    assert np.corrcoef(scan.image[0].ravel(), by_itk(channels[0], channels[2]).ravel())[0, 1] > 0.95
    write_mask(tmp_path / "m.nii.gz", np.ones(scan.shape, int), scan)
    np.testing.assert_array_equal(nib.load(tmp_path / "m.nii.gz").affine, nib.load(channels[2]).affine)


def test_a_case_is_read_as_it_says(channels, tmp_path):
    labels = (np.hypot.reduce(np.indices(SHAPE) - np.array([9, 8, 7])[:, None, None, None]) < 6).astype(np.uint8)
    mask = elsewhere(tmp_path / "m.nii.gz", save(tmp_path / "l.nii.gz", labels), kernel=sitk.sitkNearestNeighbor)
    case = Case("c", "c", tuple(channels), (LabelFile(mask),), geometry="resample", reference=0)
    scan = read_case(case)
    np.testing.assert_array_equal(scan.image, read_scan(channels, "resample").image)
    truth = read_labels(case, LabelMap({"background": 0, "thing": 1}), scan)
    assert truth.shape == SHAPE
    assert 2 * (truth & labels).sum() / (truth.sum() + labels.sum()) > 0.93


def test_a_reference_that_does_not_exist(channels):
    with pytest.raises(MedsegError, match=r"dataset.reference=3: .* 0 to 2: .*a.nii.gz, .*b.nii.gz, .*c.nii.gz"):
        read_scan(channels, "resample", reference=3)


def test_one_file_with_all_channels_is_its_own_reference(tmp_path):
    path = save(tmp_path / "x.nii", np.moveaxis(np.stack([texture(0), texture(1)]), 0, -1))
    for geometry in ("error", "warn", "resample"):
        np.testing.assert_array_equal(read_scan([path], geometry, reference=1).image, [texture(0), texture(1)])


@pytest.mark.parametrize("geometry", ["error", "warn"])
def test_another_shape_is_an_error_with_a_way_out(channels, geometry):
    with pytest.raises(
        MedsegError, match=r"c.nii.gz: its shape .* differs .* of .*a.nii.gz.*dataset.geometry=resample"
    ):
        read_scan(channels, geometry)


def test_another_affine_is_an_error_with_a_way_out(tmp_path):
    paths = [save(tmp_path / "a.nii", texture()), save(tmp_path / "b.nii", texture(), shifted(0.2, 0, 0))]
    with pytest.raises(MedsegError, match=r"(?s)b.nii: its affine .* by up to 0.2 voxels.*dataset.geometry=resample"):
        read_scan(paths)
    with pytest.raises(MedsegError, match=r"b.nii: its affine"):
        read_mask(save(paths[1], np.ones(SHAPE, np.uint8), shifted(0.2, 0, 0)), read_scan(paths[:1]))


def test_voxels_taken_as_they_lie_with_one_warning_a_case(tmp_path, caplog):
    turned = AFFINE @ np.diag([-1, 1, 1, 1])
    affines = {"a": AFFINE, "b": shifted(30, 0, 0), "c": turned, "d": shifted(0, 0, 0.05)}
    paths = [save(tmp_path / f"{name}.nii", texture(i), affine) for i, (name, affine) in enumerate(affines.items())]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            scan = read_scan(paths, "warn")
    np.testing.assert_array_equal(scan.image, [texture(i) for i in range(4)])
    np.testing.assert_array_equal(scan.affine, AFFINE)
    [message] = caplog.messages
    assert "a.nii" in message
    assert "b.nii" in message
    assert "c.nii" in message
    assert "d.nii" not in message  # within a tenth of a voxel


def test_a_mask_taken_as_it_lies(tmp_path, caplog):
    scan = read_scan([save(tmp_path / "a.nii", texture())])
    labels = (texture() > 0).astype(np.uint8)
    mask = save(tmp_path / "m.nii", labels, shifted(4, 4, 4))
    np.testing.assert_array_equal(read_mask(mask, scan, "warn"), labels)
    assert "m.nii" in caplog.text
    with pytest.raises(MedsegError, match=r"m.nii: its affine(?s:.)*dataset.geometry=resample"):
        read_mask(save(mask, labels, AFFINE @ np.diag([1.1, 1, 1, 1])), scan, "warn")


def test_a_mask_on_a_finer_grid(tmp_path):
    scan = read_scan([save(tmp_path / "a.nii", texture())])
    coarse = np.zeros(SHAPE, np.uint16)
    coarse[4:12, 3:9, 5:11] = 300
    coarse[12:15, 3:9, 5:11] = 7
    halves = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    halves[:3, 3] = AFFINE[:3, 3] - np.diag(AFFINE)[:3] / 4  # the outer edges coincide
    fine = save(tmp_path / "m.nii", coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2), halves)
    np.testing.assert_array_equal(read_mask(fine, scan, "resample"), coarse)


def test_a_mask_of_a_part_leaves_the_rest_background(tmp_path):
    scan = read_scan([save(tmp_path / "a.nii", texture())])
    part = save(tmp_path / "m.nii", np.full((3, 3, 3), 4, np.uint8), shifted(5, 6, 8))  # five, four and four voxels on
    for background in (0, 2):
        expected = np.full(SHAPE, background)
        expected[5:8, 4:7, 4:7] = 4
        np.testing.assert_array_equal(read_mask(part, scan, "resample", background), expected)


@pytest.mark.parametrize("distance", [15, 200])
def test_a_channel_of_another_place_is_refused_with_both_boxes(tmp_path, distance):
    paths = [save(tmp_path / "a.nii", texture()), save(tmp_path / "b.nii", texture(), shifted(distance, 23, 0))]
    boxes = (
        rf"from \[{distance - 10.5:.1f}, 27.2, 2.0\] to \[{distance + 9.5:.1f}, 54.2, 34.0\]\n"
        r"  from \[-10.5, 4.2, 2.0\] to \[9.5, 31.2, 34.0\]"
    )
    with pytest.raises(MedsegError, match=rf"b.nii: it shows another place than .*a.nii: \d %(?s:.)*{boxes}"):
        read_scan(paths, "resample")
    with pytest.raises(MedsegError, match=r"b.nii: it shows another place"):
        read_mask(save(paths[1], np.ones(SHAPE, np.uint8), shifted(distance, 23, 0)), read_scan(paths[:1]), "resample")


def test_a_channel_of_a_part_is_completed_by_its_minimum(tmp_path):
    part = texture(1)[:, :, :8] + 9
    paths = [save(tmp_path / "a.nii", texture()), save(tmp_path / "b.nii", part)]
    image = read_scan(paths, "resample").image[1]
    np.testing.assert_allclose(image[..., :8], part, rtol=1e-6)
    assert (image[..., 8:] == part.min()).all()


@pytest.mark.parametrize("geometry", ["error", "warn", "resample"])
def test_pictures_have_no_place_to_be_resampled_by(tmp_path, geometry):
    for name, size in {"a": (6, 7), "b": (7, 6)}.items():
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(MedsegError, match=r"b.png: its shape \(7, 6\) differs from \(6, 7\) of .*a.png. Both must lie"):
        read_scan([tmp_path / "a.png", tmp_path / "b.png"], geometry)
    with pytest.raises(MedsegError, match=r"b.png: its shape"):
        read_mask(tmp_path / "b.png", read_scan([tmp_path / "a.png"]), geometry)


def test_a_slice_of_a_volume_goes_with_a_picture_in_its_plane(tmp_path):
    volume = texture()
    single = save(tmp_path / "a.nii", volume[:, :, 5:6], shifted(0, 0, 10))
    scan = read_scan([single, save(tmp_path / "b.nii", volume)], "resample")
    np.testing.assert_allclose(scan.image, np.stack([volume[:, :, 5]] * 2), atol=1e-6)
