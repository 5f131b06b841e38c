"""Thumbnails of cases for the page of ``medseg inspect``, kept in the cache: scans are not read a third time."""

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.evaluation.images.overlays import miniature
from medseg.evaluation.statistics.sampling import evenly
from medseg.io.case import Case, Scan
from medseg.io.datasets.annotations import read_labelled
from medseg.io.labels import LabelMap
from medseg.preprocessing.cache import hash_of, is_there, recipe
from medseg.preprocessing.fingerprint.duplicates import SameScan
from medseg.preprocessing.fingerprint.fingerprint import Fingerprint
from medseg.preprocessing.fingerprint.outside_body import where_outside
from medseg.preprocessing.quality.check_dataset import working_bytes
from medseg.preprocessing.quality.issues import Issue
from medseg.preprocessing.quality.outliers import small_component_sizes, where_small_components
from medseg.system.files import write_torch
from medseg.system.memory import is_out_of_memory
from medseg.system.parallel import Watch, in_parallel

log = logging.getLogger(__name__)

FORMAT = 1
SAMPLE = 60
"""Cases that are shown with or without findings, evenly chosen."""
MAX_WITH_FINDINGS = 60
"""Cases that are shown because of their findings."""
MAX_SAME = 20
"""Scans held twice that are shown side by side."""
QUALITY = 75


@dataclass(frozen=True)
class Marks:
    """What is ringed in a thumbnail: specks of at most so many voxels by class index, and labels outside the body."""

    specks: tuple[tuple[int, int], ...] = ()
    outside: bool = False


def thumbnails(
    cases: Sequence[Case], label_map: LabelMap, marks: Mapping[str, Marks], folder: Path, watch: Watch
) -> dict[str, bytes]:
    """Return a thumbnail (WebP) of each case, several drawn at once; of none that can no longer be read."""
    draw = partial(cached_thumbnail, label_map=label_map, marks=marks, folder=folder)
    drawn = in_parallel(draw, cases, working_bytes(cases), too_large=lambda case, error: b"")
    pairs = zip(cases, watch(drawn, len(cases), "drawing"), strict=True)
    return {case.id: thumbnail for case, thumbnail in pairs if thumbnail}


def cached_thumbnail(case: Case, label_map: LabelMap, marks: Mapping[str, Marks], folder: Path) -> bytes:
    """Return the thumbnail of a case from ``folder``, or draw it now and put it there; b"" where it cannot be read."""
    marked = marks.get(case.id, Marks())
    try:
        key = hash_of(["picture", FORMAT, repr(marked), *recipe(case, label_map)], case, folder)
        path = folder / f"{key}.fingerprint.pt"
        if is_there(path):
            try:
                return bytes(torch.load(path, weights_only=True)["picture"].numpy())
            except Exception:  # a damaged file makes torch raise almost anything
                log.warning("%s: this thumbnail is damaged; it is drawn again", path)
        thumbnail = draw_thumbnail(*read_labelled(case, label_map), marked, len(label_map.names))
    except MedsegError as error:
        if is_out_of_memory(error):
            raise  # it may be drawn when fewer are drawn at once
        return b""
    write_torch(path, {"picture": torch.frombuffer(bytearray(thumbnail), dtype=torch.uint8)})
    return thumbnail


def draw_thumbnail(scan: Scan, reference: NDArray[np.uint8], marks: Marks, n_classes: int) -> bytes:
    """Draw a case with its classes, and rings around what is marked."""
    marked = where_small_components(reference, dict(marks.specks))
    outside = where_outside(scan, reference, n_classes) if marks.outside else None
    shown = np.where(reference < n_classes, reference, 0).astype(np.uint8)
    content = io.BytesIO()
    miniature(scan, shown, marked if outside is None else marked | outside).save(content, "WEBP", quality=QUALITY)
    return content.getvalue()


def marks_of(findings: Sequence[Issue], usable: Fingerprint, label_map: LabelMap) -> dict[str, Marks]:
    """Return what to ring in the cases of which specks or labels outside the body were found."""
    specks, outside = ({name for f in findings if f.kind == kind for name in f.cases} for kind in ("specks", "outside"))
    most = tuple(small_component_sizes(usable.cases, len(label_map.names)).items())
    return {name: Marks(most if name in specks else (), name in outside) for name in specks | outside}


def shown_cases(usable: Fingerprint, findings: Sequence[Issue], same: Sequence[SameScan]) -> list[str]:
    """Return the cases to show: with findings, in pairs of one scan, and others evenly chosen."""
    names = [*usable.cases]
    pairs = ("same scan", "same image")
    with_findings = {name for finding in findings if finding.kind not in pairs for name in finding.cases}
    chosen = {*[name for name in names if name in with_findings][:MAX_WITH_FINDINGS]}
    chosen |= {name for pair in same[:MAX_SAME] for name in pair.cases}
    chosen |= {names[index] for index in evenly(len(names), SAMPLE)}
    return [name for name in names if name in chosen]
