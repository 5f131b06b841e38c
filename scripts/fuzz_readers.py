"""Fuzz medseg's readers, guided by coverage: each must return what it should, or raise a MedsegError.

A finding is any other exception, a crash of native code, a result that contradicts itself, more than 1 GB of memory
beyond what the libraries take, or more than 5 s of a processor, of one file of at most 64 kB. ``make fuzz`` runs all
targets, MINUTES in total; ``python scripts/fuzz_readers.py --target nrrd FILE`` repeats a finding. Needs atheris and
medseg's dev extra. What is found, and each target's corpus, are kept below ``outputs/fuzz``.
"""

import argparse
import json
import logging
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import atheris
import numpy as np

with atheris.instrument_imports(include=["medseg", "nibabel", "PIL", "pydicom"], enable_loader_override=False):
    from medseg.errors import MedsegError
    from medseg.inference.loading import read_models
    from medseg.io.case import Case, Scan
    from medseg.io.datasets.splits import read_folds
    from medseg.io.dicom import rtstruct, seg
    from medseg.io.files.read import exists, find_images, find_masks, on_disk, read_case, read_mask
    from medseg.io.files.read_segments import read_segments, segment_names
    from medseg.io.files.sizes import UNKNOWN, size_of
    from medseg.io.labels import LabelMap
    from medseg.io.layouts.csv_table import table
    from medseg.io.layouts.decathlon_json import decathlon
    from medseg.io.layouts.nnunet_raw import nnunet
    from medseg.io.segments import seg_nrrd
    from medseg.io.segments.terminology import describe
    from medseg.io.tables import class_names, read_table

ROOT = Path(__file__).parents[1]
CHECKPOINTS = ROOT / "tests" / "inference" / "checkpoints"
SECONDS, MEMORY, LONGEST = 5, 10**9, 1 << 16
SHAPE = (5, 4, 3)
AFFINE = np.array([[-0.8, 0.0, 0.1, 10.0], [0.0, 0.7, 0.0, -20.0], [0.1, 0.0, 2.5, 30.0], [0.0, 0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Target:
    """What is fuzzed: the first byte of the data picks one of ``names``, under which the rest is written and read.

    ``write`` writes good files into a folder, the seeds, called as the names are but for the first letter, and into
    another all that has to lie beside them. ``words`` are what a format is made of.
    """

    names: tuple[str, ...]
    write: Callable[[Path, Path], None]
    read: Callable[[Path], None]
    words: tuple[str, ...] = ()


# ---- what is read, and what must be so


def image(path: Path) -> None:
    """Read a file as an image, a mask and by its header alone; what comes of these must agree."""
    size = size_of(Case("a", "a", (path,)))
    exists(path), on_disk(path)
    for find in (find_images, find_masks):
        with suppress(MedsegError):
            find(path)
    values = None
    with suppress(MedsegError):
        values = read_mask(path)
    scan = read_case(Case("", "", (path,)))
    assert scan.image.dtype == np.float32
    assert scan.image.ndim in (3, 4)
    assert np.isfinite(scan.image).all()
    assert np.isfinite(scan.affine).all()
    assert min(scan.spacing) > 0
    if size is not UNKNOWN:
        assert size.voxels == np.prod(scan.shape), (size, scan)
        assert size.channels == len(scan.image), (size, scan)
    if values is not None and len(scan.image) == 1 and values.shape == scan.shape:
        assert np.allclose(values, scan.image[0], rtol=1e-6, atol=0.03), "a mask's values are not those of the image"


def segments(path: Path) -> None:
    """Read a file of named segments and all of its masks."""
    like = (
        read_case(Case("", "", (path.parent / "series",)))
        if path.suffix == ".dcm"
        else Scan(np.zeros((1, *SHAPE), "f4"), AFFINE)
    )
    with suppress(MedsegError):
        names = segment_names(path)
        assert all(isinstance(name, str) for name in names)
    found = read_segments(path, like)
    for segment in found.segments:
        assert segment.mask.dtype == bool
        assert segment.mask.any()
        assert all(
            0 <= span.start < span.stop <= size for span, size in zip(segment.box, found.grid.shape, strict=True)
        )


def series(path: Path) -> None:
    """Read all images of a folder, or of an archive, as ``predict`` does; one that is bad does not hide the others."""
    for found in find_images(path.parent if path.suffix != ".zip" else path):
        with suppress(MedsegError):
            read_case(Case("", "", (found,)))


def data_set(path: Path) -> None:
    """Open the folder of a ``dataset.json``, or the split of a ``splits_final.json``."""
    if path.name.startswith("splits"):
        read_folds(path)
        return
    for layout in (decathlon, nnunet):
        with suppress(MedsegError):
            dataset = layout(path.parent)
            if dataset.labels is not None:
                LabelMap(dataset.labels, dataset.regions, dataset.region_order)
            repr(dataset)


def cells(path: Path) -> None:
    """Read a CSV file as a table, as a data set and as a split."""
    with suppress(MedsegError):
        dataset = table(path.parent, path.name)
        assert len({case.id for case in dataset.cases}) == len(dataset.cases)
    with suppress(MedsegError):
        read_folds(path)
    for row in read_table(path, "dataset.table"):
        for cell in row.values():
            class_names(cell)


def model(path: Path) -> None:
    """Read a checkpoint that describes itself by this JSON."""
    import torch

    try:
        description = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    raw = torch.load(CHECKPOINTS / "format_3.ckpt", weights_only=True)
    checkpoint = path.with_suffix(".ckpt")
    torch.save({**raw, "medseg": description}, checkpoint)
    read_models(checkpoint)


# ---- good files


def voxels(dtype: Any) -> Any:
    return np.random.default_rng(1).integers(0, 9, SHAPE).astype(dtype)


def nifti_files(seeds: Path, beside: Path) -> None:
    import nibabel

    for kind, dtype, name in (
        (nibabel.Nifti1Image, np.int16, "a.nii"),
        (nibabel.Nifti2Image, np.float32, "b.nii"),
        (nibabel.Nifti1Image, np.uint8, "a.nii.gz"),
        (nibabel.Nifti1Pair, np.uint8, "a.img"),
    ):
        volume = kind(voxels(dtype), AFFINE)
        volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a" * 20))
        volume.to_filename(seeds / name)
    (seeds / "a.img").rename(beside / "a.img")


def itk_files(seeds: Path, beside: Path, names: Sequence[str]) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(voxels(np.int16).T)
    image.SetSpacing((0.8, 0.7, 2.5))
    for name in names:
        SimpleITK.WriteImage(image, str(seeds / name), useCompression=name.startswith("b"))
    (seeds / "a.raw").rename(beside / "a.raw")


def picture_files(seeds: Path, beside: Path) -> None:
    from PIL import Image

    grey, colours = voxels(np.uint8)[..., 0], voxels(np.uint8)
    for suffix in ("png", "bmp", "tif"):
        Image.fromarray(colours).save(seeds / f"a.{suffix}")
        Image.fromarray(grey).save(seeds / f"b.{suffix}")
    Image.fromarray(grey).convert("P").save(seeds / "c.png")
    Image.fromarray(grey.astype(np.uint16)).save(seeds / "c.tif", compression="tiff_deflate")
    Image.fromarray(grey.astype(np.float32)).save(seeds / "d.tif", compression="tiff_lzw")
    Image.fromarray(colours).save(seeds / "a.jpg")


def dicom_file(path: Path, place: int, **tags: Any) -> None:
    """Write a slice of a small CT series."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"1.2.3.{place + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"1.2.3.{place + 1}",
        "Modality": "CT",
        "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": "1.2.2",
        "FrameOfReferenceUID": "1.2.9",
        "Rows": SHAPE[1],
        "Columns": SHAPE[0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "ImagePositionPatient": [-10.0, 5.0, 2.5 * place],
        "ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.8],
        "SliceThickness": 2.5,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
    }
    for name, value in (values | tags).items():
        setattr(dataset, name, value)
    frames = int(tags.get("NumberOfFrames", 1))
    dataset.PixelData = np.arange(frames * SHAPE[0] * SHAPE[1], dtype="<i2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


def dicom_files(seeds: Path, beside: Path) -> None:
    dicom_file(seeds / "a.dcm", 0)
    dicom_file(seeds / "frames.dcm", 7, NumberOfFrames=3)


def series_files(seeds: Path, beside: Path) -> None:
    for place, name in enumerate("abc"):
        dicom_file((seeds if name == "b" else beside) / f"{name}.dcm", place)
    for name, method in (("a.zip", zipfile.ZIP_STORED), ("b.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(seeds / name, "w", method) as archive:
            for file in (beside / "a.dcm", seeds / "b.dcm"):
                archive.write(file, f"study/{file.name}")


def segment_files(seeds: Path, beside: Path) -> None:
    (beside / "series").mkdir()
    for place in range(SHAPE[2]):
        dicom_file(beside / "series" / f"{place}.dcm", place)
    classes = describe(LabelMap({"background": 0, "liver": 1, "tumour": 7}))
    indices = np.random.default_rng(3).integers(0, 3, SHAPE).astype(np.uint8)
    scan = read_case(Case("", "", (beside / "series",)))
    seg_nrrd.write(seeds / "a.seg.nrrd", indices, classes, scan)
    seg.write(seeds / "seg.dcm", indices, classes, scan)
    rtstruct.write(seeds / "rt.dcm", indices, classes, scan)


def json_files(seeds: Path, beside: Path) -> None:
    for place in ("imagesTr/a.nii.gz", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        (beside / place).parent.mkdir(exist_ok=True)
        (beside / place).write_bytes(b"")
    regions: dict[str, Any] = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    nnu = {"channel_names": {"0": "CT"}, "numTraining": 1, "file_ending": ".nii.gz", **regions}
    listed = {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    msd = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "test": ["./imagesTr/a.nii.gz"]}
    pair = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    for number, content in enumerate((nnu, nnu | {"dataset": listed}, msd | {"training": [pair]})):
        (seeds / f"{number}.dataset.json").write_text(json.dumps(content))
    for number, split in enumerate(([{"train": ["a"], "val": ["b"]}], {"format": 1, "train": ["a"], "val": ["b"]})):
        (seeds / f"{number}.splits_final.json").write_text(json.dumps(split))


def csv_files(seeds: Path, beside: Path) -> None:
    (beside / "a.nii.gz").write_bytes(b"")
    (seeds / "a.csv").write_text("id,image,label,annotated,split\na,a.nii.gz,a.nii.gz,liver;tumour,train\n")
    (seeds / "b.csv").write_text('\ufeffid;image_1;image_2;part\n"a;b";a.nii.gz;;val\n')
    (seeds / "a.tsv").write_text("id\tpart\na\ttrain\nb\tval\n")


def descriptions(seeds: Path, beside: Path) -> None:
    import torch

    for file in sorted(CHECKPOINTS.glob("*.ckpt")):
        content = torch.load(file, weights_only=True)["medseg"]
        (seeds / f"{file.stem}.description.json").write_text(json.dumps(content))


NRRD = (
    *(
        "NRRD0004",
        "NRRD0005",
        "type: ",
        "dimension: ",
        "sizes: ",
        "kinds: ",
        "space: ",
        "encoding: ",
        "endian: ",
        "raw",
    ),
    *("gzip", "bzip2", "ascii", "hex", "LIST", "unsigned ", "left-posterior-superior", "right-anterior-superior"),
    *("scanner-xyz", "domain", "vector", "RGB-color", "none", "little", "big", "double", "float", "space directions: "),
    *(
        "space origin: ",
        "data file: ",
        "line skip: ",
        "byte skip: ",
        "spacings: ",
        "axis mins: ",
        "a.raw",
        "%03d",
        ":=",
    ),
    *("Segment0_Name", "Segment0_Layer", "Segment0_LabelValue", "Segment1_Extent", "list", "\n\n", "nan"),
)
META = (
    *("ObjectType = ", "NDims = ", "DimSize = ", "ElementType = ", "ElementSpacing = ", "ElementNumberOfChannels = "),
    *("BinaryData = ", "BinaryDataByteOrderMSB = ", "True", "CompressedData = ", "CompressedDataSize = "),
    *("TransformMatrix = ", "Offset = ", "HeaderSize = ", "ElementDataFile = ", "LOCAL", "LIST", "a.raw", "%03d"),
    *("MET_UCHAR", "MET_DOUBLE", "MET_LONG_LONG", "DistanceUnits = "),
)
JSON = (
    *("[]", "{}", "null", "true", "-1", "0", "1e999", "1e-999", "99999999999999999999", "NaN", '""', '".."', '"/"'),
    *("[[]]", '"\\u0000"', '"\\ud800"', '"a"', "1.5"),
)
CSV = ("id", "image", "label", "group", "split", "part", "train", "annotated", "a.nii.gz", '"', ";", "all", "none")
TARGETS = {
    "nifti": Target(("a.nii", "a.nii.gz", "a.hdr"), nifti_files, image),
    "nrrd": Target(("a.nrrd", "a.nhdr"), partial(itk_files, names=("a.nrrd", "b.nrrd", "a.nhdr")), image, NRRD),
    "metaimage": Target(("a.mha", "a.mhd"), partial(itk_files, names=("a.mha", "b.mha", "a.mhd")), image, META),
    "pictures": Target(("a.png", "a.tif", "a.jpg", "a.bmp"), picture_files, image),
    "dicom": Target(("a.dcm",), dicom_files, image),
    "series": Target(("b.dcm", "a.zip"), series_files, series),
    "segments": Target(("a.seg.nrrd", "s.dcm"), segment_files, segments, NRRD),
    "json": Target(("dataset.json", "splits_final.json"), json_files, data_set, JSON),
    "csv": Target(("c.csv", "c.tsv"), csv_files, cells, CSV),
    "checkpoint": Target(("description.json",), descriptions, model, JSON),
}


# ---- the fuzzer


class Finding(Exception):
    """What a reader must not do, though it raised nothing that tells."""


def seeds_of(target: Target, beside: Path) -> Iterator[bytes]:
    """Write the good files of a target, and yield those to begin with as data for the fuzzer."""
    with tempfile.TemporaryDirectory() as folder:
        target.write(Path(folder), beside)
        for file in sorted(Path(folder).iterdir()):
            number = next(n for n, name in enumerate(target.names) if file.name.endswith(name[1:]))
            yield bytes([number]) + file.read_bytes()


def test_one(target: Target, folder: Path, data: bytes) -> None:
    """Read the data under one of the target's names; raises whatever is a finding."""
    if not data:
        return
    path = folder / target.names[data[0] % len(target.names)]
    path.write_bytes(data[1:])
    started = time.process_time()
    try:
        target.read(path)
    except MedsegError as error:
        refuse_lack_of_memory(error)
        str(error).encode()
    finally:
        path.unlink()
    if (seconds := time.process_time() - started) > SECONDS:
        raise Finding(f"{seconds:.1f} s")


def refuse_lack_of_memory(error: BaseException | None) -> None:
    """Raise a finding where an error came of too much memory."""
    while error is not None:
        if isinstance(error, MemoryError):
            raise Finding(f"more than {MEMORY / 1e9:g} GB of memory") from error
        error = error.__cause__


def fuzz(name: str, output: Path, seconds: int, repeat: Path | None) -> None:
    """Fuzz one target in this process, which ends with the first finding; or read one file as it would."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        corpus = output / name / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds_of(target, folder)):
            (corpus / f"seed-{number}").write_bytes(seed)
            test_one(target, folder, seed)  # what is imported, and allocated once, is no memory of a file
        words = output / name / "words"
        words.write_text("".join(f'"{quoted(word)}"\n' for word in target.words or ("\0",)))
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
        options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-artifact_prefix={output / name}/"]
        options += ["-timeout=60", "-rss_limit_mb=0", f"-dict={words}", "-print_final_stats=1", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, str(repeat or corpus)], lambda data: test_one(target, folder, data))
        atheris.Fuzz()


def quoted(word: str) -> str:
    """Write a word as dictionaries of libFuzzer have it."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word.encode())


def fuzz_all(names: Iterable[str], output: Path, seconds: int) -> int:
    """Fuzz targets one after the other, each in a process of its own; return how many had a finding."""
    findings = 0
    for name in names:
        command = [sys.executable, __file__, "--target", name, "--seconds", str(seconds), "--output", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        text = done.stdout + done.stderr
        runs = re.search(r"number_of_executed_units: (\d+)", text)
        print(f"{name:12} {runs[1] if runs else '?':>8} inputs  {'finding' if done.returncode else 'none'}", flush=True)
        if done.returncode:
            findings += 1
            print(done.stdout[-4000:], done.stderr[-1000:], sep="\n")  # the traceback, and the input's file
    return findings


def main() -> None:
    """Fuzz all targets, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together")
    parser.add_argument("--target", choices=TARGETS, help="only this one, in this process")
    parser.add_argument("--seconds", type=int, help="for the target")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "fuzz")
    parser.add_argument("file", type=Path, nargs="?", help="data of a finding, to be read again")
    options = parser.parse_args()
    if options.target:
        fuzz(options.target, options.output, options.seconds or 60, options.file)
    else:
        sys.exit(min(1, fuzz_all(TARGETS, options.output, round(options.minutes * 60 / len(TARGETS)))))


if __name__ == "__main__":
    main()
