"""Reading scans and masks, whatever the format."""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, nearest
from medseg.io.case import Case, GridPolicy, Orientation, Scan
from medseg.io.damage import reading
from medseg.io.dicom import headers
from medseg.io.dicom import image as dicom
from medseg.io.dicom import series as dicom_series
from medseg.io.files.voxel_check import check_intensities, check_numbers
from medseg.io.formats import archives, images_2d, itk, nifti
from medseg.io.formats.mask_values import ROUNDING
from medseg.io.grids.alignment import fit_mask, join_channels, present, with_absent

log = logging.getLogger(__name__)

FILES = (*nifti.SUFFIXES, *itk.SUFFIXES, *images_2d.SUFFIXES)
"""Suffixes of the formats that are recognised by one; DICOM files often have none, and are recognised by content."""

SUFFIXES = (*FILES, *headers.SUFFIXES)

LARGE = 1 << 20
"""Voxels from which on a volume is beyond the processor's caches."""


def suffix(path: Path) -> str:
    """Return the lower-case suffix of the format, such as ``.nii.gz``; "" if it is none of ours.

    Files of DICOM may have any name, and so may the folders that stand for their series.
    """
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def stem(path: Path) -> str:
    """Return the file name without its suffix, ``.nii.gz`` being one."""
    return path.name[: len(path.name) - len(suffix(path))]


def find_images(root: Path) -> list[Path]:
    """Return the images at or below ``root``, sorted; hidden files and folders (``._x.nii`` too) are skipped.

    A DICOM series is one image, under the path that ``medseg.io.dicom.series`` gives it. What is a segmentation by its
    nature (``.seg.nrrd``, DICOM SEG and RTSTRUCT) is none.

    Raises:
        MedsegError: ``root`` does not exist, or holds no image of a known kind; or none but DICOM, and pydicom is not
            installed.
    """
    return _files_of_kind(
        root, lambda files: [series.path for series in dicom_series.find_series(files)], but=itk.SEGMENTATION
    )


def find_masks(root: Path) -> list[Path]:
    """Return the files at or below ``root`` that may be masks, sorted: all but DICOM images; errors as above."""
    return _files_of_kind(root, dicom_series.find_segmentations)


def on_disk(path: Path) -> tuple[Path, ...]:
    """Return the files that an image consists of, such as the slices of a series; none where there is no such image.

    Raises:
        MedsegError: the path is of a folder that holds several series.
    """
    try:
        if suffix(path) in (".mhd", ".nhdr") and path.is_file():
            with suppress(ValueError):  # of a damaged header, which reading reports
                return (path, *(file for file in itk.data_files(path) if file.is_file()))
        if path.is_file() or suffix(path) in FILES:
            return (path,) if path.is_file() else ()
        if archive := archives.archive_of(path):
            return (archive,)
        return dicom_series.files_of(path)
    except OSError:  # a name that is too long, or what may not be looked at
        return ()


def exists(path: Path) -> bool:
    """Return whether there is an image of this path, whatever its state."""
    try:
        return path.exists() or bool(on_disk(path))
    except OSError:  # a name that is too long, for example
        return False


def read_case(case: Case, spatial_dims: int | None = None) -> Scan:
    """Read the channels of a case, from one file that holds all or from one file a channel, as ``Case`` says.

    An image of the shape (x, y, 1, n) is n channels of a 2D image, but n slices of a volume where a label file has that
    shape, too, or where ``spatial_dims`` says that volumes are expected.

    Raises:
        MedsegError: a file is missing, empty, damaged, of an unknown kind or holds voxels that are no measurement
            (see ``medseg.io.files.voxel_check``), two files differ in a way that ``case.geometry`` does not allow or
            show different parts of the body, or there is no such reference.
    """
    scans = [_read_image(path, case.orientation) for path in case.images]
    if any(_may_be_stack(scan.layout) for scan in scans) and (
        spatial_dims == 3 or any(_may_be_stack(_read(label.path)[2]) for label in case.labels)
    ):
        for index, scan in enumerate(scans):
            if _may_be_stack(scan.layout):
                image, affine, layout = nifti.as_stack(scan.image, scan.affine, scan.layout)
                scans[index] = replace(scan, image=np.ascontiguousarray(image), affine=affine, layout=layout)
    return with_absent(join_channels(scans, case.geometry, present(case.reference, case.absent)), case.absent)


def read_mask(
    path: Path,
    like: Scan | None = None,
    geometry: GridPolicy = "error",
    background: int = 0,
    orientation: Orientation = "apply",
    values_of: Callable[[NDArray[Any]], NDArray[np.int32]] | None = None,
) -> NDArray[np.int32]:
    """Read the file values (*spatial) of a mask; a colour is ``COLOUR | 0xRRGGBB``.

    ``geometry`` says what becomes of a mask on another grid than ``like``, as in ``Case``; resampled, it has the
    value ``background`` outside its own grid, as transparent pixels have. A mask of the shape (x, y, 1, n) is n slices.
    ``values_of`` turns pixels (1 or 3, *spatial) into values where these need not be whole (see
    ``medseg.io.formats.mask_values``).

    Raises:
        MedsegError: the file cannot be read (as in ``read_case``), has several channels or values that are not whole,
            or lies on another grid than ``like`` in a way that ``geometry`` does not allow, or elsewhere altogether.
    """
    data, affine, layout = _read(path, orientation)
    if _may_be_stack(layout):
        data, affine, layout = nifti.as_stack(data, affine, layout)
    if len(data) != 1 and not (len(data) == 3 and layout.unit == "px"):
        raise MedsegError(f"{path}: a mask has one channel, this file has {len(data)}. Merge them into one label map.")
    if values_of is None:
        values_of = images_2d.colour_codes if len(data) == 3 else partial(_whole, path=path)
    values = values_of(data)
    if isinstance(layout, images_2d.PictureLayout) and layout.transparent is not None:
        values = np.where(layout.transparent, background, values).astype(np.int32)
    if like is None:
        return values
    if isinstance(layout, images_2d.PictureLayout) and isinstance(like.layout, dicom.DicomLayout) and values.ndim == 2:
        values, affine = values.T, like.affine  # the radiograph as a viewer shows it: (rows, columns)
    if values.shape != like.shape and getattr(layout, "orientation", 1) != 1:
        raise MedsegError(
            f"{path}: its shape {values.shape} differs from {like.shape} of its image. The mask is turned as its"
            f" orientation tag ({layout.orientation}) says; dataset.orientation=ignore reads the stored pixels."
        )
    return fit_mask(path, values, affine, layout.unit, like, geometry, background)


def _files_of_kind(root: Path, among_dicom: Callable[[list[Path]], list[Path]], but: str = "") -> list[Path]:
    if not exists(root):
        raise MedsegError(f"{root}: there is no such file or folder.{_nearest(root)}")
    if not root.exists():
        return [root]  # one of several series in a folder, or in an archive
    if not (root.is_dir() or root.is_file()):
        raise MedsegError(f"{root}: this is a pipe or device, and no file or folder. Save it as a file first.")
    files = archives.files_below(root) if root.is_dir() else [root]
    images = [path for path in files if suffix(path) in FILES and suffix(path) != but]
    try:
        images += among_dicom([path for path in files if suffix(path) not in FILES])
    except MedsegError as error:
        if not images:
            raise
        log.warning("%s: DICOM files are skipped: %s", root, error)
    if not images:
        kinds = Counter(path.suffix or "no suffix" for path in files).most_common(5)
        there = ", ".join(f"{count} with {kind}" for kind, count in kinds) or "no files"
        raise MedsegError(
            f"{root}: no scans here. Looked for {', '.join(FILES)} and DICOM, of which localizers and objects that are"
            f" no images are skipped; there are {there}."
        )
    return sorted(images)


def _nearest(path: Path) -> str:
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    return nearest(path.name, names) or dicom_series.nearest_series(path)


MODULES: dict[str, Any] = {
    **dict.fromkeys(nifti.SUFFIXES, nifti),
    **dict.fromkeys(itk.SUFFIXES, itk),
    **dict.fromkeys(images_2d.SUFFIXES, images_2d),
}
"""What reads and writes files of each suffix; all others may be DICOM."""


def format_of(path: Path) -> Any:
    """Return what reads a file or series: by its first bytes, or where these are of no format by its name.

    Raises:
        MedsegError: a 2D image has the name of another format, or the other way round, so that its mask could not be
            written in its own form.
    """
    named = MODULES.get(suffix(path), dicom)
    if not path.is_file():
        if named is not dicom and path.exists():
            raise MedsegError(f"{path}: this is a pipe, device or folder, and no file. Save it as a file first.")
        return named
    with path.open("rb", buffering=0) as file:
        start = file.read(352)
    if any(fits(start) for module, fits in SIGNATURES if module is named):  # DICOM can be a TIFF as well
        return named
    actual = next((module for module, fits in SIGNATURES if fits(start)), named)
    if (actual is images_2d) != (named is images_2d):
        raise MedsegError(f"{path}: by its content this is a {_kind(actual, path)}. Give it the right suffix.")
    return actual


SIGNATURES: tuple[tuple[Any, Callable[[bytes], bool]], ...] = (
    (itk, lambda start: start.startswith(b"NRRD000")),
    (nifti, lambda start: start.startswith(b"\x1f\x8b") or start[344:348] in (b"n+1\0", b"ni1\0")),
    (nifti, lambda start: start[4:8] in (b"n+2\0", b"ni2\0")),
    (dicom, lambda start: start[128:132] == b"DICM"),
    (images_2d, lambda start: start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM"))),
    (itk, lambda start: start.lstrip().startswith((b"ObjectType", b"NDims", b"Comment"))),
)
"""Recognises the formats by the first bytes of a file."""


def _kind(reader: Any, path: Path) -> str:
    """Name a format, for messages."""
    if reader is itk:
        return "MetaImage file" if path.suffix.lower() in (".mha", ".mhd") else "NRRD file"
    return {nifti: "NIfTI file", images_2d: "2D image"}.get(reader, "DICOM image")


def _read(path: Path, orientation: Orientation = "apply") -> tuple[NDArray[Any], NDArray[np.float64], Any]:
    """Read one file or series: (C, *spatial) of its own type, the affine and the layout; errors as in ``read_case``."""
    with reading(path, "image"):
        parts = on_disk(path)
        if not parts and path.is_dir():
            raise MedsegError(f"{path}: this folder holds no DICOM image.")
        if not parts and exists(path):
            raise MedsegError(f"{path}: this is a pipe or device, and no file. Save it as a file first.")
        if not parts:
            with suppress(FileNotFoundError, NotADirectoryError):
                path.stat()  # raises where there is another reason
            raise MedsegError(f"{path}: there is no such file.{_nearest(path)}")
        if empty := [part for part in parts if part.stat().st_size == 0]:
            raise MedsegError(f"{empty[0]}: the file is empty (0 bytes). Copy it again from its source.")
        reader = format_of(path)
        if reader is dicom and path.is_file() and not headers.is_dicom(path):
            raise MedsegError(f"{path}: unknown kind of file. Convert it to one of {', '.join(FILES)}, or DICOM.")
    with reading(path, _kind(reader, path)):
        data, affine, layout = reader.read(path)  # (C, *spatial)
    check_numbers(data, str(path))
    if orientation == "ignore" and isinstance(layout, images_2d.PictureLayout):
        data, layout = images_2d.as_stored(data, layout)
    return data, affine, layout


def _read_image(path: Path, orientation: Orientation) -> Scan:
    data, affine, layout = _read(path, orientation)
    image = np.empty(data.shape, dtype=np.float32)
    if data.ndim == 4 and data.size > LARGE:  # plane by plane, since all at once it takes half as long again
        for j in range(data.shape[2]):
            image[:, :, j] = data[:, :, j]
    else:
        image[...] = data
    if data.dtype.itemsize > 1:  # a byte has no room for what is no intensity
        check_intensities(image, str(path))
    return Scan(image, affine, unit=layout.unit, layout=layout)


def _whole(data: NDArray[Any], path: Path) -> NDArray[np.int32]:
    """Round values (1, *spatial) that are whole but for the error of a scale slope, and refuse others."""
    data = data[0]
    if np.can_cast(data.dtype, np.int32):
        return data.astype(np.int32)
    whole = np.rint(data) if data.dtype.kind == "f" else data
    wrong = data[
        (np.abs(data - whole) > ROUNDING) | (whole > np.iinfo(np.int32).max) | (whole < np.iinfo(np.int32).min)
    ]
    if wrong.size:
        raise MedsegError(
            f"{path}: {wrong.size} voxels hold no label, for example {wrong[0]:g}."
            " A mask holds whole numbers below 2^31. Is this a probability map, or resampled with interpolation?"
            " dataset.other_values=nearest, with dataset.labels, gives each voxel the class of the nearest value."
        )
    return whole.astype(np.int32)


def _may_be_stack(layout: Any) -> bool:
    return isinstance(layout, nifti.NiftiLayout) and layout.may_be_stack
