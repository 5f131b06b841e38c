"""Headers of NRRD files (``.nrrd``, ``.nhdr``), as https://teem.sourceforge.net/nrrd/format.html has them."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.io.formats.text_headers import MM, Fields, files_named, header_lines, whole_numbers
from medseg.io.formats.voxel_files import Encoding, VoxelFiles

MAGIC = b"NRRD000"

TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(
        ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"), "i8"
    ),
    **dict.fromkeys(
        ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
        "u8",
    ),
    "float": "f4",
    "double": "f8",
}

ENCODINGS: dict[str, Encoding] = {
    "raw": "raw",
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
    "hex": "hex",
    **dict.fromkeys(("gz", "gzip"), "deflate"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
}

SPACES: dict[str, tuple[float, float, float]] = {
    **dict.fromkeys(("left-posterior-superior", "lps", "left-posterior-superior-time", "lpst"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras", "right-anterior-superior-time", "rast"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las", "left-anterior-superior-time", "last"), (1.0, -1.0, 1.0)),
    **dict.fromkeys(("scanner-xyz", "scanner-xyz-time", "3d-right-handed", "3d-left-handed"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("3d-right-handed-time", "3d-left-handed-time", ""), (1.0, 1.0, 1.0)),
}
"""Factors from the axes of a space to those of LPS. Where a scanner's axes lie is unknown; ITK takes them for LPS."""

IN_SPACE = ("domain", "space", "time", "none", "???")
"""Kinds of axes along which voxels lie; all others hold what a voxel consists of."""

MOST_AXES = 6


@dataclass(frozen=True)
class NrrdHeader:
    """The fields and key/value pairs of a header, and where its voxels begin if they follow it."""

    fields: Fields
    pairs: dict[str, str]
    start: int


def read_header(path: Path) -> NrrdHeader:
    """Read the header of a file; ValueError where it is none."""
    with path.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin with NRRD000")
    names_files = re.compile(r"data ?file: ?LIST\b", flags=re.IGNORECASE)
    lines, start = header_lines(path, lambda line: not line or names_files.match(line) is not None)
    header = NrrdHeader({}, {}, start)
    for line in lines[1:]:
        if not line or line.startswith("#"):
            continue
        pair, field = re.match(r"(.*?):=(.*)", line), re.match(r"([^:]*): ?(.*)", line)
        if pair and (not field or len(pair[1]) <= len(field[1])):
            header.pairs[_unescaped(pair[1])] = _unescaped(pair[2])
        elif field:
            name = {"datafile": "data file"}.get(field[1].strip().lower(), field[1].strip().lower())
            if name in header.fields:
                raise ValueError(f"its header has the field {name!r} twice")
            header.fields[name] = field[2].strip()
        else:
            raise ValueError(f"its header has the line {line[:80]!r}, which is no field")
    return header


def data_files(path: Path, header: NrrdHeader) -> list[Path]:
    """Return the files that hold the voxels; ValueError as in ``files_named``."""
    name = header.fields.get("data file")
    return [path] if name is None else files_named(path, name, "data file", header.start)


def voxel_files(path: Path, header: NrrdHeader) -> VoxelFiles:
    """Return where the voxels of an image are, from its header.

    Raises:
        ValueError: the header is damaged, or describes what is no image.
    """
    fields = header.fields
    (axes,) = whole_numbers(fields, "dimension", 1)
    if not 2 <= axes <= MOST_AXES:
        raise ValueError(f"dimension is {axes}, allowed are 2 to {MOST_AXES}")
    sizes = whole_numbers(fields, "sizes", axes)
    if (kind := fields.get("type", "").lower()) not in TYPES:
        raise ValueError(f"type is {kind!r}, which is no kind of number")
    if (encoding := fields.get("encoding", "").lower()) not in ENCODINGS:
        raise ValueError(f"encoding is {encoding!r}, allowed are {', '.join(ENCODINGS)}")
    dtype = np.dtype(TYPES[kind])
    binary = ENCODINGS[encoding] != "text" and dtype.itemsize > 1
    if binary and fields.get("endian", "").lower() not in ("little", "big"):
        raise ValueError(f"endian is {fields.get('endian', '')!r}, allowed are little and big")
    skip_lines, skip_bytes = (
        whole_numbers(fields, name, 1, least)[0] if name in fields else 0
        for name, least in (("line skip", 0), ("byte skip", -1))
    )
    files = data_files(path, header)
    components, affine = _axes(fields, axes, sizes)
    if components is not None and fields.get("kinds", "").lower().split()[components : components + 1] == ["complex"]:
        raise ValueError("voxels are complex numbers. Store magnitude and phase as channels")
    return VoxelFiles(
        path=path,
        shape=sizes,
        components=components,
        dtype=dtype.newbyteorder(">" if binary and fields["endian"].lower() == "big" else "<"),
        affine=affine,
        encoding=ENCODINGS[encoding],
        files=tuple(files),
        skip_lines=skip_lines,
        skip_bytes=skip_bytes,
        start=header.start if "data file" not in fields else 0,
    )


def _axes(fields: Fields, axes: int, sizes: tuple[int, ...]) -> tuple[int | None, NDArray[np.float64]]:
    """Return which axis holds components, if one does, and the affine of the first three others to LPS mm."""
    kinds = fields.get("kinds", "").lower().split() or ["???"] * axes
    directions = _vectors(fields["space directions"]) if "space directions" in fields else [None] * axes
    if len(kinds) != axes or len(directions) != axes:
        raise ValueError(f"its header describes the kinds or directions of other than {axes} axes")
    placed = any(direction is not None for direction in directions)
    within = [
        kind in IN_SPACE and (direction is not None or not placed)
        for kind, direction in zip(kinds, directions, strict=True)
    ]
    used = [axis for axis in range(axes) if within[axis]]
    if len(used) < max(2, axes - 1):
        raise ValueError(f"{len(used)} of its {axes} axes are in space; allowed are all, or all but one of components")
    if placed:
        affine = _affine_by_directions(fields, [directions[axis] or () for axis in used[:3]])
    else:
        affine = _affine_by_spacings(fields, used[:3], sizes)
    unit = re.findall(r"[^\s\"]+", fields.get("space units", ""))
    affine[:3] *= MM.get(unit[0], 1.0) if unit else 1.0
    return next((axis for axis in range(axes) if not within[axis]), None), affine


def _affine_by_directions(fields: Fields, vectors: list[tuple[float, ...]]) -> NDArray[np.float64]:
    """Return the affine of two or three axes whose steps are vectors in space."""
    dims = len(vectors[0])
    if {len(vector) for vector in vectors} != {dims} or dims < len(vectors):
        raise ValueError(f"space directions is {fields['space directions']!r}, which are no vectors of one length")
    if (space := fields.get("space", "").lower()) not in SPACES:
        raise ValueError(f"space is {space!r}, allowed are {', '.join(filter(None, SPACES))}")
    height, affine = min(dims, 3), np.eye(4)  # a fourth number is the time
    flips = np.array(SPACES[space])[:height]
    affine[:height, : len(vectors)] = np.array(vectors).T[:height] * flips[:, None]
    if len(vectors) == 2 and height == 3:  # a slice in space
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] /= np.linalg.norm(affine[:3, 2]) or 1.0
    if "space origin" in fields:
        (origin,) = _vectors(fields["space origin"])
        if origin is None or len(origin) != dims:
            raise ValueError(f"space origin is {fields['space origin']!r}, which is no position")
        position = np.array(origin[:height])
        affine[:height, 3] = np.where(np.isnan(position), 0, position) * flips  # NaN is NRRD's word for unknown
    return affine


def _affine_by_spacings(fields: Fields, used: list[int], sizes: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the affine of axes without directions, by spacing and the lowest coordinate along each of them."""
    lists = {
        name: [float(word) for word in fields[name].split()] if name in fields else [math.nan] * len(sizes)
        for name in ("spacings", "axis mins", "axis maxs")
    }
    if any(len(numbers) != len(sizes) for numbers in lists.values()):
        raise ValueError(f"its header describes the spacing or the ends of other than {len(sizes)} axes")
    centres = fields.get("centers", fields.get("centerings", "")).lower().split()
    affine, origin = np.eye(4), []
    for row, axis in enumerate(used):
        spacing, low, high = (lists[name][axis] for name in ("spacings", "axis mins", "axis maxs"))
        if not math.isnan(spacing):
            if not 0 < spacing < math.inf:
                raise ValueError(f"spacings is {fields['spacings']!r}, allowed are numbers above 0")
            affine[row, row] = spacing
        node = centres[axis : axis + 1] == ["node"]  # the lowest coordinate is a voxel's centre, or else its edge
        step = spacing if not math.isnan(spacing) else (high - low) / max(1, sizes[axis] - node)
        origin.append(low if node else low + step / 2)
    if np.isfinite(origin).all():  # a position takes all of them
        affine[: len(used), 3] = origin
    return affine


def _vectors(text: str) -> list[tuple[float, ...] | None]:
    """Return the vectors ``(x,y,z)`` of a field, None for ``none``; ValueError where it holds something else."""
    words = re.findall(r"none|\([^()]*\)|\S+", text, flags=re.IGNORECASE)
    return [None if word.lower() == "none" else tuple(map(float, word.strip("()").split(","))) for word in words]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), text)
