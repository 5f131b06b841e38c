"""DICOM Segmentation objects (DICOM PS3.3 A.51 and A.101): binary, fractional and label maps.

They are read by pydicom, frame by frame, since many segments of a large scan do not fit into the memory at once, and
written by highdicom. Axes are those of DICOM series here: columns, rows, slices.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import medseg
from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.dicom.attributes import text_of
from medseg.io.dicom.headers import numbers_of, of_frame, pydicom, readable_numbers_of
from medseg.io.dicom.image import dataset_of, frame_pixels
from medseg.io.dicom.references import (
    Dataset,
    Privacy,
    Source,
    belongs,
    derived_uid,
    highdicom,
    positions_of,
    reference_to,
    source_of,
)
from medseg.io.dicom.series import SAME_DIRECTION
from medseg.io.grids.alignment import grid_of, name
from medseg.io.grids.grid import FLIP, TOLERANCE, Grid, as_volume, index_map, same_grid
from medseg.io.limits import check_memory
from medseg.io.segments.segmentation import Segment, Segmentation, labelled
from medseg.io.segments.terminology import ClassDescription, Code

KIND = "dicom_seg"
ROUNDING = 1e-3
"""Distance in mm from the grid's position by which a slice's own is a rounding of it."""
HALF = 0.5
"""Share of the maximum from which on a fractional segmentation's voxel belongs to the segment."""


@dataclass(frozen=True)
class Planes:
    """The grid that frames lie on, and the slice of it that each frame is."""

    grid: Grid
    slices: NDArray[np.int64]


def names(path: Path) -> list[str]:
    """Return the labels of the segments in their order; pixels are not read.

    Raises:
        MedsegError: the file cannot be read.
    """
    return list(labels_of(dataset_of(path, pixels=False)).values())


def labels_of(dataset: Dataset) -> dict[int, str]:
    """Return the label of each segment by its number; 0, the background of label maps, is none."""
    segments = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.get("SegmentSequence") or []}
    return {number: label for number, label in sorted(segments.items()) if number}


def read(path: Path, like: Scan) -> Segmentation:
    """Read the segments. Frames may be in any order; where one is missing, the segment is empty.

    Raises:
        MedsegError: the file cannot be read, is of another scan or of a whole-slide image, or its frames lie askew.
    """
    dataset = dataset_of(path)
    check(path, dataset, like)
    planes = planes_of(path, dataset, like)
    if dataset.SegmentationType == "LABELMAP":
        label_map = np.zeros(planes.grid.shape, dtype=np.uint16)  # pixels are segment numbers
        frames = pixels(path, dataset, range(len(planes.slices)))
        for index, frame in zip(planes.slices, frames, strict=True):
            label_map[:, :, index] = frame.T
        segments = [(label, 0, number) for number, label in labels_of(dataset).items()]
        return Segmentation(planes.grid, labelled([label_map], segments))
    return Segmentation(planes.grid, segments_of(path, dataset, planes))


def check(path: Path, dataset: Dataset, like: Scan) -> None:
    """Reject what is none of a scan's segmentations."""
    if "TotalPixelMatrixRows" in dataset:
        raise MedsegError(
            f"{path}: a segmentation of a whole-slide image, in tiles, is not read. Convert it to a single image."
        )
    if "PerFrameFunctionalGroupsSequence" not in dataset or not labels_of(dataset):
        raise MedsegError(f"{path}: it describes no frames or no segments. Export it again from its source.")
    described, frames = len(dataset.PerFrameFunctionalGroupsSequence), int(dataset.get("NumberOfFrames") or 1)
    if described != frames:
        raise MedsegError(f"{path}: it describes {described} of {frames} frames. Export it again from its source.")
    series = {str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence") or []}
    frame = dataset.get("FrameOfReferenceUID")
    if not belongs(like, {frame} if frame else set(), series):
        raise MedsegError(
            f"{path}: it was made on another series than {name(like)}, in other coordinates: it refers to"
            f" {', '.join(sorted(series)) or 'no series'}. Pair it with that."
        )


def planes_of(path: Path, dataset: Dataset, like: Scan) -> Planes:
    """Find the grid of the frames: that of ``like`` where they are some of its slices, or else their own."""
    positions = positions_of(dataset)
    target, columns_rows = as_volume(grid_of(like)), (int(dataset.Columns), int(dataset.Rows))
    if not any(positions):
        if target.shape != (*columns_rows, 1):
            raise MedsegError(
                f"{path}: its frames have no position, and {name(like)} is no single image of their size."
            )
        return Planes(target, np.zeros(len(positions), dtype=int))
    if not all(positions):
        raise MedsegError(f"{path}: some of its frames have no position. Export it again from its source.")
    plane = in_plane(path, dataset)  # (3, 3): step along columns, along rows, normal
    origins = np.array(positions) @ FLIP
    heights = origins @ plane[:, 2]
    first = int(heights.argmin())
    origins, heights = origins - origins[first], heights - heights[first]
    lowest = grid_at(plane, np.array(positions[first]) @ FLIP, plane[:, 2], (*columns_rows, 1))
    smallest = np.linalg.norm(plane[:, :2], axis=0).min()
    for step in steps_of(dataset, origins, heights, lowest, target):
        slices = np.rint(heights / (step @ plane[:, 2])).astype(int)
        if np.linalg.norm(origins - np.outer(slices, step), axis=1).max() <= TOLERANCE * smallest:
            shape = (*columns_rows, int(slices.max()) + 1)
            check_memory(f"{path}: its frames lie in an array", shape)
            return Planes(grid_at(plane, lowest.affine[:3, 3], step, shape), slices)
    gaps = np.diff(np.unique(heights.round(3)))
    raise MedsegError(f"{path}: its frames lie unevenly, {gaps.min():g} to {gaps.max():g} mm apart. {ASK}")


ASK = "Resample it to its series with another tool first."


def in_plane(path: Path, dataset: Dataset) -> NDArray[np.float64]:
    """Return the step along columns and rows in mm and the normal, in RAS, which all frames must share."""
    planes = []
    for frame in range(len(positions_of(dataset))):
        directions = numbers_of(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = numbers_of(dataset, frame, "PixelMeasuresSequence", "PixelSpacing")
        if len(directions) != 6 or len(spacing) != 2:
            raise MedsegError(f"{path}: a frame lacks its orientation or pixel spacing. Export it again.")
        along_columns, along_rows = np.reshape(directions, (2, 3)) @ FLIP
        normal = np.cross(along_columns, along_rows)
        planes.append(np.stack([along_columns * spacing[1], along_rows * spacing[0], normal], axis=1))
    if np.ptp(planes, axis=0).max() > SAME_DIRECTION:
        raise MedsegError(f"{path}: its frames differ in orientation or pixel spacing. {ASK}")
    return planes[0]


def grid_at(
    plane: NDArray[np.float64], origin: NDArray[np.float64], step: NDArray[np.float64], shape: tuple[int, int, int]
) -> Grid:
    """Return the grid of slices that follow each other by ``step`` (3) in mm."""
    affine = np.eye(4)
    affine[:3] = np.stack([plane[:, 0], plane[:, 1], step, origin], axis=1)
    return Grid(shape, affine)


def steps_of(
    dataset: Dataset, origins: NDArray[np.float64], heights: NDArray[np.float64], lowest: Grid, target: Grid
) -> Iterator[NDArray[np.float64]]:
    """Yield what may be the step (3) from slice to slice in mm, the likeliest first, since frames may be missing.

    It is the scan's where frames cover its slices voxel by voxel; what the object says; or the smallest gap.
    """
    normal = lowest.affine[:3, 2]
    if (step := scan_step(lowest, target)) is not None:
        yield step
    highest = int(heights.argmax())
    along = origins[highest] / heights[highest] if heights[highest] > 0 else normal  # not the normal in a tilted gantry
    if written := numbers_of(dataset, 0, "PixelMeasuresSequence", "SpacingBetweenSlices"):
        yield along * (abs(written[0]) or 1.0)
    gaps = np.diff(np.unique(heights.round(3)))
    thickness = numbers_of(dataset, 0, "PixelMeasuresSequence", "SliceThickness") or (1.0,)
    yield along * float(gaps.min() if gaps.size else thickness[0] or 1.0)


def scan_step(lowest: Grid, target: Grid) -> NDArray[np.float64] | None:
    """Return the scan's step (3) between slices, if a frame covers a slice of it voxel by voxel, or else None."""
    in_voxels = np.rint(index_map(target, lowest))
    used = np.abs(in_voxels[:3, :2])
    if not (np.array_equal(used.sum(axis=0), [1, 1]) and used.sum(axis=1).max() == 1):
        return None
    axis = int(used.sum(axis=1).argmin())
    in_voxels[:3, 2] = np.eye(3)[axis]
    if not same_grid(lowest, Grid(lowest.shape, target.affine @ in_voxels)):
        return None
    step = target.affine[:3, axis]
    return step if step @ lowest.affine[:3, 2] > 0 else -step


def segments_of(path: Path, dataset: Dataset, planes: Planes) -> Iterator[Segment]:
    """Yield the segments of a binary or fractional segmentation, each within its own slices."""
    least = HALF * float(dataset.MaximumFractionalValue) if dataset.SegmentationType == "FRACTIONAL" else HALF
    frames_of: Mapping[int, list[int]] = defaultdict(list)
    for frame in range(len(planes.slices)):
        number = of_frame(dataset, frame, "SegmentIdentificationSequence", "ReferencedSegmentNumber")
        if number is None:
            raise MedsegError(f"{path}: frame {frame + 1} does not say of which segment it is. Export it again.")
        frames_of[int(number)].append(frame)
    for number, label in labels_of(dataset).items():
        frames = frames_of.get(number, [])
        if not frames:
            continue
        slices = planes.slices[frames]
        first, last = slices.min(), slices.max()
        mask = np.zeros((*planes.grid.shape[:2], last - first + 1), dtype=bool)
        for index, frame_values in zip(slices, pixels(path, dataset, frames), strict=True):
            mask[:, :, index - first] |= least <= frame_values.T
        yield Segment(label, (0, 0, int(first)), mask)


def pixels(path: Path, dataset: Dataset, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield frames (rows, columns) as they are stored."""
    if dataset.BitsAllocated > 1 or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from (frame_pixels(path, dataset, number, raw=True) for number in frames)
        return
    size = dataset.Rows * dataset.Columns  # bits, the lowest of a byte first; frames begin within bytes (PS3.5, 8.1.1)
    for number in frames:
        first, last = number * size // 8, -(-(number + 1) * size // 8)
        bits = np.unpackbits(np.frombuffer(dataset.PixelData[first:last], np.uint8), bitorder="little")
        yield bits[number * size - 8 * first :][:size].reshape(dataset.Rows, dataset.Columns)


def write(
    path: Path, indices: NDArray[np.uint8], classes: Sequence[ClassDescription], like: Scan, privacy: Privacy = "keep"
) -> None:
    """Write class indices (*spatial) as a binary segmentation, which refers to the images of the scan's series.

    All that the object consists of, its UIDs and dates as well, derives from the series and the mask, so that a mask
    that is written again is the same file.

    Raises:
        MedsegError: the scan is no DICOM series, or not on its grid, or a package is missing.
    """
    library = highdicom()
    source = source_of(like, KIND, privacy)
    source.log_changes(name(like))
    content = [*source.uids, repr(classes), indices.tobytes(), medseg.__version__]
    uids = [derived_uid(part, *content) for part in ("instance", "series", "index")]
    segmentation = library.seg.Segmentation(
        source_images=stand_ins(source),
        pixel_array=np.ascontiguousarray(indices.reshape(source.grid.shape).T),  # (slices, rows, columns)
        segmentation_type="BINARY",
        segment_descriptions=[description(each) for each in classes],
        sop_instance_uid=uids[0],
        series_instance_uid=uids[1],
        series_number=source.number % 10000 * 100 + 1,
        instance_number=1,
        manufacturer="medseg",
        manufacturer_model_name="medseg",
        software_versions=medseg.__version__,
        device_serial_number="1",
        content_label="SEGMENTATION",
        series_description="Segmentation by medseg",
        content_date=source.date,
        content_time=source.time,
        specific_character_set="ISO_IR 192",
    )
    segmentation.InstanceCreationDate, segmentation.InstanceCreationTime = source.date, source.time
    segmentation.ContributingEquipmentSequence[-1].ContributionDateTime = source.date + source.time  # highdicom's
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uids[2]
    for keyword, value in source.patient_and_study.items():
        setattr(segmentation, keyword, value)
    refer(segmentation, source)
    segmentation.save_as(path)


def stand_ins(source: Source) -> list[Dataset]:
    """Return an image for each slice that has what highdicom reads off its source images, and nothing else.

    The files themselves are not handed over: highdicom copies all they say of the patient, and refuses the unusual ones
    that medseg reads. These stand-ins are CT slices.
    """
    grid, shared = source.grid, pydicom().Dataset()
    shared.SOPClassUID, shared.Modality = "1.2.840.10008.5.1.4.1.1.2", "CT"
    shared.StudyInstanceUID, shared.SeriesInstanceUID = source.study, source.series
    shared.Columns, shared.Rows = grid.shape[:2]
    for keyword in source.patient_and_study:
        setattr(shared, keyword, "")  # filled in later: highdicom's warnings print names
    if text_of(source.first, "LossyImageCompression") == "01":
        shared.LossyImageCompression = "01"
    frames = [frame - 1 for frame in source.frames] if source.frames else [0] * grid.shape[2]

    def written(keyword: str, index: int = 0, group: str = "PixelMeasuresSequence") -> tuple[float, ...]:
        return readable_numbers_of(source.datasets[0 if source.frames else index], frames[index], group, keyword)

    if placed := bool(written("ImagePositionPatient", group="PlanePositionSequence")):
        left, _, right = np.linalg.svd((grid.affine[:3, :2] / grid.spacing[:2]).T @ FLIP, full_matrices=False)
        orientation = written("ImageOrientationPatient", group="PlaneOrientationSequence")
        # the orthogonal unit vectors that are closest to the grid's axes
        shared.ImageOrientationPatient = decimals(own_digits(orientation, (left @ right).ravel(), 1e-5))
        shared.FrameOfReferenceUID = source.frame_of_reference
    else:  # without coordinates highdicom wants no frame of reference, and the standard no image class with one
        shared.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    if placed or written("PixelSpacing"):
        shared.PixelSpacing = decimals(own_digits(written("PixelSpacing"), grid.spacing[1::-1], 1e-9))
        across = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
        apart = float(abs(across @ grid.affine[:3, 2]) / np.linalg.norm(across))  # of a single slice its thickness
        (shared.SpacingBetweenSlices,) = decimals([round(apart, 6)])
        thickness = next((abs(each) for each in written("SliceThickness") if each), apart)
        (shared.SliceThickness,) = decimals([round(thickness, 6)])
    images = []
    for index in range(grid.shape[2]):
        image = pydicom().Dataset()
        image.update(shared)
        image.SOPInstanceUID = stand_in_uid(index)
        if placed:
            position = grid.to_mm(np.array([[0, 0, index]]))[0] @ FLIP
            own = written("ImagePositionPatient", index, "PlanePositionSequence")
            image.ImagePositionPatient = decimals(own_digits(own, position, ROUNDING))
        images.append(image)
    return images


def stand_in_uid(index: int) -> str:
    """Return the UID of the stand-in for a slice."""
    return derived_uid("stand-in", str(index))


def decimals(values: Iterable[float]) -> list[Any]:
    """Return numbers as decimal strings (DS), with as many of their digits as the 16 characters of one hold."""
    return [pydicom().valuerep.DSfloat(float(value), auto_format=True) for value in values]


def own_digits(written: Sequence[float], computed: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Return numbers of a grid as the image has them, where these are the same but for rounding."""
    same = len(written) == len(computed) and np.allclose(written, computed, rtol=0, atol=tolerance)
    return np.array(written) if same else computed


def refer(segmentation: Dataset, source: Source) -> None:
    """Let a segmentation refer to the images of a series in place of their stand-ins."""
    references = {stand_in_uid(index): source.reference(index) for index in range(source.grid.shape[2])}
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in frame.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                # frames of several segments share items, which may have been changed already
                if reference := references.get(item.ReferencedSOPInstanceUID):
                    item.update(reference)
    segmentation.SourceImageSequence = [reference_to(image) for image in source.datasets]
    segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence = segmentation.SourceImageSequence


def description(each: ClassDescription) -> Any:
    """Describe a class for highdicom."""
    library = highdicom()
    from pydicom.sr.codedict import codes

    return library.seg.SegmentDescription(
        segment_number=each.index,
        segment_label=each.label,
        segmented_property_category=concept(each.category),
        segmented_property_type=concept(each.code),
        algorithm_type="AUTOMATIC",
        algorithm_identification=library.AlgorithmIdentificationSequence(
            name="medseg",
            family=codes.DCM.ArtificialIntelligence,
            version=medseg.__version__,
        ),
        display_color=library.color.CIELabColor.from_rgb(*each.colour),
    )


def concept(code: Code) -> Any:
    """Return a code for highdicom."""
    return highdicom().sr.CodedConcept(code.value, code.scheme, code.meaning)
