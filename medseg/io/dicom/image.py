"""DICOM images: one series, multi-frame object or single picture, from its slices to voxels.

Which files form an image is told by ``dicom_series``. Read here are the positions, by which slices are sorted and told
to be whole, and the values: rescaled slice by slice, with MONOCHROME1 inverted, padding as air, and PET in SUV.
"""

import logging
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.dicom.decoder_process import decode
from medseg.io.dicom.headers import listed, numbers_of, of_frame, pydicom, read_dataset, readable_numbers_of
from medseg.io.dicom.series import SAME_DIRECTION, SAME_PLACE, files_of
from medseg.io.dicom.suv import acquired, refused, suv_factor
from medseg.io.formats.archives import file_length
from medseg.io.formats.itk import LPS_RAS
from medseg.io.formats.nifti import check_affine
from medseg.io.grids.grid import TOLERANCE, Grid
from medseg.io.limits import DEFLATE_RATIO, check_length, check_memory
from medseg.io.warnings import warn

log = logging.getLogger(__name__)

MARKS = {
    "TemporalPositionIndex": "FrameContentSequence",
    "TemporalPositionIdentifier": "",
    "EffectiveEchoTime": "MREchoSequence",
    "EchoTime": "",
    "DiffusionBValue": "MRDiffusionSequence",
    "InversionTime": "",
    "FlipAngle": "",
    "TriggerTime": "",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "FrameReferenceTime": "",
    "FrameType": "MRImageFrameTypeSequence",
    "ImageType": "",
    "ConvolutionKernel": "",
    "AcquisitionNumber": "",
    "FrameAcquisitionDateTime": "FrameContentSequence",
    "AcquisitionTime": "",
}
"""Attributes that tell slices at one place apart, the most telling first, and where a multi-frame object has them."""

TILTED = 0.5  # degrees from which slices count as sheared

ITEM, HARMLESS = 8, 1 << 18
"""Bytes that a packed frame takes at least; packed bytes that any file may lack for what it unpacks to."""

DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
"""What pydicom and its decoders raise on files that are truncated, damaged or something else."""


@dataclass(frozen=True)
class Slice:
    """A slice: frame ``number`` (from 0) of a file, and where it lies.

    ``orientation`` (6) and ``position`` (3, LPS mm) are empty where it has no place, ``spacing`` (2), along columns and
    rows' indices, where it has no size. ``marks`` are values of ``MARKS``.
    """

    path: Path
    number: int
    size: tuple[int, int]
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float
    marks: dict[str, str]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Direction (3) across the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def distance(self) -> float:
        """Place along the normal, in mm."""
        return float(self.normal @ np.array(self.position))

    @property
    def name(self) -> str:
        """The file, and its frame if it has several, for messages."""
        return self.path.name + (f", frame {self.number + 1}" if self.number else "")


@dataclass(frozen=True)
class DicomLayout:
    """Where an image was read from, so that what is made of it can refer to it.

    ``paths`` holds the file of each slice in the order of the last axis; or the one file that holds them all, and
    ``frames`` the number of each slice's frame, counted from 1 as DICOM does. Files of an archive have paths that lead
    into it; see ``medseg.io.formats.archives.opened``.
    """

    path: Path
    paths: tuple[Path, ...]
    frames: tuple[int, ...] | None
    series_uid: str
    unit: Literal["mm", "px"] = "mm"


def read(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64], DicomLayout]:
    """Read the image of this path as voxels (C, columns, rows[, slices]), its affine (to RAS+ mm) and its layout.

    A single slice has two spatial axes. Slices are sorted along their normal; those of a tilted gantry make a sheared
    affine. Pixels without a size are pictures with the unit "px". Values are float32 after the rescale of each slice;
    MONOCHROME1 is inverted, CT padding has the lowest real value, colours are three channels, PET is SUVbw.

    Raises:
        MedsegError: pydicom or a decoder is missing, the folder holds no or several images, a file is damaged, slices
            are missing, lie unevenly or at the same place, have no place, or PET lacks what SUV is computed from.
    """
    slices = stack(path)
    first = dataset_of(slices[0].path, pixels=False)
    values = voxels(slices, first, path)  # (slices, rows, columns[, colours])
    if first.get("Modality") == "PT":
        values *= np.float32(suv_of(slices, first, path))
    if (tilt := tilt_of(slices)) > TILTED:
        log.info(
            "%s: slices are sheared by %.1f degrees (gantry tilt), and so is the grid they are read on", path, tilt
        )
    planes = values.reshape(*values.shape[:3], -1).transpose(3, 2, 1, 0)  # (C, columns, rows, slices)
    several = int(first.get("NumberOfFrames") or 1) > 1
    layout = DicomLayout(
        path,
        tuple(files(slices)),
        tuple(one.number + 1 for one in slices) if several else None,
        str(first.get("SeriesInstanceUID", "")),
        "mm" if slices[0].spacing else "px",
    )
    return (planes if len(slices) > 1 else planes[..., 0]), affine_of(slices), layout


def grid(path: Path) -> tuple[Grid, int]:
    """Return the grid of an image and the number of its channels, from the headers alone; errors as in ``read``."""
    slices = stack(path)
    shape = (*slices[0].size, len(slices)) if len(slices) > 1 else slices[0].size
    return Grid(shape, affine_of(slices)), colours_of(dataset_of(slices[0].path, pixels=False))


# ---- where slices lie


def stack(path: Path) -> list[Slice]:
    """Return the slices of an image in the order of their places; errors as in ``read``."""
    slices = [one for file in files_of(path) for one in slices_of(file)]
    check_memory(f"{path}: its header describes an array", (*slices[0].size, len(slices)) if slices else ())
    if len(slices) == 1:
        check_affine(affine_of(slices), path, axes=2)
        return slices
    check_alike(slices, path)
    slices = without_copies(sorted(slices, key=lambda one: one.distance), path)
    check_affine(affine_of(slices), path, axes=3 if len(slices) > 1 else 2)
    check_gaps(slices, path)
    return slices


def slices_of(file: Path) -> Iterator[Slice]:
    """Yield the slices of a file: one, or the frames of a multi-frame object."""
    dataset = dataset_of(file, pixels=False)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise MedsegError(f"{file}: no DICOM image; damaged, truncated or something else?")
    try:
        check_frames(file, dataset)
        for number in range(int(dataset.get("NumberOfFrames") or 1)):
            rows_apart, columns_apart, *_ = [*spacing_of(dataset, number), 0, 0]
            yield Slice(
                file,
                number,
                (int(dataset.Columns), int(dataset.Rows)),
                numbers_of(dataset, number, "PlaneOrientationSequence", "ImageOrientationPatient"),
                numbers_of(dataset, number, "PlanePositionSequence", "ImagePositionPatient"),
                (columns_apart, rows_apart) if rows_apart > 0 and columns_apart > 0 else (),
                thickness_of(dataset, number),
                marks_of(dataset, number),
            )
    except DAMAGE as error:
        raise MedsegError(f"{file}: no readable DICOM image; damaged? {error}") from error


def check_frames(file: Path, dataset: Any) -> None:
    """Refuse sizes that the file is too short for.

    Raises:
        EOFError: pixels that are stored as they are take more bytes than it has, or packed ones are fewer than a
            thousandth, or there are more frames than it has bytes for the beginning of each.
        MedsegError: the image is larger than ``read.max_gb``.
    """
    frames, present = int(dataset.get("NumberOfFrames") or 1), file_length(file)
    shape = (int(dataset.Columns), int(dataset.Rows), frames, colours_of(dataset))
    if min(shape) < 1:
        raise ValueError(f"columns, rows, frames and colours are {shape}; each must be 1 or more")
    check_memory(f"{file}: its header describes an array", shape)
    bits = prod(shape[:3]) * int(dataset.get("SamplesPerPixel") or 1) * int(dataset.get("BitsAllocated") or 8)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed or syntax.is_deflated:
        check_length(shape, max(ITEM * frames, bits // 8 // DEFLATE_RATIO - HARMLESS), present)
    else:
        check_length(shape, bits // 8 // (2 if subsampled(dataset) else 1), present)


def subsampled(dataset: Any) -> bool:
    """Tell whether two pixels share their colour, and so take the bytes of less than two."""
    return str(dataset.get("PhotometricInterpretation")).endswith(("_422", "_420"))


def marks_of(dataset: Any, number: int) -> dict[str, str]:
    """Return what tells a slice from others at its place."""
    found = {key: listed(of_frame(dataset, number, place, key)) for key, place in MARKS.items()}
    return {key: "/".join(map(str, values)) for key, values in found.items() if values}


def spacing_of(dataset: Any, number: int) -> tuple[float, ...]:
    """Return the distance of rows and of columns in mm, at the detector for radiographs; () where there is none."""
    in_patient = numbers_of(dataset, number, "PixelMeasuresSequence", "PixelSpacing")
    at_detector = numbers_of(dataset, number, "", "ImagerPixelSpacing")
    return in_patient or at_detector or numbers_of(dataset, number, "", "NominalScannedPixelSpacing")


def thickness_of(dataset: Any, number: int) -> float:
    """Return how far a slice reaches, in mm: what stands in for the distance to the next where there is no next."""
    keywords = ("SpacingBetweenSlices", "SliceThickness")
    found = [readable_numbers_of(dataset, number, "PixelMeasuresSequence", keyword) for keyword in keywords]
    return next((abs(numbers[0]) for numbers in found if numbers and numbers[0]), 1.0)


def check_alike(slices: Sequence[Slice], path: Path) -> None:
    """Refuse slices that do not make one volume, whatever their order."""
    if not slices:
        raise MedsegError(f"{path}: no DICOM image is there.")
    if placeless := [one for one in slices if len(one.position) != 3 or len(one.orientation) != 6]:
        raise MedsegError(
            f"{path}: its {len(slices)} frames have no place in the patient ({placeless[0].name}): they are times,"
            " tiles or views. Export slices with ImagePositionPatient, or single pictures."
        )
    if not all(one.spacing for one in slices):
        raise MedsegError(f"{path}: PixelSpacing is missing, so voxels have no size. Export the series again.")
    first = slices[0]
    for one in slices:
        turned = np.abs(np.subtract(one.orientation, first.orientation)).max() > SAME_DIRECTION
        other_size = one.size != first.size or not np.allclose(one.spacing, first.spacing, rtol=1e-3)
        if turned or other_size:
            what = "direction" if turned else "size"
            raise MedsegError(
                f"{path}: slices differ in {what}: {first.name} and {one.name}. Part them into a folder each."
            )


def without_copies(slices: Sequence[Slice], path: Path) -> list[Slice]:
    """Drop slices that repeat another voxel by voxel, and refuse others at a place where one lies already."""
    kept: list[Slice] = []
    copies = 0
    for one in slices:
        before = kept[-1] if kept and np.allclose(kept[-1].position, one.position, rtol=0, atol=SAME_PLACE) else None
        if before is None:
            kept.append(one)
        elif is_copy(before, one):
            copies += 1
        else:
            raise MedsegError(repeated(before, one, slices, path))
    if copies:
        warn(f"{path}: {copies} slices are there twice, voxel by voxel; one of each is read")
    return kept


def difference(before: Slice, one: Slice) -> str | None:
    """Return the most telling attribute in which two slices differ."""
    return next((key for key in MARKS if before.marks.get(key) != one.marks.get(key)), None)


def is_copy(before: Slice, one: Slice) -> bool:
    """Tell whether a slice has the attributes and the voxels of another."""
    if difference(before, one) is not None:
        return False
    first, second = (stored(dataset_of(each.path), each) for each in (before, one))
    return bool(np.array_equal(first, second))


def repeated(before: Slice, one: Slice, slices: Sequence[Slice], path: Path) -> str:
    """Say which slices lie at one place, and in what they differ."""
    places = len({round(each.distance / SAME_PLACE) for each in slices})
    key = difference(before, one)
    told = "in their voxels only"
    if key is not None:
        found = list(dict.fromkeys(each.marks.get(key, "none") for each in slices))
        told = f"in {key}: {', '.join(found[:8])}"
    return (
        f"{path}: {len(slices)} slices lie at {places} places, such as {before.name} and {one.name} at"
        f" {one.distance:.2f} mm along the normal. They differ {told}. Export a series for each, in its own folder."
    )


def check_gaps(slices: Sequence[Slice], path: Path) -> None:
    """Refuse slices that do not lie at even distances on a straight line."""
    if len(slices) < 3:
        return
    distances = np.array([one.distance for one in slices])
    gaps = np.diff(distances)
    usual = float(np.median(gaps[gaps <= 1.5 * gaps.min()]))
    if usual > 0 and (missing := [*missing_places(distances, usual)]):
        places = ", ".join(f"{place:.2f}" for place in missing[:10])
        raise MedsegError(
            f"{path}: {len(missing)} slices are missing, at {places} mm along the normal, where slices lie {usual:.3g}"
            " mm apart. Copy the series again from its source."
        )
    indices = np.linalg.solve(affine_of(slices), LPS_RAS @ homogeneous([one.position for one in slices]))[:3]
    off = np.abs(indices - np.stack([np.zeros(len(slices)), np.zeros(len(slices)), np.arange(len(slices))])).max(0)
    if off.max() > TOLERANCE:
        worst = int(off.argmax())
        raise MedsegError(
            f"{path}: slices do not lie evenly: {slices[worst].name} is {off[worst]:.2f} voxels from where it should"
            f" be; distances are {gaps.min():.3f} to {gaps.max():.3f} mm. Convert it with a tool that resamples, as"
            " dcm2niix does."
        )


def missing_places(distances: NDArray[np.float64], usual: float) -> Iterator[float]:
    """Yield the places of missing slices in mm: gaps of a whole number of distances."""
    for before, after in pairwise(distances):
        count = round((after - before) / usual)
        if count > 1 and abs(after - before - count * usual) < count * usual * TOLERANCE:
            yield from (float(before + step * (after - before) / count) for step in range(1, count))


def affine_of(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """Return the affine of sorted slices: columns, rows and slices to RAS+ mm (DICOM PS3.3, C.7.6.2.1.1)."""
    first, last = slices[0], slices[-1]
    placed = len(first.position) == 3 and len(first.orientation) == 6
    along_i, along_j = np.reshape(first.orientation, (2, 3)) if placed else np.eye(3)[:2]
    spacing = first.spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_i * spacing[0], along_j * spacing[1]
    affine[:3, 2] = np.cross(along_i, along_j) * first.thickness
    if len(slices) > 1:
        affine[:3, 2] = np.subtract(last.position, first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position if placed else 0
    return np.eye(4) if not first.spacing else np.asarray(LPS_RAS @ affine)


def tilt_of(slices: Sequence[Slice]) -> float:
    """Return the angle in degrees between the normal of slices and the line on which they follow each other."""
    if len(slices) < 2:
        return 0.0
    line = np.subtract(slices[-1].position, slices[0].position)
    cosine = float(slices[0].normal @ line / np.linalg.norm(line))
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def homogeneous(positions: Iterable[Sequence[float]]) -> NDArray[np.float64]:
    """Return positions (n, 3) as columns (4, n) that a 4x4 matrix maps."""
    columns = np.array(list(positions)).T
    return np.vstack([columns, np.ones(columns.shape[1])])


# ---- what slices hold


def voxels(slices: Sequence[Slice], first: Any, path: Path) -> NDArray[np.float32]:
    """Return the values (slices, rows, columns[, 3]) of slices in their order."""
    columns, rows = slices[0].size
    colours = (3,) if colours_of(first) == 3 else ()
    result = np.empty((len(slices), rows, columns, *colours), dtype=np.float32)
    places = sorted(range(len(slices)), key=lambda place: str(slices[place].path))
    for file, group in groupby(places, key=lambda place: slices[place].path):
        dataset = dataset_of(file)
        for place in group:
            result[place] = rescaled(dataset, slices[place], path)
    lost = np.isnan(result) if first.get("Modality") == "CT" else np.False_
    if lost.any() and not lost.all():
        np.copyto(result, np.nanmin(result), where=lost)
    return result


def colours_of(dataset: Any) -> int:
    """Return the number of channels of an image: 3 for colours, also where a palette has them."""
    return (
        3 if dataset.get("PhotometricInterpretation") == "PALETTE COLOR" else int(dataset.get("SamplesPerPixel") or 1)
    )


def rescaled(dataset: Any, one: Slice, path: Path) -> NDArray[np.float32]:
    """Return the values of a slice in the modality's own unit, such as HU; padding of CT is NaN."""
    pixels = stored(dataset, one)
    padding = padded(pixels, dataset)
    if str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
        lowest = -(1 << int(dataset.BitsStored) - 1) if pixels.dtype.kind == "i" else 0
        pixels = lowest + lowest + (1 << int(dataset.BitsStored)) - 1 - pixels.astype(np.int64)
    if "ModalityLUTSequence" in dataset:
        values = pydicom().pixels.apply_modality_lut(pixels, dataset).astype(np.float32)
    else:
        slope = numbers_of(dataset, one.number, "PixelValueTransformationSequence", "RescaleSlope") or (1.0,)
        offset = numbers_of(dataset, one.number, "PixelValueTransformationSequence", "RescaleIntercept") or (0.0,)
        values = pixels.astype(np.float32) * np.float32(slope[0]) + np.float32(offset[0])
    if padding is not None:
        values[padding] = np.nan
    return values


def stored(dataset: Any, one: Slice) -> NDArray[Any]:
    """Return the pixels (rows, columns[, 3]) of a slice as they are stored, colours as RGB."""
    return frame_pixels(one.path, dataset, one.number)


def frame_pixels(path: Path, dataset: Any, number: int, *, raw: bool = False) -> NDArray[Any]:
    """Return the pixels (rows, columns[, colours]) of frame ``number`` (from 0); colours as RGB, unless ``raw``.

    Raises:
        MedsegError: they cannot be decoded.
    """
    library = pydicom()
    try:
        packed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
        pixels = (decode if packed else library.pixels.pixel_array)(dataset, index=number, raw=raw)
        if not raw and str(dataset.get("PhotometricInterpretation")) == "PALETTE COLOR":
            pixels = library.pixels.apply_color_lut(pixels, dataset)
            pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
        return np.asarray(pixels)
    except DAMAGE as error:
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        raise MedsegError(
            f"{path}: its pixels cannot be decoded ({getattr(syntax, 'name', 'unknown transfer syntax')}): {error}."
            " The file is damaged or truncated, or a decoder is missing: pip install 'medseg[dicom]'."
        ) from error


def padded(pixels: NDArray[Any], dataset: Any) -> NDArray[np.bool_] | None:
    """Tell which stored pixels of a CT are padding, outside of what was scanned (PS3.3, C.7.5.1.1.2)."""
    value = next(iter(listed(dataset.get("PixelPaddingValue"))), None)
    if dataset.get("Modality") != "CT" or value is None or pixels.dtype.kind not in "iu" or pixels.ndim > 2:
        return None
    limit = next(iter(listed(dataset.get("PixelPaddingRangeLimit"))), value)
    # the sign of these two is often not that of the pixels
    low, high = sorted(int(np.array(int(end)).astype(pixels.dtype)) for end in (value, limit))
    found = (pixels >= low) & (pixels <= high)
    return found if found.any() else None


def suv_of(slices: Iterable[Slice], first: Any, path: Path) -> float:
    """Return what the values of a PET series are multiplied by to be SUVbw."""
    try:
        times = [time for file in files(slices) if (time := acquired(dataset_of(file, pixels=False))) is not None]
        return suv_factor(first, min(times, default=None), str(path))
    except (ValueError, TypeError) as error:
        raise refused(str(path), f"a date or number in it cannot be read ({error})") from error


def files(slices: Iterable[Slice]) -> list[Path]:
    """Return the files of slices, each once."""
    return list(dict.fromkeys(one.path for one in slices))


def dataset_of(file: Path, *, pixels: bool = True) -> Any:
    """Read a file's data set, with or without its pixels; MedsegError where it is damaged."""
    library = pydicom()
    try:
        dataset = read_dataset(file, stop_before_pixels=not pixels)
        if "TransferSyntaxUID" not in dataset.file_meta:  # of files without preamble, whose pixels are plain
            implicit, little = dataset.original_encoding
            plain = library.uid.ExplicitVRLittleEndian if little else library.uid.ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = library.uid.ImplicitVRLittleEndian if implicit else plain
        return dataset
    except DAMAGE as error:
        raise MedsegError(f"{file}: no readable DICOM file; damaged, truncated or something else? {error}") from error
