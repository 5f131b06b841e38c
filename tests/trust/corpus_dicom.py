"""Odd and damaged DICOM series and zip archives of them, as ``corpus`` has them.

Voxels that are expected are known by construction; where a folder holds one whole series, SimpleITK (GDCM) must have
read the same when the sample was made.
"""

import struct
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from trust.corpus import Sample, dicom_file, written

ROWS, COLUMNS, SLICES = 6, 7, 5
STORED = np.random.default_rng(5).integers(0, 4000, (SLICES, ROWS, COLUMNS)).astype("<u2")
VOXELS = STORED.transpose(2, 1, 0)[None]  # (1, columns, rows, slices)


def series(
    folder: Path, stored: NDArray[Any] = STORED, step: tuple[float, float, float] = (0, 0, 4), **values: Any
) -> Path:
    """Write a series, a file a slice, in an order that is not that of their names; values may be lists, one a slice."""
    for number, pixels in enumerate(stored):
        of_slice = {
            "SOPInstanceUID": f"1.2.3.{number + 1}",
            "InstanceNumber": 100 - number,
            "ImagePositionPatient": [f"{number * length:.6f}" for length in step],
            "PixelData": pixels.tobytes(),
        }
        of_slice |= {key: value[number] if isinstance(value, tuple) else value for key, value in values.items()}
        dicom_file(folder / f"{(number * 3) % len(stored):02}.dcm", **of_slice)
    return folder


def confirmed(path: Path, expected: NDArray[Any]) -> Sample:
    """Return the sample of a whole series after SimpleITK has read the same of it; it sorts slices by position."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
    read = SimpleITK.GetArrayFromImage(reader.Execute())  # (slices, rows, columns)
    np.testing.assert_array_equal(read.transpose(2, 1, 0)[None], expected)
    return Sample(path.name, path, expected)


def dicom_series(folder: Path) -> Iterator[Sample]:
    """Series: order, gaps, copies, directions, tilt, signs, scales, packing, byte orders; mixed folders."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

    yield confirmed(series(folder / "good"), VOXELS)
    yield confirmed(series(folder / "implicit", syntax=ImplicitVRLittleEndian), VOXELS)
    yield Sample("deflated", series(folder / "deflated", syntax=DeflatedExplicitVRLittleEndian), VOXELS)
    yield confirmed(series(folder / "backwards", step=(0, 0, -4)), VOXELS[..., ::-1])
    yield confirmed(series(folder / "not_square", PixelSpacing=["0.5", "2.5"]), VOXELS)
    yield Sample("tilted", series(folder / "tilted", step=(0, 1.5, 4)), VOXELS)
    sagittal = ["0", "1", "0", "0", "0", "-1"]  # rows run down, columns to the back: the normal leads to the right
    yield confirmed(series(folder / "sagittal", step=(-3, 0, 0), ImageOrientationPatient=sagittal), VOXELS)
    signed = (STORED.astype(np.int32) - 2000).astype("<i2")
    rescaled = {"RescaleSlope": "2", "RescaleIntercept": "-1024"}
    negative = signed.transpose(2, 1, 0)[None]
    yield confirmed(series(folder / "signed", signed, PixelRepresentation=1), negative)
    yield confirmed(series(folder / "rescaled", **rescaled), VOXELS * 2.0 - 1024)
    both = series(folder / "signed_rescaled", signed, PixelRepresentation=1, **rescaled)
    yield confirmed(both, negative * 2.0 - 1024)
    slopes = tuple(str(number + 1) for number in range(SLICES))
    scaled = series(folder / "slopes", RescaleSlope=slopes, RescaleIntercept="0")
    yield Sample("slopes", scaled, VOXELS * np.arange(1.0, SLICES + 1))
    twelve = series(folder / "bits12", BitsStored=12, HighBit=11)
    yield confirmed(twelve, VOXELS)
    inverted = series(folder / "monochrome1", PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    yield Sample("monochrome1", inverted, 4095 - VOXELS.astype(int))
    bytes_ = (STORED & 255).astype("u1")
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    even = np.pad(bytes_, ((0, 0), (0, 0), (0, 1)))  # of 8 columns, so that the length is even
    yield confirmed(series(folder / "bits8", even, Columns=8, **eight), even.transpose(2, 1, 0)[None])
    for name, text in {"latin1": "Müller^Jörg", "undeclared": "M\xfcller"}.items():
        charset = {"SpecificCharacterSet": "ISO_IR 100"} if name == "latin1" else {}
        yield Sample(name, series(folder / name, PatientName=text, **charset), VOXELS)
    yield Sample("big_endian", _big_endian(folder / "big_endian"), VOXELS)
    yield Sample("no_preamble", _without_preamble(folder / "no_preamble"), VOXELS)
    yield Sample("packed", _packed(folder / "packed"), VOXELS)
    yield from _colours(folder)
    yield from _wrong_series(folder)
    yield from _enhanced(folder)


def _wrong_series(folder: Path) -> Iterator[Sample]:
    gap = series(folder / "gap")
    next(path for path in sorted(gap.iterdir()) if _position(path) == 8).unlink()
    yield Sample("gap", gap, cause="1 slices are missing, at 8.00 mm")
    copy = series(folder / "copy")
    (copy / "copy.dcm").write_bytes((copy / "00.dcm").read_bytes())
    yield Sample("copy", copy, VOXELS)
    other = series(folder / "one_place_twice")
    dicom_file(other / "other.dcm", SOPInstanceUID="1.9", PixelData=(STORED[0] + 1).tobytes())
    yield Sample("one_place_twice", other, cause="6 slices lie at 5 places")
    echoes = series(folder / "echoes", EchoTime="10")
    for number in range(SLICES):
        place = {"ImagePositionPatient": ["0", "0", str(4 * number)], "EchoTime": "20"}
        dicom_file(echoes / f"second{number}.dcm", SOPInstanceUID=f"1.9.{number}", **place)
    yield Sample("echoes", echoes, cause="EchoTime: 10, 20")
    uneven = tuple(["0", "0", place] for place in ("0", "4", "8", "13.5", "17"))
    yield Sample("uneven", series(folder / "uneven", ImagePositionPatient=uneven), cause="do not lie evenly")
    yield Sample("places_equal", series(folder / "places_equal", step=(0, 0, 0)), cause="at 1 places")
    placeless = series(folder / "no_position", ImagePositionPatient=None)
    yield Sample("no_position", placeless, cause="5 images")
    yield Sample("no_direction", series(folder / "no_direction", ImageOrientationPatient=None), cause="no position")
    yield Sample("no_spacing", series(folder / "no_spacing", PixelSpacing=None), cause="PixelSpacing")
    yield Sample("spacing_0", series(folder / "spacing_0", PixelSpacing=["0", "1"]), cause="PixelSpacing")
    two = series(folder / "two_series")
    for number in range(SLICES):
        place = {"ImagePositionPatient": ["0", "0", str(4 * number)], "SeriesInstanceUID": "1.2.2"}
        dicom_file(two / f"second{number}.dcm", SOPInstanceUID=f"1.9.{number}", **place)
    yield Sample("two_series", two, cause="holds 2 images")
    coronal = ["1", "0", "0", "0", "0", "-1"]
    turned = tuple(coronal if number == 2 else ["1", "0", "0", "0", "1", "0"] for number in range(SLICES))
    yield Sample("directions", series(folder / "directions", ImageOrientationPatient=turned), cause="holds 2 images")
    sizes = series(folder / "sizes")
    dicom_file(sizes / "other.dcm", SOPInstanceUID="1.9", Rows=7, Columns=6, ImagePositionPatient=["0", "0", "20"])
    yield Sample("sizes", sizes, cause="holds 2 images")
    nan = ("0", "nan", "0", "0", "0")
    yield Sample("slope_nan", series(folder / "slope_nan", RescaleSlope=nan, RescaleIntercept="0"))
    short = tuple(pixels.tobytes()[: 84 - 40 * (number == 3)] for number, pixels in enumerate(STORED))
    yield Sample("pixels_short", series(folder / "pixels_short", PixelData=short))
    cut = series(folder / "slice_cut")
    (cut / "00.dcm").write_bytes((cut / "00.dcm").read_bytes()[:-30])
    yield Sample("slice_cut", cut)
    text = series(folder / "slice_of_text")
    (text / "00.dcm").write_bytes(b"no slice " * 50)
    yield Sample("slice_of_text", text)
    empty = series(folder / "slice_empty")
    (empty / "00.dcm").write_bytes(b"")
    yield Sample("slice_empty", empty)


def _position(path: Path) -> float:
    import pydicom

    return float(pydicom.dcmread(path).ImagePositionPatient[2])


def _big_endian(folder: Path) -> Path:
    """Write a series whose numbers are all in the other byte order."""
    import pydicom
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import ExplicitVRBigEndian

    for path in series(folder).iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dcmwrite(path, dataset, implicit_vr=False, little_endian=False, overwrite=True)
    return folder


def _without_preamble(folder: Path) -> Path:
    """Write a series as files of before 1993: from the first element on."""
    import pydicom
    from pydicom.filewriter import dcmwrite

    for path in series(folder).iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        dataset.preamble = None
        dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
    return folder


def _packed(folder: Path) -> Path:
    """Write a series in RLE."""
    import pydicom
    from pydicom.uid import RLELossless

    for path in series(folder).iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    return folder


def _colours(folder: Path) -> Iterator[Sample]:
    """Colours by pixel and by plane, in two numbers of bits and with a palette that is missing."""
    colours = np.random.default_rng(6).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)
    expected = colours.transpose(2, 1, 0)
    eight = {"SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Modality": "US"}
    planes = np.ascontiguousarray(colours.transpose(2, 0, 1))
    for name, planar, stored in (("by_pixel", 0, colours), ("by_plane", 1, planes)):
        values = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": planar, "PixelData": stored.tobytes()}
        path = folder / f"{name}.dcm"
        dicom_file(path, **eight, **values)
        read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        np.testing.assert_array_equal(read.reshape(colours.shape), colours)
        yield Sample(path.name, path, expected)
    path = folder / "no_palette.dcm"
    dicom_file(path, PhotometricInterpretation="PALETTE COLOR")
    yield Sample(path.name, path)


def _enhanced(folder: Path) -> Iterator[Sample]:
    """Multi-frame objects: frames in any order, without a place, at one place, and fewer pixels than frames."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import EnhancedCTImageStorage, RLELossless

    def item(**values: Any) -> Any:
        dataset = Dataset()
        for key, value in values.items():
            setattr(dataset, key, value)
        return dataset

    def frames(places: list[float] | None) -> dict[str, Any]:
        measures = item(PixelSpacing=["2", "3"], SliceThickness="4")
        plane = item(ImageOrientationPatient=["1", "0", "0", "0", "1", "0"])
        shared = item(PixelMeasuresSequence=Sequence([measures]), PlaneOrientationSequence=Sequence([plane]))
        own = [
            item(PlanePositionSequence=Sequence([item(ImagePositionPatient=["0", "0", str(place)])]))
            for place in places or ()
        ]
        return {
            "SOPClassUID": EnhancedCTImageStorage,
            "NumberOfFrames": SLICES,
            "SharedFunctionalGroupsSequence": Sequence([shared]),
            "PerFrameFunctionalGroupsSequence": Sequence(own),
            "PixelData": STORED.tobytes(),
            **dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")),
        }

    shuffled = [8.0, 0.0, 16.0, 4.0, 12.0]
    samples: dict[str, tuple[dict[str, Any], Any, str]] = {
        "frames": (frames([0, 4, 8, 12, 16]), VOXELS, ""),
        "frames_shuffled": (frames(shuffled), VOXELS[..., np.argsort(shuffled)], ""),
        "frames_placeless": (frames(None), "refused", "no position"),
        "frames_few_places": (frames([0, 4, 8]), "refused", "no position"),
        "frames_one_place": (frames([0] * SLICES), "refused", "at 1 places"),
        "frames_gap": (frames([0, 4, 8, 16, 20]), "refused", "missing"),
        "frames_more": (frames([0, 4, 8, 12, 16]) | {"NumberOfFrames": 50}, "refused", ""),
        "frames_fewer_pixels": (frames([0, 4, 8, 12, 16]) | {"PixelData": STORED[:3].tobytes()}, "refused", ""),
    }
    for name, (values, expected, cause) in samples.items():
        path = folder / f"{name}.dcm"
        dicom_file(path, **values)
        yield Sample(path.name, path, expected, cause)
    path = folder / "frames_rle.dcm"
    dicom_file(path, **frames([0, 4, 8, 12, 16]))
    import pydicom

    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    yield Sample(path.name, path, VOXELS)


# ---- archives


def archived(files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip file of these members, whatever their names."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    return stream.getvalue()


def archives(folder: Path) -> Iterator[Sample]:
    """Zip files: of one series, nested, with names that lead out, encrypted, cut, changed, bombs, other packing."""
    made = series(folder / "made")
    slices = {path.name: path.read_bytes() for path in sorted(made.iterdir())}
    good = archived(slices)
    names = {
        "plain": slices,
        "stored": slices,
        "folders": {f"a/b ü/{name}": content for name, content in slices.items()},
        "hidden": slices | {"__MACOSX/._00.dcm": b"x", ".DS_Store": b"y"},
        "beside_text": slices | {"readme.txt": b"hello", "README": b"hello", "DICOMDIR": b"none"},
        "absolute": slices | {"/etc/passwd.dcm": slices["00.dcm"]},
        "leads_out": slices | {"../../out.dcm": slices["00.dcm"], "a/../../../b.dcm": slices["00.dcm"]},
        "backslashes": slices | {"..\\..\\out.dcm": slices["00.dcm"]},  # a name without a folder: a slice twice
        "nested": slices | {"inner.zip": good},
    }
    for name, files in names.items():
        packing = zipfile.ZIP_STORED if name == "stored" else zipfile.ZIP_DEFLATED
        yield written(folder, f"{name}.zip", archived(files, packing), VOXELS)
    for packing, number in {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}.items():
        yield written(folder, f"{packing}.zip", archived(slices, number), VOXELS)
    unnamed = archived(slices | {"~none": b"x"}).replace(b"~none", b"\0none")  # zipfile ends a name at a zero byte
    yield written(folder, "unnamed.zip", unnamed, VOXELS)
    yield written(folder, "behind_text.zip", b"#!/bin/sh\n" * 20 + good, VOXELS)
    yield written(folder, "nested_alone.zip", archived({"inner.zip": good}), cause="no DICOM")
    yield written(folder, "empty.zip", archived({}))
    yield written(folder, "text.zip", archived({"a.txt": b"hello"}))
    yield written(folder, "nifti.zip", archived({"a.nii": b"\0" * 400}))
    other = {f"b{name}": content.replace(b"UI\6\0001.2.1\0", b"UI\6\0001.2.2\0") for name, content in slices.items()}
    yield written(folder, "two.zip", archived(slices | other), cause="holds 2 images")
    encrypted = bytearray(good)
    for place in _places(good, b"PK\3\4", 6) + _places(good, b"PK\1\2", 8):
        encrypted[place] |= 1
    yield written(folder, "encrypted.zip", bytes(encrypted), cause="encrypted")
    unknown = bytearray(good)
    for place in _places(good, b"PK\3\4", 8) + _places(good, b"PK\1\2", 10):
        unknown[place : place + 2] = struct.pack("<H", 99)
    yield written(folder, "packing99.zip", bytes(unknown))
    large = bytearray(good)
    for place in _places(good, b"PK\1\2", 24):
        large[place : place + 4] = struct.pack("<I", 2**32 - 2)
    yield written(folder, "claims.zip", bytes(large), cause="unpack to")
    packed = bytearray(archived(slices, zipfile.ZIP_STORED))
    for place in _places(bytes(packed), b"PK\1\2", 20):
        packed[place : place + 4] = struct.pack("<I", 2**31)
    yield written(folder, "claims_packed.zip", bytes(packed), cause="more bytes than the file")
    yield written(folder, "bomb.zip", archived(slices | {"zeros.dcm": b"\0" * (1 << 29)}), cause="unpack to")
    for length in np.linspace(1, len(good) - 1, 15).astype(int):
        yield written(folder, f"cut{length}.zip", good[:length])
    begin = good.index(b"PK\3\4") + 60
    for place in np.linspace(begin, begin + 200, 8).astype(int):
        flipped = good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :]
        yield written(folder, f"flip{place}.zip", flipped)
    yield written(folder, "twice_named.zip", _twice(slices), "either")


def _places(content: bytes, signature: bytes, offset: int) -> list[int]:
    """Return where a field of each of a zip file's headers is."""
    found, place = [], content.find(signature)
    while place >= 0:
        found.append(place + offset)
        place = content.find(signature, place + 1)
    return found


def _twice(files: dict[str, bytes]) -> bytes:
    """Return a zip file with a name that two members have."""
    import warnings

    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in [*files.items(), *files.items()]:
            archive.writestr(name, content)
    return stream.getvalue()


FAMILIES = (dicom_series, archives)
