"""NRRD and MetaImage against SimpleITK: the same voxels at the same physical points, and masks in the same form."""

import numpy as np
import pytest
import SimpleITK as sitk
from scan_files import read_scan

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.files.read import find_images, find_masks, on_disk, read_mask
from medseg.io.files.sizes import size_of
from medseg.io.files.write_masks import mask_name, write_mask
from medseg.io.grids.grid import Grid

TURNED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0)


def save(
    path, array, spacing=(0.5, 0.75, 2.0), direction=TURNED, origin=(-10.0, 20.0, 30.0), vector=False, packed=False
):
    image = sitk.GetImageFromArray(array, isVector=vector)
    dims = image.GetDimension()
    if dims < 4:
        image.SetSpacing(spacing[:dims])
        image.SetDirection(direction if dims == 3 else (0.8, -0.6, 0.6, 0.8))
        image.SetOrigin(origin[:dims])
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path), packed)
    return path


def volume(shape=(6, 5, 4), dtype=np.int16):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape) - dtype(3)


def agrees(path, scan):
    """Check a scan against SimpleITK's reading of its file: values and places of all voxels."""
    image = sitk.ReadImage(str(path))
    dims = len(scan.shape)
    grid = Grid(scan.shape, scan.affine)
    for index in [*np.ndindex(*scan.shape)][:: max(1, np.prod(scan.shape) // 50)]:
        point = np.zeros(3)
        full = [*map(int, index), *[0] * (image.GetDimension() - dims)]
        found = image.TransformIndexToPhysicalPoint(full)[:3]
        point[: len(found)] = found
        np.testing.assert_allclose(grid.to_mm(np.array([index]))[0], point * [-1, -1, 1], atol=1e-4)
        np.testing.assert_array_equal(np.ravel(image.GetPixel(*full)), scan.image[(slice(None), *index)])


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "Kopf Müller (1,2).mhd", "脑 (2).nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_volumes(tmp_path, name, packed):
    path = save(tmp_path / "in put" / name, volume(), packed=packed)
    scan = read_scan([path])
    assert scan.image.shape == (1, 4, 5, 6)
    assert scan.unit == "mm"
    agrees(path, scan)
    np.testing.assert_allclose(scan.spacing, (0.5, 0.75, 2.0))
    assert [file.suffix for file in on_disk(path)][1:] == (
        [] if name[-4:] in ("nrrd", ".mha") else [on_disk(path)[1].suffix]
    )


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_channels_pictures_and_single_slices(tmp_path, suffix):
    vector = save(tmp_path / f"v{suffix}", volume((6, 5, 4, 3)), vector=True)
    flat = save(tmp_path / f"f{suffix}", volume((5, 4)))
    single = save(tmp_path / f"s{suffix}", volume((1, 5, 4)))
    for path, shape in ((vector, (3, 4, 5, 6)), (flat, (1, 4, 5)), (single, (1, 4, 5))):
        scan = read_scan([path])
        assert scan.image.shape == shape
        agrees(path, scan)


def test_a_fourth_axis_is_channels(tmp_path):
    values = volume((2, 6, 5, 4))
    scan = read_scan([save(tmp_path / "t.mha", values)])
    np.testing.assert_array_equal(scan.image, values.transpose(0, 3, 2, 1))


def test_units_of_the_header_count(tmp_path):
    path = tmp_path / "m.nrrd"
    fields = "NRRD0004\ntype: uchar\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 2 2\nencoding: raw\n"
    fields += 'space directions: (50,0,0) (0,50,0) (0,0,100)\nspace origin: (7,8,9)\nspace units: "um" "um" "um"\n\n'
    path.write_bytes(fields.encode() + bytes(range(8)))
    np.testing.assert_allclose(
        read_scan([path]).affine,
        [[0.05, 0, 0, 0.007], [0, 0.05, 0, 0.008], [0, 0, 0.1, 0.009], [0, 0, 0, 1]],
        atol=1e-12,
    )


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "ü (1).mha"])
@pytest.mark.parametrize("shape", [(6, 5, 4), (1, 5, 4), (5, 4)])
def test_masks_have_the_form_of_the_image(tmp_path, name, shape):
    path = save(tmp_path / name, volume(shape))
    scan = read_scan([path])
    values = np.arange(scan.image.size).reshape(scan.shape) % 3
    mask = tmp_path / "masks" / mask_name(path)
    write_mask(mask, values, scan)
    np.testing.assert_array_equal(read_mask(mask, scan), values)
    image, written = sitk.ReadImage(str(path)), sitk.ReadImage(str(mask))
    assert written.GetSize() == image.GetSize()
    assert written.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    for method in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(written, method)(), getattr(image, method)(), atol=1e-9)
    assert [file.name for file in mask.parent.iterdir()] == [mask.name]


def test_masks_are_compressed_and_hold_large_and_negative_values(tmp_path):
    scan = read_scan([save(tmp_path / "a.nrrd", np.zeros((20, 50, 50), np.int16))])
    values = np.zeros(scan.shape, np.int64)
    values[0, 0, :2] = [70000, -1]
    for suffix in (".nrrd", ".mha"):
        write_mask(tmp_path / f"m{suffix}", values, scan)
        np.testing.assert_array_equal(read_mask(tmp_path / f"m{suffix}", scan), values)
        assert (tmp_path / f"m{suffix}").stat().st_size < 5000


def test_a_mask_in_two_files_is_refused(tmp_path):
    scan = read_scan([save(tmp_path / "a.mhd", volume())])
    with pytest.raises(MedsegError, match=r"m.mhd: masks are not written in this form. Call it m.mha"):
        write_mask(tmp_path / "m.mhd", np.zeros(scan.shape, int), scan)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_files_are_named(tmp_path, suffix, packed):
    path = save(tmp_path / f"a{suffix}", volume((20, 30, 30)), packed=packed)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(MedsegError, match=rf"a{suffix}: no readable (NRRD|MetaImage) file"):
        read_scan([path])
    (tmp_path / f"b{suffix}").write_bytes(b"something else\n\n")
    with pytest.raises(MedsegError, match=rf"b{suffix}: no readable"):
        read_scan([tmp_path / f"b{suffix}"])


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_a_missing_data_file_is_named(tmp_path, name):
    path = save(tmp_path / name, volume())
    data = on_disk(path)[1]
    data.unlink()
    with pytest.raises(MedsegError, match=rf"{name}: its data file {data.name} is missing"):
        read_scan([path])


def test_data_in_several_files_belongs_to_the_image(tmp_path):
    slices = volume((3, 5, 4))
    for number, pixels in enumerate(slices, 1):
        (tmp_path / f"s{number:02d}.raw").write_bytes(pixels.tobytes())
    head = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 3\nElementType = MET_SHORT\nElementByteOrderMSB = False\n"
    listed = "LIST\ns01.raw\ns02.raw\ns03.raw\n"
    for name, files in (("list.mhd", listed), ("pattern.mhd", "s%02d.raw 1 3 1\n")):
        (tmp_path / name).write_text(f"{head}ElementDataFile = {files}")
        assert [file.name for file in on_disk(tmp_path / name)] == [name, "s01.raw", "s02.raw", "s03.raw"]
        np.testing.assert_array_equal(read_scan([tmp_path / name]).image[0], slices.T)


def test_sizes_from_the_header(tmp_path):
    path = save(tmp_path / "v.nrrd", volume((6, 5, 4, 3)), vector=True)
    size = size_of(Case("v", "v", (path, path)))
    assert (size.voxels, size.channels) == (120, 6)
    assert size.voxel_volume == pytest.approx(0.75)
    path.write_bytes(path.read_bytes()[:40])
    assert size_of(Case("v", "v", (path,))).voxels == 0


def test_a_segmentation_is_no_scan(tmp_path):
    for name in ("a.nrrd", "a.seg.nrrd"):
        save(tmp_path / name, volume())
    assert find_images(tmp_path) == [tmp_path / "a.nrrd"]
    assert find_masks(tmp_path) == [tmp_path / "a.nrrd", tmp_path / "a.seg.nrrd"]
