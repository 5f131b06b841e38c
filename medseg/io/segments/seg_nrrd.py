"""``.seg.nrrd``, the segmentations of 3D Slicer: an NRRD file of one or several layers, its header naming the segments.

The header's fields are described at https://slicer.readthedocs.io, "Developer guide", "Segmentations". A layer holds
the segments that do not overlap, each with its own value; Slicer before 4.11 gave each segment a layer of its own.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.formats import itk, nrrd
from medseg.io.formats.voxel_files import read_voxels
from medseg.io.grids.alignment import grid_of
from medseg.io.grids.grid import Grid, as_volume, simpleitk
from medseg.io.segments.segmentation import Segmentation, labelled
from medseg.io.segments.terminology import ClassDescription
from medseg.system.printable import on_a_line

LARGEST = 65535  # the layer is uint16 at most


def names(path: Path) -> list[str]:
    """Return the segments' names in their order; only the header is read.

    Raises:
        MedsegError: the file cannot be read, or names no segments.
    """
    return [segment["Name"] for segment in described(nrrd.read_header(path).pairs, path)]


def read(path: Path, like: Scan) -> Segmentation:
    """Read the segments on the file's own grid, which may be a part of the scan's.

    Raises:
        MedsegError: the file is damaged, names no segments, or names a layer that there is not.
    """
    header = nrrd.read_header(path)
    segments = described(header.pairs, path)
    stored = nrrd.voxel_files(path, header)
    layers = np.moveaxis(read_voxels(stored), -1, 0)  # (layers, i, j, k)
    if layers.ndim != 4 or layers.dtype.kind not in "iu":
        form = f"{layers.ndim - 1} spatial axes of {layers.dtype}"
        raise MedsegError(f"{path}: {form}; a segmentation has 3 of whole numbers. Export it again from 3D Slicer.")
    if missing := [segment["Name"] for segment in segments if not 0 <= segment["Layer"] < len(layers)]:
        raise MedsegError(f"{path}: the segments {', '.join(missing)} are in layers that it lacks ({len(layers)}).")
    if large := [segment["Name"] for segment in segments if not 0 <= segment["LabelValue"] <= LARGEST]:
        raise MedsegError(f"{path}: the segments {', '.join(large[:10])} have values outside of 0 to {LARGEST}.")
    described_segments = [(each["Name"], each["Layer"], each["LabelValue"]) for each in segments]
    grid = Grid(layers.shape[1:], itk.affine_of(stored, axes=3))
    return Segmentation(grid, labelled(list(layers), described_segments))


def described(pairs: Mapping[str, str], path: Path) -> list[dict[str, Any]]:
    """Return Name, LabelValue and Layer of each segment that a header describes."""
    fields: dict[int, dict[str, str]] = {}
    for key, value in pairs.items():
        if match := re.fullmatch(r"Segment(\d{1,9})_(ID|Name|LabelValue|Layer)", key):
            fields.setdefault(int(match[1]), {})[match[2]] = value
    if not fields:
        raise MedsegError(f"{path}: its header names no segments. A label map of plain values is called {path.stem}.")
    try:
        return [
            {
                "Name": field.get("Name") or field.get("ID") or f"Segment_{number}",
                "LabelValue": int(field.get("LabelValue", 1)),
                "Layer": int(field.get("Layer", position)),
            }
            for position, (number, field) in enumerate(sorted(fields.items()))
        ]
    except ValueError as error:
        raise MedsegError(f"{path}: its header gives a segment a layer or value that is no number: {error}") from error


def write(path: Path, indices: NDArray[np.uint8], classes: Sequence[ClassDescription], like: Scan) -> None:
    """Write class indices (*spatial) in one layer, with each class's name, colour, code and file value.

    The classes' values are kept where they are 1 to 65535, or else all are class indices.
    """
    values = [each.value for each in classes]
    fits = all(0 < value <= LARGEST for value in values)
    table = np.zeros(256, np.min_scalar_type(max(values) if fits else 255))
    for each in classes:
        table[each.index] = each.value if fits else each.index
    grid = as_volume(grid_of(like))
    layer = table[indices].reshape(grid.shape)
    image = simpleitk().GetImageFromArray(np.ascontiguousarray(layer.T))
    itk.set_grid(image, grid.affine)
    for key, value in header_of(classes, table, layer).items():
        image.SetMetaData(key, value)
    itk.save(image, path)


def header_of(
    classes: Sequence[ClassDescription], table: NDArray[np.integer], layer: NDArray[np.integer]
) -> dict[str, str]:
    """Return what the header says of the segments."""
    extent = " ".join(f"0 {length - 1}" for length in layer.shape)
    fields = {
        "Segmentation_MasterRepresentation": "Binary labelmap",  # read by Slicer 4
        "Segmentation_SourceRepresentation": "Binary labelmap",  # and by Slicer 5
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, each in enumerate(classes):
        segment = {
            "ID": f"Segment_{each.index}",
            "Name": on_a_line(each.name),
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{part / 255:.6g}" for part in each.colour),
            "ColorAutoGenerated": "0",
            "LabelValue": str(table[each.index]),
            "Layer": "0",
            "Extent": extent,
            "Tags": f"TerminologyEntry:{terminology(each)}|",
        }
        fields |= {f"Segment{number}_{key}": value for key, value in segment.items()}
    return fields


def terminology(each: ClassDescription) -> str:
    """Return the codes of a class in Slicer's form: category and type, with no modifier and no anatomic region."""
    category, kind = (f"{code.scheme}^{code.value}^{code.meaning}" for code in (each.category, each.code))
    no_modifier, no_region = "^^", "^^~^^"
    lists = "Segmentation category and type - 3D Slicer General Anatomy list", "Anatomic codes - DICOM master list"
    return "~".join((lists[0], category, kind, no_modifier, lists[1], no_region))
