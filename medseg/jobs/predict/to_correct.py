"""The least certain cases, laid out for someone to correct: masks for 3D Slicer, and which scans they are of."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.inference.uncertainty import ranked
from medseg.io.case import Case, LabelFile
from medseg.io.csv_files import as_csv
from medseg.io.datasets.annotations import read_labels
from medseg.io.datasets.corrections import TABLE, WRITTEN, read_rows, sha256
from medseg.io.files.read import read_case
from medseg.io.files.write_masks import write_classes
from medseg.io.formats.itk import SEGMENTATION
from medseg.io.labels import LabelMap
from medseg.jobs.predict.scans import Job
from medseg.system.files import write_text

log = logging.getLogger(__name__)

FOLDER = "to_correct"
LONGEST = 255
"""Bytes of a file's name."""


def write_worst(
    output: Path,
    rows: Sequence[Mapping[str, Any]],
    jobs: Sequence[Job],
    label_map: LabelMap,
    count: int,
    reading: Mapping[str, Any],
) -> None:
    """Write the masks of the ``count`` least certain cases into ``to_correct/``, with ``cases.csv``.

    Masks of volumes are ``.seg.nrrd``, whose segments have the classes' names and colours; those of pictures are as
    they were predicted. A mask that is there already stays, since someone may have worked on it. The table has the
    columns id, uncertainty, image (or image_1, ...; in full), label, and the hash of the mask as it was written. Cases
    that lack a channel are passed over: nothing can be trained on them.

    ``reading`` says how channels on other grids are read (see ``Case``).

    Raises:
        MedsegError: a scan can no longer be read, or the folder cannot be written.
    """
    folder, by_id = output / FOLDER, {job.id: job for job in jobs if not job.absent}
    worst = [row for row in ranked(rows) if row["case"] in by_id][:count]
    kept: dict[str, dict[str, Any]] = {name: dict(row) for name, row in read_rows(folder).items()}
    for row in worst:
        if row["case"] not in kept:
            job = by_id[row["case"]]
            mask = write_to_correct(folder, job, output, label_map, reading)
            kept[job.id] = row_of(job, mask, folder, row["uncertainty"])
    if not kept:
        log.warning("no case could be segmented, so none is laid out to be corrected")
        return
    columns = dict.fromkeys(name for row in kept.values() for name in row)
    write_text(folder / TABLE, as_csv(list(columns), kept.values()))
    log.info("the %d least certain cases are in %s, to be corrected", len(worst), folder)


def write_to_correct(folder: Path, job: Job, output: Path, label_map: LabelMap, reading: Mapping[str, Any]) -> Path:
    """Write the predicted mask of a case in the form that people correct it in; return the file."""
    case = Case(job.id, job.id, job.images, (LabelFile(job.mask),), **reading)
    scan = read_case(case)
    path, form = folder / f"{job.id}{SEGMENTATION}", "seg.nrrd"
    if scan.unit != "mm" or len(os.fsencode(path.name)) > LONGEST:
        path, form = folder / job.mask.relative_to(output), "image"
    write_classes(path, read_labels(case, label_map, scan), label_map, scan, form)
    return path


def row_of(job: Job, mask: Path, folder: Path, uncertainty: Any) -> dict[str, Any]:
    """Return the row of a case in the table."""
    several = len(job.images) > 1
    names = [f"image_{number}" if several else "image" for number in range(1, len(job.images) + 1)]
    images = dict(zip(names, (str(path.absolute()) for path in job.images), strict=True))
    label = mask.relative_to(folder).as_posix()
    return {"id": job.id, "uncertainty": uncertainty, **images, "label": label, WRITTEN: sha256(mask)}
