"""Headers of MetaImage files (``.mha``, ``.mhd``), as https://itk.org/Wiki/ITK/MetaIO/Documentation has them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.io.formats.text_headers import MM, Fields, files_named, finite_numbers, header_lines, whole_numbers
from medseg.io.formats.voxel_files import Encoding, VoxelFiles

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}

MOST_AXES = 6


def read_header(path: Path) -> tuple[Fields, int]:
    """Return the fields by their names in lower case, and where the voxels begin; ValueError where it is none."""
    lines, start = header_lines(path, lambda line: _name(line) == "elementdatafile")
    fields: Fields = {}
    for line in filter(str.strip, lines):
        if (name := _name(line)) in fields:
            raise ValueError(f"its header has the field {name} twice")
        fields[name] = line.partition("=")[2].strip()
    if "elementdatafile" not in fields:
        raise ValueError("its header has no ElementDataFile")
    return fields, start


def data_files(path: Path, fields: Fields, start: int) -> list[Path]:
    """Return the files that hold the voxels; ValueError as in ``files_named``."""
    name = fields["elementdatafile"]
    return [path] if name.lower() == "local" else files_named(path, name, "ElementDataFile", start)


def voxel_files(path: Path) -> VoxelFiles:
    """Return where the voxels of an image are, from its header.

    Raises:
        ValueError: the header is damaged, or none.
    """
    fields, start = read_header(path)
    if fields.get("objecttype", "Image").lower() != "image":
        raise ValueError(f"ObjectType is {fields['objecttype']!r}, no Image")
    (axes,) = whole_numbers(fields, "ndims", 1)
    if not 2 <= axes <= MOST_AXES:
        raise ValueError(f"NDims is {axes}, allowed are 2 to {MOST_AXES}")
    size = whole_numbers(fields, "dimsize", axes)
    channels = whole_numbers(fields, "elementnumberofchannels", 1)[0] if "elementnumberofchannels" in fields else 1
    if (kind := fields.get("elementtype", "").upper()) not in TYPES:
        raise ValueError(f"ElementType is {kind!r}, allowed are {', '.join(TYPES)}")
    big = _is_true(fields, "elementbyteordermsb", _is_true(fields, "binarydatabyteordermsb", False))
    files = data_files(path, fields, start)
    encoding: Encoding = "raw" if _is_true(fields, "binarydata", True) else "text"
    skipped = whole_numbers(fields, "headersize", 1, least=-1)[0] if "headersize" in fields else 0
    return VoxelFiles(
        path=path,
        shape=(channels, *size) if channels > 1 else size,
        components=0 if channels > 1 else None,
        dtype=np.dtype(TYPES[kind]).newbyteorder(">" if big else "<"),
        affine=_affine(fields, axes),
        encoding="deflate" if _is_true(fields, "compresseddata", False) else encoding,
        files=tuple(files),
        skip_bytes=skipped,
        start=start if files == [path] and skipped == 0 else 0,
    )


def _affine(fields: Fields, axes: int) -> NDArray[np.float64]:
    """Return the affine to LPS mm of the first three axes."""
    used, affine = min(axes, 3), np.eye(4)
    spacing = np.ones(axes)
    if name := _given(fields, "elementspacing", "elementsize"):
        spacing = np.array(finite_numbers(fields, name, axes))
    if (spacing[:used] <= 0).any():
        raise ValueError(f"ElementSpacing is {spacing.tolist()}, allowed are numbers above 0")
    matrix = _given(fields, "transformmatrix", "rotation", "orientation")
    directions = np.reshape(finite_numbers(fields, matrix, axes * axes), (axes, axes)).T if matrix else np.eye(axes)
    affine[:used, :used] = directions[:used, :used] * spacing[:used]
    if origin := _given(fields, "offset", "position", "origin"):
        affine[:used, 3] = finite_numbers(fields, origin, axes)[:used]
    affine[:3] *= MM.get(fields.get("distanceunits", "mm").lower(), 1.0)
    return affine


def _given(fields: Fields, *names: str) -> str | None:
    """Return which of several names of the same thing a header has; ValueError where it has two that differ.

    Spacing goes before size, which may be another: voxels may overlap.
    """
    given = [name for name in names if name in fields]
    if len({" ".join(fields[name].split()) for name in given}) > 1 and "elementsize" not in given:
        raise ValueError(f"its header has different values of {' and '.join(given)}, which mean the same")
    return next(iter(given), None)


def _name(line: str) -> str:
    return line.partition("=")[0].strip().lower()


def _is_true(fields: Fields, name: str, default: bool) -> bool:
    return fields[name][:1].lower() in ("t", "1") if name in fields else default
