"""Preprocessed cases on disk: one memory-mapped file a case, made once.

The name is a hash of what went in (the files' bytes, the preprocessing, the classes, this format), so a changed scan
or option never meets a stale file, and runs of a sweep, also at the same time, share what they have in common. See
``cache_files`` for where the files lie. The fingerprints of cases are kept there, too, so that a further run of the
same data does not read the scans again.

Images are kept in half precision where that holds their values: normalised intensities, in most data sets. A patch is
read from disk without its volume: tensors lie uncompressed, rows along the last axis one after the other, and the pages
that a patch touches are mapped: 64³ out of four channels of 240×240×155 (71 MB) touch 5 MB for its 2 MB. What is read
ahead of them the first time is up to the operating system, and may be most of the file.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from io import BytesIO
from math import ceil, inf, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg.errors import MedsegError, first_line
from medseg.io.case import Case
from medseg.io.datasets.annotations import read_labelled
from medseg.io.files.read import on_disk
from medseg.io.files.sizes import Size, size_of
from medseg.io.labels import IGNORE, LabelMap
from medseg.preprocessing.cache_files import FORMAT
from medseg.preprocessing.file_hashes import hashes_in
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.system.files import write_torch
from medseg.system.memory import MORE_MEMORY, enough_memory
from medseg.system.parallel import Watch, in_parallel, unwatched

log = logging.getLogger(__name__)

LOCATIONS = 10_000  # foreground voxels remembered per class, enough to draw patches from
CONTENT = frozenset(
    (
        *("image", "label", "locations", "false_positives", "known", "annotated", "truth"),
        *("geometry", "spacing", "voxel_volume", "unit"),
    )
)
"""What a preprocessed case holds."""
SAMPLES = 3
"""Cases that are prepared to foretell the size of all, at most."""
ROUNDING = 1e-3
"""Standard deviations of a channel by which half precision may change it, root mean square. Z-scores change by 0.0003;
bf16 autocast changes a network's input by 0.002."""
COPIES = 6
"""Times that an image is in memory while it is preprocessed: read, cut, normalised, resampled by axis, written."""


def cached_cases(
    cases: Sequence[Case], preprocessor: Preprocessor, label_map: LabelMap, folder: Path, watch: Watch = unwatched
) -> list[Path]:
    """Return the preprocessed files of labelled cases, in order; missing ones are made, in parallel.

    Raises:
        MedsegError: a case cannot be read, or the disk has less space than is foretold; nothing has been written then.
    """
    settings: dict[str, Any] = {"preprocessor": preprocessor, "label_map": label_map, "folder": folder}
    paths, missing = look_up(cases, **settings)
    if missing:
        total = foretold_bytes(missing, preprocessor, label_map)
        log.info("preprocessing %d cases, about %s, into %s", len(missing), amount(total), folder)
        check_space(len(missing), total, folder)
        made = in_parallel(partial(cached, **settings), missing, working_bytes(missing, preprocessor))
        for _ in watch(made, len(missing), "preprocessing"):
            pass
    return paths


def look_up(
    cases: Sequence[Case], preprocessor: Preprocessor, label_map: LabelMap, folder: Path
) -> tuple[list[Path], list[Case]]:
    """Return the paths of the preprocessed files of cases, in order, and the cases whose files are still to be made."""
    settings: dict[str, Any] = {"preprocessor": preprocessor, "label_map": label_map, "folder": folder}
    paths = list(in_parallel(partial(path_of, **settings), cases))
    hashes_in(folder).save()
    return paths, [*{path: case for path, case in zip(paths, cases, strict=True) if not is_usable(path)}.values()]


def cached(case: Case, preprocessor: Preprocessor, label_map: LabelMap, folder: Path) -> Path:
    """Return the preprocessed file of a labelled case, made now if it is missing."""
    path = path_of(case, preprocessor, label_map, folder)
    if not is_usable(path):
        with enough_memory(lambda: f"to preprocess {case.id}, {size_of(case)}", MORE_MEMORY):
            write_torch(path, prepare(case, preprocessor, label_map))
    return path


def path_of(case: Case, preprocessor: Preprocessor, label_map: LabelMap, folder: Path) -> Path:
    """Return the path of a case's preprocessed file, whether it exists or not: its name hashes all it depends on."""
    return folder / f"{hash_of([preprocessor.config, *recipe(case, label_map)], case, folder)}.case.pt"


def is_there(path: Path) -> bool:
    """Return whether a file exists, and mark it as used now."""
    with suppress(OSError):  # somebody else's cache may be read all the same
        os.utime(path)
    return path.is_file()


def is_usable(path: Path) -> bool:
    """Return whether a preprocessed case exists and is whole; a damaged one, to be made again, is logged."""
    if not is_there(path):
        return False
    try:
        if load(path).keys() >= CONTENT:
            return True
    except (MedsegError, AttributeError):  # the warning below says as much
        pass
    log.warning("%s: this preprocessed case is damaged; it is made again", path)
    return False


def foretold_bytes(cases: Sequence[Case], preprocessor: Preprocessor, label_map: LabelMap) -> float:
    """Return about how many bytes the preprocessed files of cases will take.

    What is cropped, and whether half precision holds the values, only a case itself tells: a few are prepared for it,
    one in ten at most, and the others follow from the sizes that their headers tell.

    Raises:
        MedsegError: as ``prepare``.
    """

    def expected(case: Case) -> float:  # image and label on the network grid, reference on the native one
        size = size_of(case)
        return max(1, network_voxels(size, preprocessor) * (2 * size.channels + 1) + size.voxels)

    def stored(case: Case) -> int:
        buffer = BytesIO()
        torch.save(prepare(case, preprocessor, label_map), buffer)
        return buffer.tell()

    sample = cases[:: max(10, ceil(len(cases) / SAMPLES))]
    bytes_of_sample = sum(in_parallel(stored, sample, working_bytes(sample, preprocessor)))
    return bytes_of_sample * sum(map(expected, cases)) / sum(map(expected, sample))


def working_bytes(cases: Sequence[Case], preprocessor: Preprocessor) -> float:
    """Return about how many bytes of memory it takes to preprocess the largest case."""
    largest, added = 0.0, preprocessor.added_channels
    for size in map(size_of, cases):
        largest = max(largest, (size.channels + added) * max(size.voxels, network_voxels(size, preprocessor)))
    return COPIES * 4 * largest


def check_space(number: int, total: float, folder: Path) -> None:
    """Raise where the disk of a folder has less space than ``number`` preprocessed cases will take."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < total:
        raise MedsegError(
            f"{folder}: {amount(free)} are free, but {number} preprocessed cases take about {amount(total)}. "
            "Give cache_dir a folder on another disk, or make space: medseg cache shows what older runs have left."
        )


def network_voxels(size: Size, preprocessor: Preprocessor) -> float:
    """Return the voxels of the network grid, without a crop."""
    if preprocessor.resize:
        return prod(preprocessor.resize)
    if not preprocessor.spacing:
        return size.voxels
    volume = prod(preprocessor.spacing)  # 0 of lengths that a plan may have, and no scan can be resampled to
    return size.voxels * (size.voxel_volume / volume if volume else inf)


def amount(number: float) -> str:
    """Format a number of bytes.

    >>> amount(123_456_789), amount(2.34e9)
    ('123 MB', '2.3 GB')
    """
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def load(path: Path) -> dict[str, Any]:
    """Open a preprocessed case; its tensors are read from disk only where they are touched.

    Returns:
        ``image`` float16 or float32 (C, *network grid; see ``compact``), ``label`` uint8 (*network grid), ``locations``
        a list with int32 (n, d) voxels per foreground class, ``false_positives`` int32 (n, d) voxels of background in
        which a first stage finds a class, ``annotated`` bool (K,) of each class, the reference ``truth`` uint8 (*native
        grid), ``known`` int32 (n, d) voxels of known class where there are others, ``geometry``, ``spacing``,
        ``voxel_volume`` and ``unit``.

    Raises:
        MedsegError: it is gone or damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise MedsegError(
            f"{path}: this preprocessed case is gone or damaged ({first_line(error)}). It is made again when the job is"
            " started again; a training goes on with resume=RUN."
        ) from error
    return content


@cache
def form_of(path: Path) -> tuple[torch.Size, torch.dtype]:
    """Return shape (C, *network grid) and type of a preprocessed image, whose file is opened once in a process.

    Raises:
        MedsegError: as ``load``.
    """
    image = load(path)["image"]
    return image.shape, image.dtype


def hash_of(recipe: list[Any], case: Case, folder: Path | None = None) -> str:
    """Hash a recipe and the bytes of a case's files; of unchanged ones the hashes are in ``folder``, of the cache.

    Raises:
        MedsegError: a file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(recipe).encode())
    for path in (part for file in case.files for part in on_disk(file) or (file,)):
        try:
            digest.update(bytes.fromhex(hashes_in(folder).of(path)))
        except OSError as error:
            raise MedsegError(f"{path}: cannot be read ({error.strerror}).") from error
    return digest.hexdigest()[:32]


def recipe(case: Case, label_map: LabelMap) -> list[Any]:
    """Return what decides how a case is read, beside the bytes of its files."""
    reading: list[Any] = [case.geometry, case.reference, case.orientation, case.other_values]
    reading += [[file.value for file in case.labels], case.annotated]
    reading += [list(case.segments.items())] if case.segments else []
    return [FORMAT, list(label_map.labels.items()), reading]


def prepare(case: Case, preprocessor: Preprocessor, label_map: LabelMap) -> dict[str, Any]:
    """Read and preprocess one labelled case."""
    scan, reference = read_labelled(case, label_map)
    image, geometry = preprocessor(scan)
    label = preprocessor.label(reference, geometry, len(label_map.names))
    annotated = torch.from_numpy(label_map.annotated(case.annotated))
    coarse = image[len(image) - preprocessor.added_channels :]
    if len(coarse):  # what was not annotated cannot be false
        coarse = coarse[torch.from_numpy(label_map.is_known(annotated.numpy()))]
    return {
        "image": compact(image.contiguous()),
        "label": label,
        "locations": [locations(label == index) for index in range(1, len(label_map.names))],
        "false_positives": locations((coarse > 0.5).any(0) & (label == 0)),
        "known": locations((label != IGNORE) & (label == IGNORE).any()),
        "annotated": annotated,
        "truth": torch.from_numpy(reference),
        "geometry": geometry.to_dict(),
        "spacing": list(scan.spacing),
        "voxel_volume": scan.voxel_volume,
        "unit": scan.unit,
    }


def compact(image: Tensor) -> Tensor:
    """Return an image (C, *spatial) in half precision, or as it is where that would change or lose values of a channel.

    Lost are values above 65504. Changed are those with few digits behind a large offset, such as 2000.3: rounding is
    measured against the channel's standard deviation.
    """
    half = image.half()
    for channel, rounded in zip(image, half, strict=True):
        error = (rounded.float() - channel).square_().mean().sqrt()
        if not error <= ROUNDING * channel.std(correction=0):  # also where it is not a number
            return image
    return half


def locations(mask: Tensor) -> Tensor:
    """Return up to 10 000 evenly spread voxels (n, d) of a mask."""
    voxels = mask.nonzero().int()
    return voxels[:: max(1, -(-len(voxels) // LOCATIONS))].clone()
