"""The formats that masks are written in, by the names that ``format`` has in the config."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io import dicom_seg, rtstruct, seg_nrrd
from medseg.io.alignment import name
from medseg.io.atomic import replacing
from medseg.io.case import Scan
from medseg.io.class_descriptions import ClassDescription, describe
from medseg.io.files import mask_name, stem, write_mask
from medseg.io.itk import SEGMENTATION
from medseg.io.labels import LabelMap

Indices = NDArray[np.uint8]


@dataclass(frozen=True)
class MaskFormat:
    """A format that names its classes: the suffix of its files, and what writes class indices (*spatial)."""

    suffix: str
    write: Callable[[Path, Indices, Sequence[ClassDescription], Scan], None]


NAMED = {
    "seg.nrrd": MaskFormat(SEGMENTATION, seg_nrrd.write),
    "rtstruct": MaskFormat(".dcm", rtstruct.write),
    "dicom_seg": MaskFormat(".dcm", dicom_seg.write),
}
FORMATS = ("image", "nifti", *NAMED)
"""``image`` and ``nifti`` hold the training masks' values, in the form of the scan's own file or as NIfTI."""


def mask_file_name(image: Path, format: str) -> str:
    """Return the name of the mask of an image.

    >>> mask_file_name(Path("a.nii.gz"), "seg.nrrd"), mask_file_name(Path("a.png"), "image")
    ('a.seg.nrrd', 'a.png')
    """
    if format == "image":
        return mask_name(image)
    return stem(image) + (NAMED[format].suffix if format in NAMED else ".nii.gz")


def write_classes(
    path: Path, indices: Indices, label_map: LabelMap, like: Scan, format: str, codes: Mapping[str, Any] | None = None
) -> None:
    """Write class indices (*spatial) of a scan in a format, whole or not at all; folders are made as needed.

    ``codes`` are codes of classes (see ``class_descriptions.describe``), which formats that name classes hold.

    Raises:
        MedsegError: the scan is not of the kind that the format needs, or the file cannot be written.
    """
    if format not in NAMED:
        return write_mask(path, label_map.decode(indices), like)
    if like.unit != "mm":
        raise MedsegError(f"format={format}: {name(like)} is a picture without a place. Take format=image.")
    with replacing(path) as temporary:
        NAMED[format].write(temporary, indices, describe(label_map, codes), like)
    return None
