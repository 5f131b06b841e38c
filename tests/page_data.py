"""The data sets that the pages of docs/start.md, docs/data/ and docs/trouble/ name, small, made of phantoms.

``python tests/page_data.py [FOLDER]`` writes them below ``FOLDER/data``, so that the pages' commands run in ``FOLDER``.
"""

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from brats_phantom import write_brats
from numpy.typing import NDArray
from PIL import Image
from scan_files import read_scan

from medseg.io.case import Scan
from medseg.io.files.write_masks import write_classes
from medseg.io.labels import LabelMap
from medseg.io.layouts.synthetic import CORE, make_phantom, write_decathlon, write_nifti

Labels = NDArray[np.uint8]

CASES, SIZE = 10, 24
"""Of each data set, two cases a patient, and about how many voxels long an axis is; 2D images are twice as large."""

MASKS = {"liver": lambda label: label > 0, "tumour": lambda label: label >= CORE}
"""The two nested structures that pages call by these names, as parts of the phantom's lesion."""


def write_all(root: Path) -> None:
    """Write every data set below ``root``, which is made."""
    root.mkdir(parents=True)
    write_pictures(root / "cells", root / "new_cells")
    write_volumes(root / "heart", root / "new_hearts")
    write_channels(root / "lesions")
    write_class_masks(root / "organs")
    write_dicom(root / "ct", root / "new_ct")
    write_brats(root / "BraTS2021", "brats2021", cases=CASES, size=SIZE, seed=0)
    (root / "Task04_Hippocampus").mkdir()
    write_decathlon(root / "Task04_Hippocampus", phantom, CASES, channels=1, prefix="hippocampus")
    write_nnunet(root / "nnUNet_raw" / "Dataset004_Hippocampus")
    write_table(root)


@cache
def phantom(index: int, dims: int = 3, channels: int = 1) -> tuple[Scan, Labels]:
    """Make a case that two data sets may share."""
    return make_phantom(index, dims=dims, channels=channels, size=SIZE if dims == 3 else 2 * SIZE, seed=0)


def names() -> Iterator[tuple[int, str]]:
    """Number the cases, and call them by patient and visit: two visits each."""
    for index in range(CASES):
        yield index, f"p{index // 2 + 1:02d}_{index % 2 + 1}"


def write_picture(path: Path, pixels: NDArray[np.generic]) -> None:
    """Write pixels (rows, columns) as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_volume(path: Path, array: NDArray[np.generic], like: Scan) -> None:
    """Write voxels (*spatial) or channels (C, *spatial) as NIfTI; masks, of truth values, as 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array[None] if array.ndim == 3 else array
    write_nifti(path, array.astype(np.uint8) if array.dtype == bool else array, like)


def write_pictures(root: Path, new: Path) -> None:
    """Grey PNG with masks of 0 and 255, and two pictures without a mask."""
    for index, name in names():
        scan, label = phantom(index, dims=2)
        write_picture(root / "images" / f"{name}.png", scan.image[0])
        write_picture(root / "masks" / f"{name}.png", (label > 0) * 255)
    for index in (CASES, CASES + 1):
        write_picture(new / f"new_{index}.png", phantom(index, dims=2)[0].image[0])


def write_volumes(root: Path, new: Path) -> None:
    """Volumes of one channel with a mask of the values 1, 2 and 3, a table of their patients, and two without."""
    for index, name in names():
        scan, label = phantom(index)
        write_volume(root / "images" / f"{name}.nii.gz", scan.image, scan)
        write_volume(root / "masks" / f"{name}.nii.gz", label, scan)
    with (root / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "group"), *((name, name[:3]) for _, name in names())])
    for index in (CASES, CASES + 1):
        scan, _ = phantom(index)
        write_volume(new / f"new_{index}.nii.gz", scan.image, scan)


def write_channels(root: Path) -> None:
    """A file a channel."""
    for index, name in names():
        scan, label = phantom(index, channels=2)
        for channel, ending in zip(scan.image, ("flair", "t1"), strict=True):
            write_volume(root / "images" / f"{name}_{ending}.nii.gz", channel, scan)
        write_volume(root / "masks" / f"{name}.nii.gz", label >= CORE, scan)


def write_class_masks(root: Path) -> None:
    """A mask a class."""
    for index, name in names():
        scan, label = phantom(index)
        write_volume(root / "images" / f"{name}.nii.gz", scan.image, scan)
        for structure, of in MASKS.items():
            write_volume(root / "masks" / f"{name}_{structure}.nii.gz", of(label), scan)


def write_nnunet(root: Path) -> None:
    """A raw data set of nnU-Net v2."""
    for index in range(CASES):
        scan, label = phantom(index)
        write_volume(root / "imagesTr" / f"hippocampus_{index:03d}_0000.nii.gz", scan.image, scan)
        write_volume(root / "labelsTr" / f"hippocampus_{index:03d}.nii.gz", label.clip(0, 2), scan)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))


def write_table(root: Path) -> None:
    """A table of the volumes with two channels, with the patient and the site."""
    rows = [("id", "image_flair", "image_t1", "label", "group", "site")]
    for index, name in names():
        channels = (f"lesions/images/{name}_{ending}.nii.gz" for ending in ("flair", "t1"))
        rows.append((name, *channels, f"lesions/masks/{name}.nii.gz", name[:3], ("Bonn", "Oslo")[index // 2 % 2]))
    with (root / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


# ---- DICOM


def write_dicom(root: Path, new: Path) -> None:
    """CT series, of the first half of the patients with a DICOM SEG, of the others with an RTSTRUCT; one without.

    ``clinic`` beside them has the same, in a folder for each patient.
    """
    label_map = LabelMap({"background": 0, "Liver": 1, "GTV": 2})
    for index in range(CASES):
        name = f"p{index + 1:02d}"
        write_series(root / "images" / name, index)
        scan = read_scan([root / "images" / name])
        lesion = phantom(index)[1]
        classes = (lesion > 0).astype(np.uint8) + (lesion >= CORE)
        form = "dicom_seg" if index < CASES // 2 else "rtstruct"
        write_classes(root / "masks" / f"{name}.dcm", classes, label_map, scan, form)
        patient = root.parent / "clinic" / name
        shutil.copytree(root / "images" / name, patient / "CT")
        (patient / "SEG").mkdir()
        shutil.copy(root / "masks" / f"{name}.dcm", patient / "SEG" / "1-1.dcm")
    write_series(new / "p99", CASES)


def write_series(folder: Path, index: int) -> None:
    """Write the slices of a case, a file each, as a CT that has as many attributes as segmentations need."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    scan, _ = phantom(index)
    study = f"1.2.{index + 1}"
    folder.mkdir(parents=True)
    for place, pixels in enumerate(np.moveaxis(scan.image[0], -1, 0)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{study}.2.{place + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "StudyInstanceUID": f"{study}.1",
            "SeriesInstanceUID": f"{study}.2",
            "FrameOfReferenceUID": f"{study}.3",
            "SeriesDescription": "thorax",
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "PatientID": folder.name,
            "SeriesNumber": 1,
            "ImagePositionPatient": [0.0, 0.0, float(place * scan.spacing[2])],
            "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            "PixelSpacing": [float(scan.spacing[1]), float(scan.spacing[0])],
            "SliceThickness": float(scan.spacing[2]),
            "Columns": pixels.shape[0],
            "Rows": pixels.shape[1],
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 0,
            "PixelData": pixels.T.astype(np.uint16).tobytes(),
        }
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(folder / f"IM{place + 1:04d}", enforce_file_format=True)


if __name__ == "__main__":
    write_all(Path(*sys.argv[1:2]) / "data")
