"""Writing masks: in the form of the scan's own file, or in a format by the name that ``format`` has in the config."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, first_line, nearest
from medseg.io.case import Scan
from medseg.io.dicom import rtstruct, seg
from medseg.io.dicom.references import Privacy
from medseg.io.files.read import FILES, MODULES, stem, suffix
from medseg.io.formats.itk import IN_ONE_FILE, SEGMENTATION
from medseg.io.grids.alignment import name
from medseg.io.labels import LabelMap
from medseg.io.segments import seg_nrrd
from medseg.io.segments.terminology import describe
from medseg.system.files import replacing

Indices = NDArray[np.uint8]


@dataclass(frozen=True)
class MaskFormat:
    """A format that names its classes: the suffix of its files, and what writes class indices (*spatial).

    ``names_patient`` marks formats that hold data of patient and study, whose ``write`` takes ``privacy`` as well.
    """

    suffix: str
    write: Callable[..., None]
    names_patient: bool = False


NAMED = {
    "seg.nrrd": MaskFormat(SEGMENTATION, seg_nrrd.write),
    "rtstruct": MaskFormat(".dcm", rtstruct.write, names_patient=True),
    "dicom_seg": MaskFormat(".dcm", seg.write, names_patient=True),
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


def mask_name(path: Path) -> str:
    """Return the name of an image's mask: its own where its form can hold one, in a single file and without loss.

    For JPEG it is PNG, for ``.mhd`` and ``.nhdr`` the form with the data in the same file, for DICOM NIfTI.
    """
    kind = suffix(path)
    if kind not in FILES:
        return stem(path) + ".nii.gz"
    other = ".png" if kind in {".jpg", ".jpeg"} else IN_ONE_FILE.get(kind)
    return stem(path) + other if other else path.name


def write_mask(path: Path, values: NDArray[np.integer], like: Scan) -> None:
    """Write file values (*spatial) in the form of ``like``, whole or not at all; folders are made as needed.

    NIfTI keeps array shape (without channels), affines with their codes, and units.

    Raises:
        MedsegError: the file cannot be written, or the format cannot hold the values.
    """
    if mask_name(path) != path.name:
        raise MedsegError(f"{path}: masks are not written in this form. Call it {mask_name(path)}.")
    with replacing(path) as temporary:
        MODULES[suffix(path)].write(temporary, values, like)


def write_classes(
    path: Path,
    indices: Indices,
    label_map: LabelMap,
    like: Scan,
    format: str,
    codes: Mapping[str, Any] | None = None,
    privacy: Privacy = "keep",
) -> None:
    """Write class indices (*spatial) of a scan in a format, whole or not at all; folders are made as needed.

    ``codes`` are codes of classes (see ``terminology.describe``), which formats that name classes hold.
    ``privacy="strip"`` leaves patient and study empty in formats that hold them.

    Raises:
        MedsegError: the scan is not of the kind that the format needs, or the file cannot be written.
    """
    if format not in FORMATS:
        raise MedsegError(
            f"format={format!r}: no format of masks.{nearest(format, FORMATS)} Formats: {', '.join(FORMATS)}."
        )
    if privacy not in get_args(Privacy):  # else a name misspelt would keep patient and study
        raise MedsegError(f"privacy={privacy!r}: give {' or '.join(get_args(Privacy))}.")
    if format not in NAMED:
        return write_mask(path, label_map.decode(indices), like)
    if not path.name.endswith(NAMED[format].suffix):
        raise MedsegError(
            f"{path}: format={format} has the suffix {NAMED[format].suffix}: {mask_file_name(path, format)}."
        )
    if like.unit != "mm":
        raise MedsegError(
            f"format={format}: {name(like)} is a 2D image without a position in space. Take format=image."
        )
    classes, options = describe(label_map, codes), {"privacy": privacy} if NAMED[format].names_patient else {}
    with replacing(path) as temporary:
        try:
            NAMED[format].write(temporary, indices, classes, like, **options)
        except (MedsegError, OSError):
            raise
        except Exception as error:  # libraries refuse with nearly anything what their format cannot hold
            raise MedsegError(
                f"{name(like)}: format={format} cannot hold its mask: {type(error).__name__}:"
                f" {first_line(error).removesuffix('.')}. Take another format, such as seg.nrrd or nifti."
            ) from error
    return None
