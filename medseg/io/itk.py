"""NRRD and MetaImage files, by SimpleITK: axes in the order (i, j, k) of nibabel, positions turned from LPS to RAS.

SimpleITK hands file names on as UTF-8, which names with umlauts, spaces and parentheses survive.
"""

import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.grids import Grid, as_volume
from medseg.io.nifti import channels_first, check_affine

SEGMENTATION = ".seg.nrrd"
"""3D Slicer's name for a segmentation, which is no scan."""

SUFFIXES = (SEGMENTATION, ".nrrd", ".nhdr", ".mha", ".mhd")

IN_ONE_FILE = {".nhdr": ".nrrd", ".mhd": ".mha"}
"""Forms of header and data apart, and the same form in one file, which alone can be written whole or not at all."""

MM = {"um": 1e-3, "µm": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1e3}
"""Length of the units that a header may name. SimpleITK takes all numbers for mm."""

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns positions by left, posterior and superior, as ITK and DICOM have them, into RAS, and back."""

PATTERN = re.compile(r"(?P<name>.*%\d*d\S*)\s+(?P<first>\d+)\s+(?P<last>\d+)\s+(?P<step>[1-9]\d*)(\s+\d+)?")
"""Numbered data files: ``slice%03d.raw 1 20 1``."""

LONGEST_LINE, MOST_LINES = 16_384, 10_000  # of a header; what is longer is none


@dataclass(frozen=True)
class ItkLayout:
    """What gives a mask the form of the image at ``path``: its array's shape without channels."""

    path: Path
    shape: tuple[int, ...]
    unit: ClassVar = "mm"


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], ItkLayout]:
    """Read one file as voxels (C, *spatial) of its own type, its affine (to RAS+ mm) and its layout.

    Components of a voxel, or a fourth axis, are channels. A third axis of length 1 is no axis.

    Raises:
        MedsegError: the file or its data file is missing, damaged, complex, or of a form that is no scan.
    """
    if missing := [file for file in data_files(path) if not file.is_file()]:
        raise MedsegError(f"{path}: its data file {missing[0].name} is missing. Copy both into one folder.")
    sitk = simpleitk()
    image = executed(reader_of(path), "Execute", path)
    if "complex" in image.GetPixelIDTypeAsString():
        raise MedsegError(f"{path}: voxels are complex numbers. Store magnitude and phase as channels.")
    planes = channels_first(_voxels(sitk.GetArrayFromImage(image), image), path)
    return planes, affine_of(image, path, axes=planes.ndim - 1), ItkLayout(path, tuple(image.GetSize()[:3]))


def grid(path: Path) -> tuple[Grid, int]:
    """Return the grid of an image and the number of its channels, from the header alone; errors as in ``read``."""
    reader = reader_of(path)
    executed(reader, "ReadImageInformation", path)
    size = reader.GetSize()
    axes = 2 if size[2:3] in ((), (1,)) else 3
    channels = reader.GetNumberOfComponents() * int(np.prod(size[3:]))
    return Grid(tuple(size[:axes]), affine_of(reader, path, axes=axes)), channels


def write(path: Path, values: NDArray[np.integer], like: Scan) -> None:
    """Write ``values`` (*spatial) on the grid of ``like``, compressed, in the smallest type."""
    sitk = simpleitk()
    stored = like.layout.shape if isinstance(like.layout, ItkLayout) else (*values.shape, 1)[:3]
    values = values.astype(np.promote_types(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
    image = sitk.GetImageFromArray(values.reshape(stored).T)
    place(image, as_volume(Grid(like.shape, like.affine)).affine, axes=len(stored))
    save(image, path)


def place(image: Any, affine: NDArray[np.float64], *, axes: int = 3) -> None:
    """Give an image the place that an affine to RAS+ mm says, of as many axes as it has."""
    to_lps = LPS_RAS @ affine
    matrix = to_lps[:axes, :axes]
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin(to_lps[:axes, 3].tolist())


def save(image: Any, path: Path) -> None:
    """Write an image, compressed; OSError where that fails."""
    try:
        simpleitk().WriteImage(image, in_utf8(path), useCompression=True)
    except RuntimeError as error:
        raise OSError(_reason(error)) from error


def data_files(path: Path) -> list[Path]:
    """Return the files that hold the voxels of a header at ``path``, there or not; none where it holds them itself."""
    fields, listed = header(path)
    name = next((fields[key] for key in ("data file", "datafile", "elementdatafile") if key in fields), "local")
    if name.lower() == "local":
        return []
    if name.split()[0] == "LIST":
        return [path.parent / line for line in listed]
    if match := PATTERN.fullmatch(name):
        numbers = range(int(match["first"]), int(match["last"]) + 1, int(match["step"]))
        return [path.parent / (match["name"] % number) for number in numbers]
    return [path.parent / name]


def header(path: Path) -> tuple[dict[str, str], list[str]]:
    """Return the header's fields by their names in lower case, and the file names that follow ``LIST``."""
    sign = "=" if path.suffix.lower() in (".mha", ".mhd") else ":"
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        lines = islice(iter(lambda: file.readline(LONGEST_LINE), b""), MOST_LINES)
        for text in (line.decode("utf-8", "replace").strip() for line in lines):
            name, _, value = (part.strip() for part in text.partition(sign))
            fields[name.lower()] = value
            if value.split()[:1] == ["LIST"]:
                return fields, [line.decode("utf-8", "replace").strip() for line in lines if line.strip()]
            if not text or name.lower() == "elementdatafile":  # the voxels follow
                break
    return fields, []


def simpleitk() -> Any:
    """Import SimpleITK, without the warnings that it prints of its own."""
    import SimpleITK

    library: Any = SimpleITK
    library.ProcessObject.SetGlobalWarningDisplay(False)
    return library


def reader_of(path: Path) -> Any:
    """Return ITK's reader of a file."""
    reader = simpleitk().ImageFileReader()
    reader.SetImageIO("MetaImageIO" if path.suffix.lower() in (".mha", ".mhd") else "NrrdImageIO")
    reader.SetFileName(in_utf8(path))
    return reader


def in_utf8(path: Path) -> str:
    """Return a path as ITK takes it, which would abort the process otherwise; MedsegError where that is impossible."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise MedsegError(
            f"{path}: the name holds bytes that are not UTF-8, which NRRD and MetaImage files cannot have here. Rename "
            "the file or its folder, as convmv -f latin1 -t utf8 does."
        ) from error
    return str(path)


def executed(reader: Any, method: str, path: Path) -> Any:
    """Return what a method of a reader returns; MedsegError where the file cannot be read."""
    try:
        return getattr(reader, method)()
    except (RuntimeError, MemoryError) as error:
        kind = "MetaImage" if path.suffix.lower() in (".mha", ".mhd") else "NRRD"
        raise MedsegError(
            f"{path}: no readable {kind} file; damaged, truncated or something else? {_reason(error)}"
        ) from error


def _reason(error: BaseException) -> str:
    """Return the last line of ITK's message, which says what is wrong; those before it say where in ITK."""
    return str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__


def _voxels(array: NDArray[Any], image: Any) -> NDArray[Any]:
    """Bring SimpleITK's array (z, y, x, components) to (x, y, z, components), z being 1 in two dimensions."""
    dims = image.GetDimension()
    array = array.reshape(*array.shape[:dims], -1)
    array = array.transpose(*range(dims)[::-1], dims)
    return array[:, :, None] if dims == 2 else array


def affine_of(image: Any, path: Path, *, axes: int) -> NDArray[np.float64]:
    """Return the affine of what has ITK's spacing, origin and direction: an image, or the reader of its header."""
    dims = image.GetDimension()
    used = min(dims, 3)
    direction = np.reshape(image.GetDirection(), (dims, dims))[:used, :used]
    affine = np.eye(4)
    affine[:used, :used] = direction * image.GetSpacing()[:used]
    affine[:used, 3] = image.GetOrigin()[:used]
    affine[:3] *= _unit(path)
    affine = LPS_RAS @ affine
    check_affine(affine, path, axes=axes)
    return affine


def _unit(path: Path) -> float:
    fields, _ = header(path)
    named = re.findall(r"[^\s\"]+", fields.get("space units", "") or fields.get("distanceunits", ""))
    return MM.get(named[0], 1.0) if named else 1.0
