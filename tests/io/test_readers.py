"""Every image of a collection of real and awkward files: read as SimpleITK reads it, or refused with a reason."""

import numpy as np
import pytest
import SimpleITK as sitk
from scan_files import read_scan

from medseg.errors import MedsegError
from medseg.io.dicom.series import files_of
from medseg.io.files.read import find_images, suffix
from medseg.io.grids.grid import Grid

REFUSED = {
    "sm_image.dcm": "no position in the patient",
    "sm_image_control.dcm": "no position in the patient",
    "sm_image_dots.dcm": "no position in the patient",
    "sm_image_grayscale.dcm": "no position in the patient",
    "sm_image_grayscale_reversed.dcm": "no position in the patient",
    "sm_image_jpegls.dcm": "no position in the patient",
    "sm_image_jpegls_nobot.dcm": "no position in the patient",
    "sm_image_numbers.dcm": "no position in the patient",
}
"""Whole-slide images, whose frames are tiles."""

IMAGES = 39  # below "readers", beside one-mask-per-class folders


@pytest.fixture(scope="module")
def images(real_data):
    """Return all images but the masks of single classes, which are many and alike."""
    root = real_data / "readers"
    return [path for path in find_images(root) if path.parent.name != "example_seg_fast"]


def by_simpleitk(path):
    """Return what SimpleITK reads, of a series in GDCM's order."""
    if path.is_dir() or path.suffix == ".dicom":
        wanted = set(map(str, files_of(path)))
        folder = str(next(iter(files_of(path))).parent)
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(folder):
            names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder, uid)
            if set(names) == wanted:
                return sitk.ReadImage(names)
        raise AssertionError(f"GDCM finds no series of the files of {path}")
    return sitk.ReadImage(str(path))


def test_all_are_found(images):
    assert len(images) == IMAGES
    names = {path.name for path in images}
    assert {"example_ct_dicom", "dicom_mr_series", "oriented_data", "mock_data", "0.dcm", "dx_image.dcm"} <= names
    assert not {name for name in names if name.startswith(("seg_image", "sr_", "rt", "invalid", "dummy"))}


def test_images_agree_with_simpleitk_or_are_refused(images):
    refused = {}
    for path in images:
        try:
            scan = read_scan([path])
        except MedsegError as error:
            refused[path.name] = str(error)
        else:
            if scan.unit == "mm":
                check(path, scan)
    assert refused.keys() == REFUSED.keys()
    assert [name for name, text in refused.items() if REFUSED[name] not in text] == []


def check(path, scan):
    """Compare voxels and the places of the corners."""
    image = by_simpleitk(path)
    array = np.atleast_3d(sitk.GetArrayFromImage(image).T)
    voxels = np.atleast_3d(scan.image[0])
    if path.name == "mock_data":  # CT padding, stored as -2000, which SimpleITK leaves as it is
        array = np.where(array == -2000 - 1024, array[array > -2000 - 1024].min(), array)
    np.testing.assert_allclose(voxels, array.reshape(voxels.shape), rtol=1e-5, err_msg=str(path))
    grid = Grid(scan.shape, scan.affine)
    for corner in np.ndindex(*(2,) * len(scan.shape)):
        index = [int(place * (length - 1)) for place, length in zip(corner, scan.shape, strict=True)]
        point = np.zeros(3)
        found = image.TransformIndexToPhysicalPoint([*index, *[0] * (image.GetDimension() - len(index))])
        point[: len(found)] = found
        np.testing.assert_allclose(grid.to_mm(np.array([index]))[0], point * [-1, -1, 1], atol=2e-3, err_msg=str(path))


def test_a_series_whose_names_are_out_of_order(real_data):
    scan = read_scan([real_data / "readers/dicom_mr_series"])
    assert scan.image.shape == (1, 280, 320, 22)
    names = [path.stem for path in scan.layout.paths]
    assert names[:4] == ["000014", "000012", "000003", "000000"]  # by their positions
    assert names[-1] == "000011"


def test_jpeg_2000_without_suffix(real_data):
    path = real_data / "readers/ct_many_labels/example_ct_dicom"
    scan = read_scan([path])
    assert [suffix(file) for file in scan.layout.paths] == [""] * 20
    np.testing.assert_array_equal(scan.image[0], sitk.GetArrayFromImage(by_simpleitk(path)).T)
