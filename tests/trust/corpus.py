"""Odd and damaged inputs, seeded: a function for each family yields ``Sample``s, which it writes below a folder.

To extend it, write a further function of the form ``family(folder) -> Iterator[Sample]`` and add it to ``FAMILIES``.
``tests/trust/test_corpus.py`` reads every sample in a process of limited memory.
"""

import bz2
import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHAPE = (7, 6, 5)


@dataclass(frozen=True)
class Sample:
    """An input and what must come of it.

    ``expected`` holds the voxels (C, *spatial) that must be read; "refused": a ``MedsegError`` with the file's name;
    "either": one of these, where a good reader may do the one or the other, such as with a flipped byte in a comment.
    ``cause`` is a part of the message. ``tolerance`` is how far voxels may be from those expected, where lossy packing
    leaves it to the reader.
    """

    name: str
    path: Path
    expected: NDArray[Any] | Literal["refused", "either"] = "refused"
    cause: str = ""
    kind: Literal["scan", "table", "mask"] = "scan"
    tolerance: float = 0


def voxels(dtype: str = "<i2") -> NDArray[Any]:
    """Return the voxels of the family's good image, which no two axes share the length of."""
    return np.random.default_rng(7).integers(0, 100, SHAPE).astype(dtype)


# ---- NIfTI


def nifti_bytes(data: NDArray[Any] | None = None, kind: Any = nib.Nifti1Image) -> bytes:
    """Return a good file, uncompressed."""
    return kind(voxels() if data is None else data, np.diag([2.0, 3, 4, 1])).to_bytes()


def with_fields(content: bytes, kind: Any = nib.Nifti1Header, **values: Any) -> bytes:
    """Return a file with other values of its header's fields, unchecked."""
    size = kind.template_dtype.itemsize
    header = np.frombuffer(bytearray(content[:size]), kind.template_dtype).copy()
    for name, value in values.items():
        header[name] = value
    return header.tobytes() + content[size:]


NAN, INF = float("nan"), float("inf")
ROWS = {f"srow_{axis}": [NAN] * 4 for axis in "xyz"}
ROWS_OF = {
    length: {"srow_x": [length, 0, 0, 0], "srow_y": [0, length, 0, 0], "srow_z": [0, 0, length, 0]}
    for length in (1e-30, 1e30)
}
FLAT = {"srow_x": [1, 0, 0, 0], "srow_y": [2, 0, 0, 0], "srow_z": [0, 0, 1, 0], "sform_code": 1}

HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "dims_0": ({"dim": [0, 7, 6, 5, 1, 1, 1, 1]}, ""),
    "dims_1": ({"dim": [1, 210, 1, 1, 1, 1, 1, 1]}, ""),
    "dims_8": ({"dim": [8, 7, 6, 5, 1, 1, 1, 1]}, ""),
    "dims_minus": ({"dim": [-3, 7, 6, 5, 1, 1, 1, 1]}, ""),
    "axis_0": ({"dim": [3, 7, 0, 5, 1, 1, 1, 1]}, "at least 1"),
    "axis_minus": ({"dim": [3, 7, -6, 5, 1, 1, 1, 1]}, ""),
    "axes_large": ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "read.max_gb"),
    "axes_beyond": ({"dim": [3, 70, 60, 50, 1, 1, 1, 1]}, "holds at most"),
    "axes_7": ({"dim": [7, 1, 1, 1, 7, 6, 5, 1]}, "is no scan"),
    "freesurfer": ({"dim": [3, -1, 1, 1, 1, 1, 1, 1], "glmin": 2**31 - 1}, "read.max_gb"),
    "icosahedron": ({"dim": [3, 27307, 1, 6, 1, 1, 1, 1]}, ""),
    "datatype_unknown": ({"datatype": 999}, ""),
    "datatype_bits": ({"datatype": 1, "bitpix": 1}, ""),
    "datatype_complex": ({"datatype": 32, "bitpix": 64, "dim": [3, 7, 6, 1, 1, 1, 1, 1]}, "complex"),
    "offset_beyond": ({"vox_offset": 1e6}, "holds at most"),
    "offset_far": ({"vox_offset": 3e38}, "voxels begin"),
    "offset_minus": ({"vox_offset": -352}, ""),
    "offset_nan": ({"vox_offset": NAN}, ""),
    "offset_0": ({"vox_offset": 0}, "voxels begin"),
    "intercept_nan": ({"scl_slope": 2, "scl_inter": NAN}, "intercept"),
    "intercept_inf": ({"scl_slope": 2, "scl_inter": INF}, "intercept"),
    "slope_large": ({"scl_slope": 3e38, "scl_inter": 0}, "infinite"),
    "srow_nan": ({"sform_code": 1, **ROWS}, "singular"),
    "srow_inf": ({"sform_code": 1, "srow_x": [INF, 0, 0, 0]}, "singular"),
    "srow_0": ({"sform_code": 1, "srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4}, "singular"),
    "srow_flat": (FLAT, "singular"),
    "srow_tiny": ({"sform_code": 1, **ROWS_OF[1e-30]}, "mm long"),
    "srow_huge": ({"sform_code": 1, **ROWS_OF[1e30]}, "mm long"),
    "quaternion_long": ({"sform_code": 0, "qform_code": 1, "quatern_b": 2, "quatern_c": 3}, ""),
    "quaternion_nan": ({"sform_code": 0, "qform_code": 1, "quatern_b": NAN}, ""),
    "pixdim_nan": ({"sform_code": 0, "qform_code": 1, "pixdim": [1, NAN, 1, 1, 1, 1, 1, 1]}, ""),
    "pixdim_0": ({"sform_code": 0, "qform_code": 1, "pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, ""),
    "unit_7": ({"xyzt_units": 7}, "code 7"),
    "unit_4": ({"xyzt_units": 4}, "code 4"),
    "magic_pair": ({"magic": b"ni1\0"}, ".hdr and .img"),
    "magic_none": ({"magic": b""}, ""),
    "magic_other": ({"magic": b"xx1\0"}, ""),
    "size": ({"sizeof_hdr": 349}, ""),
}
"""Fields that make a header one of no scan, and the cause to be named."""

TAKEN: dict[str, dict[str, Any]] = {
    "slope_0": {"scl_slope": 0, "scl_inter": 5},
    "slope_nan": {"scl_slope": NAN, "scl_inter": NAN},
    "codes_0": {"sform_code": 0, "qform_code": 0},
    "codes_99": {"sform_code": 99, "qform_code": 0},
    "unit_of_time_unknown": {"xyzt_units": 2 | 56},
    "intent_vector": {"intent_code": 1007},
    "intent_unknown": {"intent_code": 9999},
    "cal_nan": {"cal_max": NAN, "cal_min": INF},
    "slices_odd": {"slice_end": -1, "slice_code": 77, "slice_duration": NAN},
    "text_full": {"descrip": b"\xff" * 80, "aux_file": b"\x01" * 24},
}
"""Fields that are odd, but change no voxel."""


def nifti_headers(folder: Path) -> Iterator[Sample]:
    """Fields of the header that are wrong, and odd ones that must not matter; each plain and compressed."""
    for name, (fields, cause) in HEADERS.items():
        yield written(folder, f"{name}.nii", with_fields(nifti_bytes(), **fields), cause=cause)
        yield written(folder, f"{name}.nii.gz", gzip.compress(with_fields(nifti_bytes(), **fields)), cause=cause)
    for name, fields in TAKEN.items():
        yield written(folder, f"{name}.nii", with_fields(nifti_bytes(), **fields), voxels()[None])


def nifti_forms(folder: Path) -> Iterator[Sample]:
    """Byte orders, NIfTI-2, colours, extensions, and a suffix that tells of another compression."""
    good, image = nifti_bytes(), voxels()[None]
    swapped = nib.Nifti1Image(voxels(">i2"), np.eye(4), nib.Nifti1Header(endianness=">"))
    yield written(folder, "big.nii", swapped.to_bytes(), image)
    yield written(folder, "two.nii.gz", gzip.compress(nifti_bytes(kind=nib.Nifti2Image)), image)
    yield written(folder, "packed.nii", gzip.compress(good), image)
    yield written(folder, "plain.nii.gz", good, image)
    yield written(folder, "members.nii.gz", gzip.compress(good[:400]) + gzip.compress(good[400:]), image)
    yield written(folder, "behind.nii", good + b"\0" * 1000, image)
    yield written(folder, "behind.nii.gz", gzip.compress(good + b"\0" * 1000), image)
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"], colours["B"] = voxels("u1"), 3
    planes = np.stack([voxels("u1"), np.zeros(SHAPE), np.full(SHAPE, 3)])
    yield written(folder, "colours.nii", nib.Nifti1Image(colours, np.eye(4)).to_bytes(), planes)
    extended = nib.Nifti1Image(voxels(), np.eye(4))
    extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 500))
    content = extended.to_bytes()
    yield written(folder, "extended.nii", content, image)
    for size in (0, 3, 2**31 - 1, -1):
        yield written(folder, f"extension_{size}.nii", content[:352] + struct.pack("<i", size) + content[356:], image)
    large = with_fields(nifti_bytes(kind=nib.Nifti2Image), nib.Nifti2Header, dim=[3, 2**40, 2**40, 5, 1, 1, 1, 1])
    yield written(folder, "two_large.nii", large, cause="read.max_gb")
    far = with_fields(nifti_bytes(kind=nib.Nifti2Image), nib.Nifti2Header, vox_offset=2**62)
    yield written(folder, "two_far.nii.gz", gzip.compress(far), cause="voxels begin")


def cuts(folder: Path) -> Iterator[Sample]:
    """Files cut at many places, each format."""
    for name, (content, _) in good_files().items():
        lengths = {1, 2, 3, 4, 100, 131, 347, 348, 351, *np.linspace(8, len(content) - 1, 12).astype(int).tolist()}
        tail = 0 if name.endswith((".nii", ".gz", ".mha")) else 5  # bytes that may be padding, or digits of a number
        for length in sorted(length for length in lengths if length < len(content)):
            expected: Any = "either" if length > len(content) - tail else "refused"
            yield written(folder, f"{length}_{name}", content[:length], expected)
        yield written(folder, f"0_{name}", b"", cause="empty")


def flips(folder: Path) -> Iterator[Sample]:
    """Packed files with a byte inverted in the middle of their voxels: checksums tell."""
    for name, (content, start) in good_files().items():
        if start is None:
            continue
        for place in np.linspace(start, len(content) - 1, 8).astype(int):
            flipped = content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
            yield written(folder, f"flip{place}_{name}", flipped)


def good_files() -> dict[str, tuple[bytes, int | None]]:
    """Return a good file of each format, and where its packed voxels begin, None where they are not packed."""
    raw = np.ascontiguousarray(voxels().T).tobytes()
    packed = zlib.compress(raw)
    mha = metaimage(CompressedData="True", CompressedDataSize=str(len(packed)))
    return {
        "a.nii": (nifti_bytes(), None),
        "a.nii.gz": (gzip.compress(nifti_bytes(), mtime=0), 12),
        "a.mha": (metaimage() + raw, None),
        "packed.mha": (mha + packed, len(mha)),
        "a.nrrd": (nrrd() + raw, None),
        "packed.nrrd": (nrrd(encoding="gzip") + gzip.compress(raw, mtime=0), len(nrrd(encoding="gzip")) + 12),
        "bz2.nrrd": (nrrd(encoding="bzip2") + bz2.compress(raw), len(nrrd(encoding="bzip2"))),
        "text.nrrd": (nrrd(encoding="text") + " ".join(map(str, voxels().T.ravel())).encode(), None),
        **{f"a.{kind}": (picture(kind), None) for kind in ("png", "jpg", "tif", "bmp")},
    }


def picture(kind: str) -> bytes:
    """Return a small picture."""
    from io import BytesIO

    stream = BytesIO()
    grey = np.random.default_rng(7).integers(0, 255, (40, 30)).astype(np.uint8)
    Image.fromarray(grey).save(stream, {"jpg": "jpeg", "tif": "tiff"}.get(kind, kind))
    return stream.getvalue()


# ---- MetaImage and NRRD


def metaimage(**fields: str) -> bytes:
    """Return a header of the good image, with other values of its fields; "" leaves one out."""
    values = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "2 3 4",
        "DimSize": " ".join(map(str, SHAPE)),
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    } | fields
    last = values.pop("ElementDataFile")
    lines = [f"{name} = {value}" for name, value in values.items() if value] + [f"ElementDataFile = {last}"]
    return "".join(f"{line}\n" for line in lines).encode()


def nrrd(**fields: str) -> bytes:
    """Return a header of the good image, likewise; ``_`` in names stands for a space."""
    values = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, SHAPE)),
        "space_directions": "(2,0,0) (0,3,0) (0,0,4)",
        "endian": "little",
        "encoding": "raw",
        "space_origin": "(0,0,0)",
    } | fields
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in values.items() if value]
    return ("NRRD0004\n" + "".join(f"{line}\n" for line in lines) + "\n").encode()


WRONG_METAIMAGE: dict[str, dict[str, str]] = {
    **{f"dims_{dims}": {"NDims": dims} for dims in ("99", "0", "-1", "1", "4", "10000000000", "three", "")},
    **{
        f"size_{number}": {"DimSize": size}
        for number, size in enumerate(
            ["0 6 5", "-7 6 5", "7 6", "7 6 5 4", "a b c", "1e3 6 5", "99999 99999 99999", ""]
        )
    },
    **{
        f"type_{number}": {"ElementType": kind}
        for number, kind in enumerate(["MET_OTHER", "MET_NONE", "MET_STRING", "", "MET_SHORT_ARRAY"])
    },
    "channels_0": {"ElementNumberOfChannels": "0"},
    "channels_many": {"ElementNumberOfChannels": "2000000000"},
    "spacing_0": {"ElementSpacing": "0 3 4"},
    "spacing_minus": {"ElementSpacing": "-2 3 4"},
    "spacing_nan": {"ElementSpacing": "nan 3 4"},
    "matrix_0": {"TransformMatrix": "0 0 0 0 0 0 0 0 0"},
    "matrix_short": {"TransformMatrix": "1 0 0 0 1"},
    "matrix_inf": {"TransformMatrix": "inf 0 0 0 1 0 0 0 1"},
    "origin_nan": {"Offset": "0 nan 0"},
    "packed_not": {"CompressedData": "True"},
    "text_not": {"BinaryData": "False"},
    "object": {"ObjectType": "Tube"},
    "no_file": {"ElementDataFile": ""},
    "missing": {"ElementDataFile": "not_there.raw"},
    "pipe": {"ElementDataFile": "pipe"},
    "folder": {"ElementDataFile": "."},
    "name_long": {"ElementDataFile": "x" * 5000},
    "name_nul": {"ElementDataFile": "a\0b"},
    "many_files": {"ElementDataFile": "s%d.raw 1 1000000000 1"},
    "wide_names": {"ElementDataFile": "s%0999999999d.raw 1 5 1"},
    "step_0": {"ElementDataFile": "s%d.raw 1 5 0"},
    "list_empty": {"ElementDataFile": "LIST"},
    "skip_far": {"HeaderSize": "999999999999"},
}

WRONG_NRRD: dict[str, dict[str, str]] = {
    **{f"dimension_{dims}": {"dimension": dims} for dims in ("99", "0", "-1", "1", "2", "4", "10000000000", "x", "")},
    **{
        f"sizes_{number}": {"sizes": size}
        for number, size in enumerate(["0 6 5", "-7 6 5", "7 6", "7 6 5 4", "a b c", "99999 99999 99999", ""])
    },
    **{f"type_{number}": {"type": kind} for number, kind in enumerate(["block", "string", "", "half"])},
    **{f"encoding_{number}": {"encoding": kind} for number, kind in enumerate(["zip", "", "gzip", "bzip2", "hex"])},
    "endian_none": {"endian": ""},
    "endian_odd": {"endian": "middle"},
    "directions_0": {"space_directions": "(0,0,0) (0,0,0) (0,0,0)"},
    "directions_nan": {"space_directions": "(nan,0,0) (0,3,0) (0,0,4)"},
    "directions_inf": {"space_directions": "(inf,0,0) (0,3,0) (0,0,4)"},
    "directions_few": {"space_directions": "(2,0,0) (0,3,0)"},
    "directions_short": {"space_directions": "(2,0) (0,3) (0,4)"},
    "directions_text": {"space_directions": "a b c"},
    "directions_none": {"space_directions": "none none (0,0,4)"},
    "origin_short": {"space_origin": "(0,0)"},
    "origin_inf": {"space_origin": "(inf,0,0)"},
    "space_odd": {"space": "up-down-strange"},
    "kinds_few": {"kinds": "domain domain"},
    "kinds_lists": {"kinds": "list list domain"},
    "spacings_0": {"space_directions": "", "space": "", "space_origin": "", "spacings": "0 3 4"},
    "spacings_minus": {"space_directions": "", "space": "", "space_origin": "", "spacings": "-2 3 4"},
    "skip_far": {"byte_skip": "999999999999"},
    "skip_minus": {"byte_skip": "-2"},
    "lines_far": {"line_skip": "1000000"},
    "missing": {"data_file": "not_there.raw"},
    "pipe": {"data_file": "pipe"},
    "many_files": {"data_file": "s%d.raw 1 1000000000 1"},
    "wide_names": {"data_file": "s%0999999999d.raw 1 5 1"},
    "step_0": {"data_file": "s%d.raw 1 5 0"},
    "no_field": {"sizes": "7 6 5\nnonsense"},
    "twice": {"sizes": "7 6 5\nsizes: 7 6 5"},
}


TWICE = {
    "twice": [("DimSize", "5 4 3")],
    "spacing_twice": [("ElementSpacing", "9 9 9")],
    "two_origins": [("Origin", "5 5 5"), ("Position", "1 1 1")],
    "two_directions": [("Rotation", "1 0 0 0 1 0 0 0 1"), ("Orientation", "-1 0 0 0 -1 0 0 0 1")],
}
"""Fields of a MetaImage that contradict others, of which readers take either."""


def itk_headers(folder: Path) -> Iterator[Sample]:
    """Wrong headers of MetaImage and NRRD, with the voxels in the file and apart."""
    raw = np.ascontiguousarray(voxels().T).tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "pipe")
    (folder / "voxels.raw").write_bytes(raw)
    for name, fields in WRONG_METAIMAGE.items():
        yield written(folder, f"{name}.mha", metaimage(**fields) + raw)
        yield written(folder, f"{name}.mhd", metaimage(**({"ElementDataFile": "voxels.raw"} | fields)))
    for name, fields in WRONG_NRRD.items():
        yield written(folder, f"{name}.nrrd", nrrd(**fields) + raw)
        yield written(folder, f"{name}.nhdr", nrrd(**({"data_file": "voxels.raw"} | fields)))
    for name, fields in TWICE.items():
        lines = "".join(f"{field} = {value}\n" for field, value in fields).encode()
        header = metaimage().replace(b"ElementDataFile", lines + b"ElementDataFile")
        yield written(folder, f"{name}.mha", header + raw)
    yield written(folder, "endless.mha", b"Comment = " + b"x" * (1 << 25))
    yield written(folder, "endless.nrrd", b"NRRD0004\n" + b"# x\n" * (1 << 23))


def bombs(folder: Path) -> Iterator[Sample]:
    """Small files that unpack to a lot."""
    zeros = gzip.compress(b"\0" * (1 << 28), mtime=0)
    many = zeros * 8  # members of 256 MB each
    yield written(folder, "behind.nii.gz", gzip.compress(nifti_bytes(), mtime=0) + many, cause="more than")
    yield written(folder, "behind.nrrd", nrrd(encoding="gzip") + many, cause="more than")
    sizes = {"dim": [3, 32767, 32767, 1, 1, 1, 1, 1], "datatype": 2, "bitpix": 8}
    yield written(folder, "claims.nii.gz", gzip.compress(with_fields(nifti_bytes(), **sizes)), cause="at most")
    yield written(folder, "claims.nrrd", nrrd(encoding="gzip", sizes="999 999 999") + b"\x1f\x8b", cause="at most")
    yield written(folder, "claims.mha", metaimage(CompressedData="True", DimSize="999 999 999"), cause="at most")
    yield written(folder, "zeros.nii.gz", many)
    streams = bz2.compress(b"\0" * (1 << 26)) * 16  # of 64 MB each
    yield written(folder, "zeros.nrrd", nrrd(encoding="bzip2", sizes="1024 1024 1024", type="uint8") + streams)


# ---- names, kinds of files, tables


def names(folder: Path) -> Iterator[Sample]:
    """Suffixes of other formats, and what is no file."""
    suffixes = ("nii", "nii.gz", "mha", "nrrd", "png", "tif")
    contents = good_files()
    image = {kind: voxels()[None] for kind in ("a.nii", "a.nii.gz", "a.mha", "a.nrrd")}
    for own, data in image.items():
        for suffix in suffixes:
            medical = suffix not in ("png", "tif")
            named = f"{own.replace('.', '_')}.{suffix}"
            yield written(folder, named, contents[own][0], data if medical else "refused")
    for kind in ("png", "jpg", "tif", "bmp"):
        for suffix in ("nii", "nii.gz", "mha", "nrrd"):
            yield written(folder, f"{kind}_a.{suffix}", contents[f"a.{kind}"][0], cause="2D image")
    for suffix in ("nii", "nii.gz", "mha", "mhd", "nrrd", "nhdr", "seg.nrrd", "png", "jpg", "tif", "bmp", "dcm", "zip"):
        yield written(folder, f"text.{suffix}", b"hello world\n" * 100)
        yield written(folder, f"zeros.{suffix}", b"\0" * 10_000)
        os.mkfifo(folder / f"pipe.{suffix}")
        yield Sample(f"pipe.{suffix}", folder / f"pipe.{suffix}", cause="pipe")
        (folder / f"folder.{suffix}").mkdir()
        yield Sample(f"folder.{suffix}", folder / f"folder.{suffix}")
        (folder / f"loop.{suffix}").symlink_to(folder / f"loop.{suffix}")
        yield Sample(f"loop.{suffix}", folder / f"loop.{suffix}")
        yield Sample(f"long.{suffix}", folder / f"{'x' * 300}.{suffix}")
    yield Sample("device.nii", Path("/dev/zero"), cause="device")


def tables(folder: Path) -> Iterator[Sample]:
    """Tables of cases."""
    contents = {
        "empty": b"",
        "latin1": "image,label,site\na.nii,b.nii,Köln\n".encode("latin-1"),
        "nul": b"image,label\na\0.nii,b.nii\n",
        "twice": b"image,image,label\na.nii,a.nii,b.nii\n",
        "ragged": b"image,label\na.nii\n",
        "quote": b'image,label\n"a.nii,b.nii\n' + b"x" * 200_000,
        "header": b"image,label\n",
        "no_columns": b"a,b\n1,2\n",
        "utf16": "image,label\na.nii,b.nii\n".encode("utf-16"),
        "binary": bytes(range(256)) * 10,
        "name_long": b"image,label\n" + b"x" * 5000 + b".nii,b.nii\n",
        "absent": b"image,label\nnot_there.nii,b.nii\n",
    }
    for name, content in contents.items():
        yield replace_kind(written(folder, f"{name}.csv", content))
    os.mkfifo(folder / "pipe.csv")
    yield replace_kind(Sample("pipe.csv", folder / "pipe.csv"))
    (folder / "folder.csv").mkdir()
    yield replace_kind(Sample("folder.csv", folder / "folder.csv"))
    yield replace_kind(Sample("long.csv", folder / f"{'x' * 300}.csv"))


def replace_kind(sample: Sample) -> Sample:
    """Return a sample as a table."""
    return Sample(sample.name, sample.path, sample.expected, sample.cause, "table")


# ---- DICOM


def dicom_files(folder: Path) -> Iterator[Sample]:
    """Single DICOM files with sizes, numbers and pixels that do not fit."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

    changes: dict[str, dict[str, Any]] = {
        "frames_many": {"NumberOfFrames": 2**31 - 1},
        "frames_minus": {"NumberOfFrames": -3},
        "large": {"Rows": 65535, "Columns": 65535},
        "rows_0": {"Rows": 0},
        "no_rows": {"Rows": None},
        "bits_odd": {"BitsAllocated": 13},
        "bits_0": {"BitsAllocated": 0},
        "samples_9": {"SamplesPerPixel": 9},
        "photometric_odd": {"PhotometricInterpretation": "STRANGE"},
        "position_nan": {"ImagePositionPatient": ["nan", "0", "0"]},
        "orientation_0": {"ImageOrientationPatient": ["0"] * 6},
        "orientation_inf": {"ImageOrientationPatient": ["inf", "0", "0", "0", "1", "0"]},
        "spacing_nan": {"PixelSpacing": ["nan", "1"]},
        "slope_nan": {"RescaleSlope": "nan", "RescaleIntercept": "0"},
        "slope_inf": {"RescaleSlope": "1e999", "RescaleIntercept": "0"},
        "pixels_few": {"PixelData": b"\0" * 10},
        "pixels_none": {"PixelData": None},
        "frames_many_rle": {"NumberOfFrames": 2**31 - 1, "syntax": RLELossless},
        "large_rle": {"Rows": 65535, "Columns": 65535, "syntax": RLELossless},
        "large_j2k": {"Rows": 65535, "Columns": 65535, "syntax": JPEG2000Lossless},
        "deflated_bomb": {"syntax": DeflatedExplicitVRLittleEndian, "PixelData": b"\0" * 270_000_000},
        "deflated_bomb_late": {
            "uid": f"1.{'2' * 3000}",  # so that the syntax stands far behind the beginning
            "syntax": DeflatedExplicitVRLittleEndian,
            "PixelData": b"\0" * 270_000_000,
        },
        "palette_long": _palette([0, 1, 5] + [1, 65535, 5] * 20_000),
        "palette_repeated": _palette([0, 1, 5] + [number for n in range(40) for number in (2, n + 1, 0, 0)]),
    }
    for name, values in changes.items():
        path = folder / f"{name}.dcm"
        dicom_file(path, **values)
        yield Sample(path.name, path)
    good = folder / "good.dcm"
    dicom_file(good)
    pixels = np.arange(42, dtype=np.uint16).reshape(6, 7).T[None]
    yield Sample("good.dcm", good, pixels)
    segmented = folder / "palette.dcm"  # 0 and 512, in steps to 2560, and all of it once more
    dicom_file(segmented, **_palette([0, 2, 0, 512, 1, 8, 2560, 2, 2, 0, 0], 20))
    palette = np.tile(np.arange(10) + (np.arange(10) > 0), 2)  # as 8 bits
    yield Sample("palette.dcm", segmented, np.repeat(palette[np.minimum(pixels, 19)], 3, axis=0))
    content = good.read_bytes()
    for length in np.linspace(140, len(content) - 2, 10).astype(int):
        yield written(folder, f"cut{length}.dcm", content[:length])


def _palette(numbers: list[int], count: int = 256) -> dict[str, Any]:
    """Return the elements of a palette of 16 bits in segments."""
    colours = ("Red", "Green", "Blue")
    content = np.array(numbers, "<u2").tobytes()
    return {
        "PhotometricInterpretation": "PALETTE COLOR",
        **{f"{colour}PaletteColorLookupTableDescriptor": [count, 0, 16] for colour in colours},
        **{f"Segmented{colour}PaletteColorLookupTableData": content for colour in colours},
    }


def dicom_file(path: Path, **values: Any) -> None:
    """Write a DICOM slice of 6 rows and 7 columns with other values, unchecked; None leaves one out.

    ``syntax`` and ``uid`` are of the file meta information.
    """
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, values.pop("uid", "1.2.3")
    meta.TransferSyntaxUID = values.pop("syntax", ExplicitVRLittleEndian)
    dataset = Dataset()
    dataset.file_meta = meta
    fields: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.1",
        "Modality": "CT",
        "Rows": 6,
        "Columns": 7,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "ImagePositionPatient": ["0", "0", "0"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "PixelSpacing": ["2", "3"],
        "PixelData": np.arange(42, dtype="<u2").tobytes(),
    }
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    for keyword, value in (fields | values).items():
        if value is None:
            continue
        if keyword == "PixelData" and meta.TransferSyntaxUID.is_compressed:
            value = pydicom.encaps.encapsulate([value])
        setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
        dataset["PixelData"].is_undefined_length = meta.TransferSyntaxUID.is_compressed
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def written(
    folder: Path,
    name: str,
    content: bytes,
    expected: NDArray[Any] | Literal["refused", "either"] = "refused",
    cause: str = "",
) -> Sample:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return Sample(name, folder / name, expected, cause)


FAMILIES = (nifti_headers, nifti_forms, cuts, flips, itk_headers, bombs, names, tables, dicom_files)
