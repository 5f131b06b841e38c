"""Data sets opened as a config would open them, and DICOM files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scan_files import read_scan

from medseg.config.check import resolve
from medseg.config.schema import CONF, typed
from medseg.config.settings import DatasetSettings
from medseg.io.case import Dataset
from medseg.io.datasets.dataset import open_dataset


@pytest.fixture(scope="session")
def opened() -> Callable[..., Dataset]:
    """Return ``opened(name, root, **values)``: the data set of ``conf/dataset/<name>.yaml`` with these values."""

    def open_with(name: str, root: Path, **values: Any) -> Dataset:
        files = [CONF / "common" / "dataset.yaml", CONF / "dataset" / f"{name}.yaml"]
        common, own = (yaml.safe_load(file.read_text("utf-8")) for file in files)
        node = {**common, **own, "root": str(root), **values}
        config = {"dataset": {key: node[key] for key in node if key != "defaults"}}
        return open_dataset(typed(DatasetSettings, resolve(config)["dataset"]))

    return open_with


@pytest.fixture
def dicom_file(tmp_path):
    """Write a DICOM file of pixels (rows, columns), (frames, rows, columns) or, with colours, (rows, columns, 3)."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def write(name, pixels, position=None, colours=False, syntax=None, **tags):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        instance = generate_uid()
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = tags.get("SOPClassUID") or CTImageStorage
        meta.MediaStorageSOPInstanceUID = instance
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        frames = [len(pixels)] if pixels.ndim == 3 and not colours else []
        rows, columns = pixels.shape[len(frames) : len(frames) + 2]
        values = {
            "SOPClassUID": meta.MediaStorageSOPClassUID,
            "SOPInstanceUID": instance,
            "StudyInstanceUID": "1.2.1",
            "SeriesInstanceUID": "1.2.2",
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "Rows": rows,
            "Columns": columns,
            "SamplesPerPixel": 3 if colours else 1,
            "PhotometricInterpretation": "RGB" if colours else "MONOCHROME2",
            "BitsAllocated": 8 * pixels.itemsize,
            "BitsStored": 8 * pixels.itemsize,
            "HighBit": 8 * pixels.itemsize - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
        }
        if colours:
            values["PlanarConfiguration"] = 0
        if frames:
            values["NumberOfFrames"] = frames[0]
        if position is not None:
            values |= {
                "ImagePositionPatient": [float(value) for value in position],
                "ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0],
                "PixelSpacing": [0.75, 0.5],
                "SliceThickness": 2.0,
            }
        for keyword, value in (values | tags).items():
            if value is not None:
                setattr(dataset, keyword, value)
        dataset.PixelData = pixels.tobytes()
        if syntax is not None:
            dataset.compress(syntax)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def dicom_series(dicom_file):
    """Write a series of slices (rows, columns) 2 mm apart into a folder; ``tags`` are of all, or a list for each."""

    def write(folder, volume, direction=(0, 0, 1), step=2.0, start=(-10.0, 5, -30), **tags):
        for place, pixels in enumerate(volume):
            own = {key: value[place] if isinstance(value, tuple) else value for key, value in tags.items()}
            position = [start[axis] + place * step * direction[axis] for axis in range(3)]
            dicom_file(f"{folder}/IM{(place * 7 + 3) % 10}{place}", pixels, **{"position": position} | own)

    return write


@pytest.fixture
def made_series(dicom_file, tmp_path):
    """Write a CT series of this shape (columns, rows, slices), as far described as segmentations need it; read it."""

    def write(shape, orientation=(1, 0, 0, 0, 1, 0), spacing=(0.8, 0.6), step=2.5, tilt=0.0):
        columns, rows = np.reshape(orientation, (2, 3))
        along = np.cross(columns, rows) * step + rows * tilt
        for place in range(shape[2]):
            dicom_file(
                f"series/{place * 7 % 10}{place}",
                np.zeros(shape[1::-1], np.int16),
                (np.array([-20.5, 11.25, 40.0]) + place * along).round(8),
                ImageOrientationPatient=list(orientation),
                PixelSpacing=list(spacing),
                SliceThickness=step,
                SOPInstanceUID=f"1.3.{place + 1}",
                StudyInstanceUID="1.4",
                SeriesInstanceUID="1.5",
                FrameOfReferenceUID="1.9",
                SpecificCharacterSet="ISO_IR 100",
                PatientName="Müller^J",
                PatientID="7",
                StudyDate="20240131",
                StudyTime="1200",
                SeriesNumber=3,
            )
        return read_scan([tmp_path / "series"])

    return write
