"""DICOM images: one series, multi-frame object or single 2D image, from its slices to voxels.

``medseg.io.dicom.series`` decides which files form an image. Read here are the positions, by which slices are sorted
and checked for gaps, and the values: rescaled slice by slice, MONOCHROME1 inverted, padding as air, and PET in SUV.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.damage import reading
from medseg.io.dicom.decoder_process import decode
from medseg.io.dicom.headers import listed, numbers_of, of_frame, pydicom, read_dataset, readable_numbers_of
from medseg.io.dicom.series import SAME_DIRECTION, SAME_PLACE, files_of
from medseg.io.dicom.suv import acquired, refused, suv_factor
from medseg.io.formats.archives import file_length
from medseg.io.formats.nifti import check_affine
from medseg.io.grids.grid import LPS_RAS, TOLERANCE, Grid
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
"""Attributes that tell slices at one position apart, the most telling first, and their multi-frame sequences."""

MOST_COLOURS = 1 << 16
"""Of a palette."""

TILTED = 0.5  # degrees from which slices count as sheared
USUAL = 0.25  # the share of gaps between slices that have the slices' distance, at least, where slices are missing

ITEM, HARMLESS = 8, 1 << 18
"""Bytes that a packed frame takes at least; packed bytes that any file may lack for what it unpacks to."""


@dataclass(frozen=True)
class Slice:
    """A slice: frame ``number`` (from 0) of a file, and where it lies.

    ``orientation`` (6) and ``position`` (3, LPS mm) are empty where it has no position, ``spacing`` (2), along
    columns and rows' indices, where it has no size. ``marks`` are values of ``MARKS``.
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
        """Position along the normal, in mm."""
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
    affine. Pixels without a size are 2D images with the unit "px". Values are float32 after the rescale of each slice;
    MONOCHROME1 is inverted, CT padding has the lowest real value, colours are three channels, PET is SUVbw.

    Raises:
        MedsegError: pydicom or a decoder is missing, the folder holds no or several images, a file is damaged, slices
            are missing, lie unevenly or at the same position, have no position, or PET lacks what SUV is computed from.
    """
    slices = sorted_slices(path)
    first = dataset_of(slices[0].path, pixels=False)
    values = voxels(slices, first)  # (slices, rows, columns[, colours])
    files = tuple(dict.fromkeys(one.path for one in slices))
    if first.get("Modality") == "PT":
        try:
            times = [time for file in files if (time := acquired(dataset_of(file, pixels=False))) is not None]
            values *= np.float32(suv_factor(first, min(times, default=None), str(path)))
        except (ValueError, TypeError) as error:
            raise refused(str(path), f"a date or number in it cannot be read ({error})") from error
    if len(slices) > 1:
        line = np.subtract(slices[-1].position, slices[0].position)  # on which slices follow each other
        cosine = float(slices[0].normal @ line / np.linalg.norm(line))
        if (tilt := float(np.degrees(np.arccos(min(1.0, cosine))))) > TILTED:
            log.info(
                "%s: slices are sheared by %.1f degrees (gantry tilt), and so is the grid they are read on", path, tilt
            )
    planes = values.reshape(*values.shape[:3], -1).transpose(3, 2, 1, 0)  # (C, columns, rows, slices)
    layout = DicomLayout(
        path,
        files,
        tuple(one.number + 1 for one in slices) if int(first.get("NumberOfFrames") or 1) > 1 else None,
        str(first.get("SeriesInstanceUID", "")),
        "mm" if slices[0].spacing else "px",
    )
    return (planes if len(slices) > 1 else planes[..., 0]), affine_of(slices), layout


def grid(path: Path) -> tuple[Grid, int]:
    """Return the grid of an image and the number of its channels, from the headers alone; errors as in ``read``."""
    slices = sorted_slices(path)
    shape = (*slices[0].size, len(slices)) if len(slices) > 1 else slices[0].size
    return Grid(shape, affine_of(slices)), colours_of(dataset_of(slices[0].path, pixels=False))


# ---- where slices lie


def sorted_slices(path: Path) -> list[Slice]:
    """Return the slices of an image in the order of their positions; errors as in ``read``."""
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
    with reading(file, "DICOM image"):
        check_frames(file, dataset)
        for number in range(int(dataset.get("NumberOfFrames") or 1)):
            # distances of rows and of columns in mm: in the patient, or else at the detector of a radiograph
            spacing = (
                numbers_of(dataset, number, "PixelMeasuresSequence", "PixelSpacing")
                or numbers_of(dataset, number, "", "ImagerPixelSpacing")
                or numbers_of(dataset, number, "", "NominalScannedPixelSpacing")
            )
            rows_apart, columns_apart, *_ = [*spacing, 0, 0]
            thicknesses = [
                readable_numbers_of(dataset, number, "PixelMeasuresSequence", keyword)
                for keyword in ("SpacingBetweenSlices", "SliceThickness")
            ]
            marks = {key: listed(of_frame(dataset, number, sequence, key)) for key, sequence in MARKS.items()}
            yield Slice(
                file,
                number,
                (int(dataset.Columns), int(dataset.Rows)),
                numbers_of(dataset, number, "PlaneOrientationSequence", "ImageOrientationPatient"),
                numbers_of(dataset, number, "PlanePositionSequence", "ImagePositionPatient"),
                (columns_apart, rows_apart) if rows_apart > 0 and columns_apart > 0 else (),
                next((abs(lengths[0]) for lengths in thicknesses if lengths and lengths[0]), 1.0),
                {key: "/".join(map(str, values)) for key, values in marks.items() if values},
            )


def check_frames(file: Path, dataset: Any) -> None:
    """Reject sizes that the file is too short for.

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
        # two pixels that share their colour take the bytes of less than two
        is_subsampled = str(dataset.get("PhotometricInterpretation")).endswith(("_422", "_420"))
        check_length(shape, bits // 8 // (2 if is_subsampled else 1), present)


def check_alike(slices: Sequence[Slice], path: Path) -> None:
    """Reject slices that do not make one volume, whatever their order."""
    if not slices:
        raise MedsegError(f"{path}: no DICOM image is there.")
    if placeless := [one for one in slices if len(one.position) != 3 or len(one.orientation) != 6]:
        raise MedsegError(
            f"{path}: its {len(slices)} frames have no position in the patient ({placeless[0].name}): they are times,"
            " tiles or views. Export slices with ImagePositionPatient, or single 2D images."
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
                f"{path}: slices differ in {what}: {first.name} and {one.name}. Put them into a folder each."
            )


def without_copies(slices: Sequence[Slice], path: Path) -> list[Slice]:
    """Drop slices that repeat another voxel by voxel, and reject others at the position of another."""
    unique: list[Slice] = []
    copies = 0
    for one in slices:
        if not unique or not np.allclose(unique[-1].position, one.position, rtol=0, atol=SAME_PLACE):
            unique.append(one)
            continue
        before = unique[-1]
        key = next((key for key in MARKS if before.marks.get(key) != one.marks.get(key)), None)
        if key is None:
            first, second = (frame_pixels(each.path, dataset_of(each.path), each.number) for each in (before, one))
            if np.array_equal(first, second):
                copies += 1
                continue
            difference = "in their voxels only"
        else:
            values = list(dict.fromkeys(each.marks.get(key, "none") for each in slices))
            difference = f"in {key}: {', '.join(values[:8])}"
        positions = len({round(each.distance / SAME_PLACE) for each in slices})
        raise MedsegError(
            f"{path}: {len(slices)} slices lie at {positions} places, such as {before.name} and {one.name} at"
            f" {one.distance:.2f} mm along the normal. They differ {difference}. Export a series for each, in its own"
            " folder."
        )
    if copies:
        warn(f"{path}: {copies} slices are there twice, voxel by voxel; one of each is read")
    return unique


def check_gaps(slices: Sequence[Slice], path: Path) -> None:
    """Reject slices that do not lie at even distances on a straight line."""
    if len(slices) < 3:
        return
    distances = np.array([one.distance for one in slices])
    gaps = np.diff(distances)
    usual = float(np.median(gaps[gaps <= 1.5 * gaps.min()]))
    # a small gap that is rare is that of a misplaced slice
    is_usual = usual > 0 and np.mean(np.abs(gaps - usual) < TOLERANCE * usual) >= USUAL
    missing: list[float] = []
    for before, after in pairwise(distances) if is_usual else ():
        # a gap of a whole number of distances lacks the slices between
        count = round((after - before) / usual)
        if count > 1 and abs(after - before - count * usual) < count * usual * TOLERANCE:
            missing += [float(before + step * (after - before) / count) for step in range(1, count)]
    if missing:
        positions = ", ".join(f"{position:.2f}" for position in missing[:10])
        raise MedsegError(
            f"{path}: {len(missing)} slices are missing, at {positions} mm along the normal, where slices lie"
            f" {usual:.3g} mm apart. Copy the series again from its source."
        )
    # the indices that the affine gives the slices' positions must be (0, 0, 0), (0, 0, 1), ...
    positions_lps = np.array([(*one.position, 1.0) for one in slices]).T  # (4, slices)
    indices = np.linalg.solve(affine_of(slices), LPS_RAS @ positions_lps)[:3]
    off = np.abs(indices - np.stack([np.zeros(len(slices)), np.zeros(len(slices)), np.arange(len(slices))])).max(0)
    if off.max() > TOLERANCE:
        worst = int(off.argmax())
        raise MedsegError(
            f"{path}: slices do not lie evenly: {slices[worst].name} is {off[worst]:.2f} voxels from where it should"
            f" be; distances are {gaps.min():.3f} to {gaps.max():.3f} mm. Convert it with a tool that resamples, as"
            " dcm2niix does."
        )


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


# ---- what slices hold


def voxels(slices: Sequence[Slice], first: Any) -> NDArray[np.float32]:
    """Return the values (slices, rows, columns[, 3]) of slices in their order."""
    columns, rows = slices[0].size
    colours = (3,) if colours_of(first) == 3 else ()
    result = np.empty((len(slices), rows, columns, *colours), dtype=np.float32)
    by_file = sorted(range(len(slices)), key=lambda index: str(slices[index].path))  # each file is read but once
    for file, group in groupby(by_file, key=lambda index: slices[index].path):
        dataset = dataset_of(file)
        for index in group:
            result[index] = rescaled(dataset, slices[index])
    is_padding = np.isnan(result) if first.get("Modality") == "CT" else np.False_
    if is_padding.any() and not is_padding.all():
        np.copyto(result, np.nanmin(result), where=is_padding)
    return result


def colours_of(dataset: Any) -> int:
    """Return the number of channels of an image: 3 for colours, also where a palette has them."""
    return (
        3 if dataset.get("PhotometricInterpretation") == "PALETTE COLOR" else int(dataset.get("SamplesPerPixel") or 1)
    )


def rescaled(dataset: Any, one: Slice) -> NDArray[np.float32]:
    """Return the values of a slice in the modality's own unit, such as HU; padding of CT is NaN."""
    pixels = frame_pixels(one.path, dataset, one.number)
    # padding lies outside of what was scanned (PS3.3, C.7.5.1.1.2)
    is_padding = None
    padding = next(iter(listed(dataset.get("PixelPaddingValue"))), None)
    if dataset.get("Modality") == "CT" and padding is not None and pixels.dtype.kind in "iu" and pixels.ndim <= 2:
        limit = next(iter(listed(dataset.get("PixelPaddingRangeLimit"))), padding)
        # the sign of these two is often not that of the pixels
        low, high = sorted(int(np.array(int(end)).astype(pixels.dtype)) for end in (padding, limit))
        is_padding = (pixels >= low) & (pixels <= high)
    if str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
        lowest = -(1 << int(dataset.BitsStored) - 1) if pixels.dtype.kind == "i" else 0
        pixels = lowest + lowest + (1 << int(dataset.BitsStored)) - 1 - pixels.astype(np.int64)
    if "ModalityLUTSequence" in dataset:
        values = pydicom().pixels.apply_modality_lut(pixels, dataset).astype(np.float32)
    else:
        slope = numbers_of(dataset, one.number, "PixelValueTransformationSequence", "RescaleSlope") or (1.0,)
        offset = numbers_of(dataset, one.number, "PixelValueTransformationSequence", "RescaleIntercept") or (0.0,)
        values = pixels.astype(np.float32) * np.float32(slope[0]) + np.float32(offset[0])
    if is_padding is not None:
        values[is_padding] = np.nan
    return values


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
            check_palette(dataset)
            pixels = library.pixels.apply_color_lut(pixels, dataset)
            pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
        return np.asarray(pixels)
    except Exception as error:  # pydicom and its decoders raise nearly anything on damaged files
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        raise MedsegError(
            f"{path}: its pixels cannot be decoded ({getattr(syntax, 'name', 'unknown transfer syntax')}): {error}."
            " The file is damaged or truncated, or a decoder is missing: pip install 'medseg[dicom]'."
        ) from error


def check_palette(dataset: Any) -> None:
    """Reject a palette in segments (PS3.3, C.7.9.2) that expands to more than palettes have; ValueError.

    A segment may be as long as a palette, and others may repeat it, so that a few bytes would fill the memory.
    """
    bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    kind = np.dtype(f"{'<' if dataset.original_encoding[1] else '>'}u{bits // 8}")
    for colour in ("Red", "Green", "Blue", "Alpha"):
        packed = dataset.get(f"Segmented{colour}PaletteColorLookupTableData") or b""
        numbers = np.frombuffer(packed, kind, len(packed) // kind.itemsize).tolist()
        if colours_in(numbers, kind, 0, 0, 2 * MOST_COLOURS) > 2 * MOST_COLOURS:
            raise ValueError(f"its palette expands to more than {MOST_COLOURS} colours")


def colours_in(numbers: Sequence[int], kind: np.dtype[Any], at: int, count: int, most: int) -> int:
    """Return how many colours ``count`` segments from ``at`` on expand to (0: all), and a step for each of them.

    Little more than ``most`` where it is more. As pydicom does, segments that repeat others are followed.
    """
    total = n_segments = 0
    while at + 1 < len(numbers) and total <= most:
        code, length = numbers[at : at + 2]
        total, n_segments = total + 1, n_segments + 1
        if code == 2:
            place = numbers[at + 2 : at + 2 + 4 // kind.itemsize]
            order = ([3, 2, 1, 0] if kind.byteorder != ">" else [2, 3, 0, 1]) if kind.itemsize == 1 else [1, 0]
            first = 0
            for index in order:
                first = first << 8 * kind.itemsize | place[index]
            total += colours_in(numbers, kind, first, length, most - total)
            at += 2 + len(place)
        else:
            total += length
            at += 2 + (length if code == 0 else 1)
        if n_segments == count:
            break
    return total


def dataset_of(file: Path, *, pixels: bool = True) -> Any:
    """Read a file's data set, with or without its pixels; MedsegError where it is damaged."""
    library = pydicom()
    with reading(file, "DICOM file"):
        dataset = read_dataset(file, stop_before_pixels=not pixels)
        if "TransferSyntaxUID" not in dataset.file_meta:  # of files without preamble, whose pixels are plain
            implicit, little = dataset.original_encoding
            plain = library.uid.ExplicitVRLittleEndian if little else library.uid.ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = library.uid.ImplicitVRLittleEndian if implicit else plain
        return dataset
