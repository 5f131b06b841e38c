"""RT Structure Sets, the contours of radiotherapy (DICOM PS3.3 A.19 and C.8.8.5, C.8.8.6).

Contours lie in the slices of the series that they were drawn on, and are read onto its grid. In a slice the contours of
a structure are filled by the even-odd rule: one within another is a hole, and so is a keyhole.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import medseg
from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.dicom.headers import pydicom
from medseg.io.dicom.image import dataset_of
from medseg.io.dicom.polygons import Polygon, fill, outlines
from medseg.io.dicom.references import Dataset, Privacy, Source, belongs, derived_uid, reference_to, source_of
from medseg.io.grids.alignment import grid_of, name
from medseg.io.grids.grid import FLIP, Grid, as_volume
from medseg.io.segments.segmentation import Segment, Segmentation
from medseg.io.segments.terminology import ClassDescription
from medseg.io.warnings import warn

KIND = "rtstruct"
STORAGE_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
BESIDE = 0.25
"""Part of a slice's thickness by which a contour may lie beside it, or be askew."""

Contours = dict[int, list[Polygon]]
"""The contours of a structure by slice."""


def names(path: Path) -> list[str]:
    """Return the names of the structures in their order.

    Raises:
        MedsegError: the file cannot be read.
    """
    return list(structures(dataset_of(path, pixels=False)))


def structures(dataset: Dataset) -> dict[str, list[NDArray[np.float64]]]:
    """Return the closed contours of each structure, as points (n, 3) in mm, RAS; points and open lines have no inside.

    Structures of the same name are one.
    """
    by_number = {str(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or []}
    contours_of_name: dict[str, list[NDArray[np.float64]]] = {}
    for item in dataset.get("StructureSetROISequence") or []:
        contours = by_number[str(item.ROINumber)].get("ContourSequence") if str(item.ROINumber) in by_number else None
        closed = [contour for contour in contours or [] if contour.get("ContourGeometricType") in CLOSED]
        points = [np.array(contour.ContourData, dtype=float).reshape(-1, 3) @ FLIP for contour in closed]
        if not all(np.isfinite(each).all() for each in points):
            raise ValueError(f"{item.ROIName} has corners that are no finite numbers")
        contours_of_name.setdefault(str(item.ROIName), []).extend(points)
    return contours_of_name


def read(path: Path, like: Scan) -> Segmentation:
    """Fill the contours in the slices of a scan.

    Raises:
        MedsegError: the file cannot be read, belongs to another scan, or its contours are not in the scan's slices.
    """
    dataset = dataset_of(path, pixels=False)
    check(path, dataset, like)
    try:
        contours_of_name = structures(dataset)
    except (ValueError, TypeError, AttributeError) as error:
        raise MedsegError(f"{path}: a contour cannot be read: {error}. Export it again from its source.") from error
    grid = as_volume(grid_of(like))
    axis, contours = in_slices(path, contours_of_name, grid, like)
    return Segmentation(grid, segments_of(contours, axis, grid))


def check(path: Path, dataset: Dataset, like: Scan) -> None:
    """Reject a structure set of another scan."""
    frames = {str(item.get("ReferencedFrameOfReferenceUID")) for item in dataset.get("StructureSetROISequence") or []}
    series = {
        str(item.SeriesInstanceUID)
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for item in study.get("RTReferencedSeriesSequence") or []
    }
    if not belongs(like, frames, series):
        raise MedsegError(
            f"{path}: it was drawn on another series than {name(like)}, in other coordinates: it refers to"
            f" {', '.join(sorted(series)) or 'no series'}. Pair it with that."
        )


def in_slices(
    path: Path, contours_of_name: Mapping[str, Sequence[NDArray[np.float64]]], grid: Grid, like: Scan
) -> tuple[int, dict[str, Contours]]:
    """Return the axis across which the slices lie, and each structure's contours by slice, in voxels along the others.

    Raises:
        MedsegError: contours are not parallel to slices, or lie between them.
    """
    to_voxels = np.linalg.inv(grid.affine)
    voxels = {
        structure: [points @ to_voxels[:3, :3].T + to_voxels[:3, 3] for points in contours]
        for structure, contours in contours_of_name.items()
    }
    every = [points for contours in voxels.values() for points in contours]
    spread = np.max([np.ptp(points, axis=0) for points in every], axis=0) if every else np.zeros(3)
    axis = 2 if spread[2] <= BESIDE else int(spread.argmin())
    if spread[axis] > BESIDE:
        raise MedsegError(f"{path}: its contours are askew to the slices of {name(like)}. {ADVICE}")
    result: dict[str, Contours] = {}
    beyond = 0
    for structure, contours in voxels.items():
        by_slice: Contours = defaultdict(list)
        result[structure] = by_slice
        for points in contours:
            height = float(points[:, axis].mean())
            index = round(height)
            if abs(height - index) > BESIDE:
                raise MedsegError(
                    f"{path}: a contour of {structure!r} lies between slices {int(height)} and {int(height) + 1} of"
                    f" {name(like)}. {ADVICE}"
                )
            if 0 <= index < grid.shape[axis]:
                by_slice[index].append(np.delete(points, axis, axis=1))
            else:
                beyond += 1
    if beyond == len(every) > 0:
        raise MedsegError(f"{path}: all its contours lie beyond the slices of {name(like)}. {ADVICE}")
    if beyond:
        warn(f"{path}: {beyond} of {len(every)} contours lie beyond the slices of {name(like)} and are left out")
    return axis, result


ADVICE = "Use the series that it was drawn on, with all its slices, as the image."


def segments_of(contours_of_name: Mapping[str, Contours], axis: int, grid: Grid) -> Iterator[Segment]:
    """Yield the structures, each within its own slices."""
    plane = tuple(np.delete(grid.shape, axis))
    for structure, contours in contours_of_name.items():
        if not contours:
            continue
        first = min(contours)
        mask = np.zeros((max(contours) - first + 1, *plane), dtype=bool)
        for index, polygons in contours.items():
            # contours that are there twice would cancel each other out by the even-odd rule
            distinct = list({polygon.tobytes(): polygon for polygon in polygons}.values())
            mask[index - first] = fill(distinct, plane)
        start = tuple(first if each == axis else 0 for each in range(3))
        yield Segment(structure, start, np.moveaxis(mask, 0, axis))


def write(
    path: Path, indices: NDArray[np.uint8], classes: Sequence[ClassDescription], like: Scan, privacy: Privacy = "keep"
) -> None:
    """Write the contours of class indices (*spatial) in the slices of the scan's series, to which they refer.

    UIDs and dates derive from the series and the mask, so that a mask that is written again is the same file.

    Raises:
        MedsegError: the scan is no DICOM series, or not on its grid, or a package is missing.
    """
    source = source_of(like, KIND, privacy)
    source.log_changes(name(like))
    content = [*source.uids, repr(classes), indices.tobytes(), medseg.__version__]
    uids = [derived_uid(part, *content) for part in ("structures", "their series")]
    dataset = header_of(source, *uids)
    items = [items_of(each, indices.reshape(source.grid.shape), source) for each in classes]
    dataset.ROIContourSequence = [contours for contours, _, _ in items]
    dataset.StructureSetROISequence = [structure for _, structure, _ in items]
    dataset.RTROIObservationsSequence = [observation for _, _, observation in items]
    dataset.save_as(path, enforce_file_format=True)


def item_of(**values: Any) -> Dataset:
    """Return an item of a sequence."""
    item = pydicom().Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def header_of(source: Source, uid: str, series_uid: str) -> Dataset:
    """Return the modules of patient, study, series and equipment, and what the structures refer to."""
    library = pydicom()
    dataset = library.Dataset()
    dataset.file_meta = library.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = library.uid.ImplicitVRLittleEndian  # explicit ones have no room for contours
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in source.patient_and_study.items():
        setattr(dataset, keyword, value)
    dataset.StudyInstanceUID = source.study
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = STORAGE_CLASS, uid, series_uid
    dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription = "RTSTRUCT", 1, "Structures by medseg"
    dataset.Manufacturer = dataset.ManufacturerModelName = "medseg"
    dataset.SoftwareVersions, dataset.OperatorsName = medseg.__version__, ""
    dataset.InstanceCreationDate = dataset.StructureSetDate = dataset.SeriesDate = source.date
    dataset.InstanceCreationTime = dataset.StructureSetTime = dataset.SeriesTime = source.time
    dataset.StructureSetLabel, dataset.ApprovalStatus = "medseg", "UNAPPROVED"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = source.frame_of_reference, ""
    study = item_of(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # as the standard has it for studies
        ReferencedSOPInstanceUID=source.study,
        RTReferencedSeriesSequence=[
            item_of(
                SeriesInstanceUID=source.series,
                ContourImageSequence=[reference_to(image) for image in source.datasets],
            )
        ],
    )
    dataset.ReferencedFrameOfReferenceSequence = [
        item_of(FrameOfReferenceUID=source.frame_of_reference, RTReferencedStudySequence=[study])
    ]
    return dataset


def items_of(each: ClassDescription, volume: NDArray[np.uint8], source: Source) -> tuple[Dataset, Dataset, Dataset]:
    """Return what is said of a class: its contours in every slice, its name, and its code and state of review."""
    mask, grid = volume == each.index, source.grid
    decimals = max(3, 3 - int(np.floor(np.log10(grid.spacing.min()))))
    contours = []
    for index in map(int, np.flatnonzero(mask.any(axis=(0, 1)))):
        for polygon in outlines(mask[:, :, index]):
            points = grid.to_mm(np.insert(polygon, 2, index, axis=1)) @ FLIP
            contours.append(
                item_of(
                    ContourImageSequence=[source.reference(index)],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourData=[short(value, decimals) for value in points.ravel()],
                )
            )
    drawn = item_of(ROIDisplayColor=list(each.colour), ReferencedROINumber=each.index)
    if contours:  # a class that does not occur has none
        drawn.ContourSequence = contours
    structure = item_of(
        ROINumber=each.index,
        ReferencedFrameOfReferenceUID=source.frame_of_reference,
        ROIName=each.label,
        ROIGenerationAlgorithm="AUTOMATIC",
        ROIGenerationDescription=f"medseg {medseg.__version__}",
    )
    code = item_of(CodeValue=each.code.value, CodingSchemeDesignator=each.code.scheme, CodeMeaning=each.code.meaning)
    observation = item_of(
        ObservationNumber=each.index,
        ReferencedROINumber=each.index,
        RTROIIdentificationCodeSequence=[code],
        RTROIInterpretedType="",
        ROIInterpreter="",  # nobody has looked at it yet
    )
    return drawn, structure, observation


def short(value: float, decimals: int) -> str:
    """Write a coordinate within the 16 characters that DICOM allows.

    >>> short(-12.50004, 3), short(0.0, 3)
    ('-12.5', '0')
    """
    text = f"{value:.{decimals}f}"[:16]
    return text.rstrip("0").rstrip(".") if "." in text else text
