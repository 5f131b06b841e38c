"""Headers of MetaImage and NRRD of every form against SimpleITK, which reads them by other code."""

import bz2
import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from scan_files import read_scan
from trust.corpus import metaimage, nrrd, voxels

from medseg.errors import MedsegError
from medseg.io.files.read import on_disk, read_mask
from medseg.io.grids.grid import Grid

RAW = np.ascontiguousarray(voxels().T).tobytes()
BIG = np.ascontiguousarray(voxels(">i2").T).tobytes()
TURNED = "0.8 0.6 0 -0.6 0.8 0 0 0 -1"
NO_SPACE = {"space": "", "space_directions": "", "space_origin": ""}


def agrees(path):
    """Compare voxels, and the positions of corners, with SimpleITK's."""
    scan, image = read_scan([path]), sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)  # (z, y, x[, channels])
    channels = image.GetNumberOfComponentsPerPixel()
    expected = np.moveaxis(array.reshape(*array.shape[: image.GetDimension()], channels), -1, 0)
    np.testing.assert_array_equal(scan.image, expected.transpose(0, *range(expected.ndim - 1, 0, -1)))
    grid = Grid(scan.shape, scan.affine)
    for corner in np.ndindex(*(2,) * len(scan.shape)):
        index = [int(side * (length - 1)) for side, length in zip(corner, scan.shape, strict=True)]
        point = [*image.TransformIndexToPhysicalPoint(index), 0][:3]
        np.testing.assert_allclose(grid.to_mm(np.array([index]))[0], np.array(point) * [-1, -1, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({}, RAW),
        ({"TransformMatrix": TURNED, "Offset": "5 -6 7.5"}, RAW),
        ({"TransformMatrix": "", "Offset": "", "Rotation": TURNED, "Position": "1 2 3"}, RAW),
        ({"TransformMatrix": "", "Offset": "", "Orientation": TURNED, "Origin": "1 2 3"}, RAW),
        ({"ElementSpacing": "", "ElementSize": "2 3 4"}, RAW),
        ({"ElementSpacing": "1 2 3", "ElementSize": "4 5 6"}, RAW),
        ({"ElementSpacing": ""}, RAW),
        ({"BinaryDataByteOrderMSB": "True"}, BIG),
        ({"BinaryDataByteOrderMSB": "", "ElementByteOrderMSB": "True"}, BIG),
        ({"CompressedData": "True", "CompressedDataSize": str(len(zlib.compress(RAW)))}, zlib.compress(RAW)),
        (
            {"NDims": "2", "DimSize": "7 30", "TransformMatrix": "0 1 -1 0", "Offset": "4 5", "ElementSpacing": "2 3"},
            RAW,
        ),
        ({"ElementNumberOfChannels": "5", "DimSize": "7 6 1"}, RAW),
        ({"ElementType": "MET_USHORT"}, RAW),
        ({"ElementType": "MET_FLOAT"}, voxels("<f4").T.tobytes("C")),
        ({"ElementType": "MET_DOUBLE"}, voxels("<f8").T.tobytes("C")),
        ({"ElementType": "MET_CHAR"}, voxels("<i1").T.tobytes("C")),
        ({"ElementType": "MET_UINT"}, voxels("<u4").T.tobytes("C")),
        ({"ElementType": "MET_LONG_LONG"}, voxels("<i8").T.tobytes("C")),
    ],
)
def test_metaimage_agrees_with_simpleitk(tmp_path, fields, content):
    path = tmp_path / "a.mha"
    path.write_bytes(metaimage(**fields) + content)
    scan = read_scan([path])
    if fields.get("ElementNumberOfChannels"):  # a single slice, which SimpleITK keeps as a third axis
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        np.testing.assert_array_equal(scan.image, image[0].transpose(2, 1, 0))
    else:
        agrees(path)


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({}, RAW),
        ({"encoding": "gzip"}, gzip.compress(RAW)),
        ({"encoding": "gz"}, gzip.compress(RAW)),
        ({"encoding": "txt", "endian": ""}, "\n".join(map(str, voxels().T.ravel())).encode()),
        ({"encoding": "hex"}, RAW.hex().encode()),
        ({"endian": "big"}, BIG),
        ({"type": "unsigned short"}, RAW),
        ({"type": "float"}, voxels("<f4").T.tobytes("C")),
        ({"type": "int8_t"}, voxels("<i1").T.tobytes("C")),
        ({"type": "longlong"}, voxels("<i8").T.tobytes("C")),
        ({"space": "right-anterior-superior", "space_origin": "(1,2,3)"}, RAW),
        ({"space": "RAS", "space_origin": "(1,2,3)"}, RAW),
        ({"space": "left-anterior-superior", "space_origin": "(1,2,3)"}, RAW),
        ({"space": "scanner-xyz", "space_directions": "(0,2,0) (-3,0,0) (0,0,-4)"}, RAW),
        ({"space": "", "type": "short\nspace dimension: 3", "space_origin": "(1,2,3)"}, RAW),
        ({"kinds": "domain domain domain", "centerings": "cell cell cell"}, RAW),
        ({**NO_SPACE, "spacings": "2 3 4"}, RAW),
        ({**NO_SPACE, "spacings": "2 3 4", "axis_mins": "10 20 30", "centers": "cell node ???"}, RAW),
        ({**NO_SPACE, "axis_mins": "10 20 30", "axis_maxs": "17 26 35"}, RAW),
        (NO_SPACE, RAW),
        ({"line_skip": "2", "encoding": "raw"}, b"one\ntwo\n" + RAW),
        ({"byte_skip": "5"}, b"12345" + RAW),
        ({"byte_skip": "-1"}, b"any number of bytes" + RAW),
        ({"encoding": "gzip", "byte_skip": "5"}, gzip.compress(b"12345" + RAW)),
        (
            {
                "dimension": "4",
                "sizes": "5 7 6 1",
                "kinds": "vector domain domain domain",
                "space_directions": "none (2,0,0) (0,3,0) (0,0,4)",
            },
            RAW,
        ),
        ({"dimension": "2", "sizes": "7 30", "space": "", "type": "short\nspace dimension: 2", "space_origin": "(1,2)",
          "space_directions": "(0,2) (-3,0)"}, RAW),
    ],
)  # fmt: skip
def test_nrrd_agrees_with_simpleitk(tmp_path, fields, content):
    path = tmp_path / "a.nrrd"
    path.write_bytes(nrrd(**fields) + content)
    if fields.get("dimension") == "4":
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        np.testing.assert_array_equal(read_scan([path]).image, image[0].transpose(2, 1, 0))
    else:
        agrees(path)


def test_a_metaimage_of_text(tmp_path):  # which SimpleITK cannot read
    numbers = " ".join(map(str, voxels().T.ravel())).encode()
    (tmp_path / "a.mha").write_bytes(metaimage(BinaryData="False") + numbers)
    np.testing.assert_array_equal(read_scan([tmp_path / "a.mha"]).image[0], voxels())


def test_bzip2_and_axes_of_components_in_any_position(tmp_path):  # which SimpleITK is built without
    (tmp_path / "a.nrrd").write_bytes(nrrd(encoding="bz2") + bz2.compress(RAW))
    np.testing.assert_array_equal(read_scan([tmp_path / "a.nrrd"]).image[0], voxels())
    layers = np.random.default_rng(0).integers(0, 9, (3, 4, 5, 2)).astype("<i2")
    for axis in range(4):
        sizes = [*layers.shape[:3]]
        sizes.insert(axis, 2)
        directions = ["(2,0,0)", "(0,3,0)", "(0,0,4)"]
        directions.insert(axis, "none")
        header = nrrd(dimension="4", sizes=" ".join(map(str, sizes)), space_directions=" ".join(directions), kinds="")
        path = tmp_path / f"{axis}.nrrd"
        path.write_bytes(header + np.moveaxis(layers, -1, axis).tobytes("F"))
        np.testing.assert_array_equal(read_scan([path]).image, np.moveaxis(layers, -1, 0))


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
@pytest.mark.parametrize("files", ["s%02d.raw 5 1 -1", "s%d.raw 1 5 1", "LIST\ns1.raw\ns2.raw\ns3.raw\ns4.raw\ns5.raw"])
def test_slices_in_files_of_their_own(tmp_path, name, files):
    for number, plane in enumerate(voxels().T, 1):
        for text in (f"s{number}.raw", f"s{number:02d}.raw"):
            (tmp_path / text).write_bytes(plane.tobytes())
    path = tmp_path / name
    path.write_bytes((metaimage(ElementDataFile=files) if name == "a.mhd" else nrrd(data_file=files)).rstrip() + b"\n")
    expected = voxels()[:, :, ::-1] if "-1" in files else voxels()
    np.testing.assert_array_equal(read_scan([path]).image[0], expected)
    assert len(on_disk(path)) == 6


@pytest.mark.parametrize("skip", ["10", "-1"])
def test_bytes_before_the_voxels_of_a_metaimage(tmp_path, skip):
    (tmp_path / "a.raw").write_bytes(b"0123456789" + RAW)
    (tmp_path / "a.mhd").write_bytes(metaimage(HeaderSize=skip, ElementDataFile="a.raw"))
    agrees(tmp_path / "a.mhd")


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_one_wrong_byte_of_a_packed_image_is_an_error(tmp_path, name):
    header = metaimage(CompressedData="True") if name == "a.mha" else nrrd(encoding="gzip")
    packed = zlib.compress(RAW) if name == "a.mha" else gzip.compress(RAW)
    path = tmp_path / name
    path.write_bytes(header + packed)
    np.testing.assert_array_equal(read_mask(path), voxels())
    for place in range(20, len(packed)):
        path.write_bytes(header + packed[:place] + bytes([packed[place] ^ 16]) + packed[place + 1 :])
        with pytest.raises(MedsegError, match=rf"{name}: no readable (MetaImage|NRRD) file"):
            read_mask(path)
    path.write_bytes(header + packed[:40] + bytes(min(50, len(packed) - 48)) + packed[90:])
    with pytest.raises(MedsegError, match="no readable"):
        read_mask(path)
