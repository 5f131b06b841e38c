"""Preprocessed cases on disk: one memory-mapped file a case, made once.

The name is a hash of what went in (the files' bytes, the preprocessing, the classes, this format), so a changed scan
or option never meets a stale file, and runs of a sweep share what they have in common.
"""

import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg.errors import MedsegError
from medseg.io.atomic import replacing
from medseg.io.case import Case
from medseg.io.labels import IGNORE, LabelMap
from medseg.preprocessing.fingerprint import read_labelled
from medseg.preprocessing.preprocessor import Preprocessor

FORMAT = 3
LOCATIONS = 10_000  # foreground voxels remembered per class, enough to draw patches from


def cached(case: Case, preprocessor: Preprocessor, label_map: LabelMap, folder: Path) -> Path:
    """Return the preprocessed file of a labelled case, made now if it is not there yet."""
    path = folder / f"{key(case, preprocessor, label_map)}.pt"
    if not path.is_file():
        buffer = BytesIO()  # writing to the disk itself, torch would take a full one for an error of its own
        torch.save(prepare(case, preprocessor, label_map), buffer)
        with replacing(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    return path


def load(path: Path) -> dict[str, Any]:
    """Open a preprocessed case; its tensors are read from disk only where they are touched.

    Returns:
        ``image`` float32 (C, *network grid), ``label`` uint8 (*network grid), ``locations`` a list with int32 (n, d)
        voxels per foreground class, ``annotated`` bool (K,) of each class, ``truth`` uint8 (*native grid),
        ``known`` int32 (n, d) voxels of known class where there are others, ``geometry``, ``spacing``,
        ``voxel_volume`` and ``unit``.
    """
    content: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    return content


def key(case: Case, preprocessor: Preprocessor, label_map: LabelMap) -> str:
    """Hash everything that the preprocessed case depends on."""
    digest = hashlib.sha256(json.dumps(recipe(case, preprocessor, label_map)).encode())
    for path in case.files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise MedsegError(f"{path}: cannot be read ({error.strerror}).") from error
    return digest.hexdigest()[:32]


def recipe(case: Case, preprocessor: Preprocessor, label_map: LabelMap) -> list[Any]:
    """Return what decides a preprocessed case beside the bytes of its files."""
    reading = [case.geometry, case.reference, [file.value for file in case.labels], case.annotated]
    return [FORMAT, preprocessor.config, list(label_map.labels.items()), reading]


def prepare(case: Case, preprocessor: Preprocessor, label_map: LabelMap) -> dict[str, Any]:
    """Read and preprocess one labelled case."""
    scan, truth = read_labelled(case, label_map)
    image, geometry = preprocessor(scan)
    label = preprocessor.label(truth, geometry, len(label_map.names))
    return {
        "image": image.contiguous(),
        "label": label,
        "locations": [locations(label == index) for index in range(1, len(label_map.names))],
        "known": locations((label != IGNORE) & (label == IGNORE).any()),
        "annotated": torch.from_numpy(label_map.annotated(case.annotated)),
        "truth": torch.from_numpy(truth),
        "geometry": geometry.to_dict(),
        "spacing": list(scan.spacing),
        "voxel_volume": scan.voxel_volume,
        "unit": scan.unit,
    }


def locations(mask: Tensor) -> Tensor:
    """Return up to 10 000 evenly spread voxels (n, d) of a mask."""
    found = mask.nonzero().int()
    return found[:: max(1, -(-len(found) // LOCATIONS))].clone()
