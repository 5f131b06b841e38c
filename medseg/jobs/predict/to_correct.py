"""The least certain cases, laid out for someone to correct: masks for 3D Slicer, and which scans they are of."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.inference.uncertainty import ranked
from medseg.io.case import Case, LabelFile
from medseg.io.csv_files import as_csv
from medseg.io.datasets.annotations import read_labelled
from medseg.io.datasets.corrections import TABLE, WRITTEN, read_rows
from medseg.io.files.write_masks import write_classes
from medseg.io.formats.itk import SEGMENTATION
from medseg.io.labels import LabelMap
from medseg.jobs.predict.scans import ScanTask
from medseg.system.files import file_hash, write_text

log = logging.getLogger(__name__)

FOLDER = "to_correct"
LONGEST = 255
"""Bytes of a file's name."""


def write_worst(
    output: Path,
    rows: Sequence[Mapping[str, Any]],
    tasks: Sequence[ScanTask],
    label_map: LabelMap,
    count: int,
    reading: Mapping[str, Any],
) -> None:
    """Write the masks of the ``count`` least certain cases into ``to_correct/``, with ``cases.csv``.

    Masks of volumes are ``.seg.nrrd``, whose segments have the classes' names and colours; those of 2D images are
    as they were predicted. A mask that is there already stays, since someone may have worked on it. The table has the
    columns id, uncertainty, image (or image_1, ...; in full), label, and the hash of the mask as it was written. Cases
    that lack a channel are skipped: nothing can be trained on them.

    ``reading`` says how channels on other grids are read (see ``Case``).

    Raises:
        MedsegError: a scan can no longer be read, or the folder cannot be written.
    """
    folder = output / FOLDER
    complete = {task.id: task for task in tasks if not task.absent}
    worst = [row for row in ranked(rows) if row["case"] in complete][:count]
    table: dict[str, dict[str, Any]] = {name: dict(row) for name, row in read_rows(folder).items()}
    for row in worst:
        if row["case"] in table:
            continue
        task = complete[row["case"]]
        case = Case(task.id, task.id, task.images, (LabelFile(task.mask),), **reading)
        scan, indices = read_labelled(case, label_map)
        path, form = folder / f"{task.id}{SEGMENTATION}", "seg.nrrd"
        if scan.unit != "mm" or len(os.fsencode(path.name)) > LONGEST:
            path, form = folder / task.mask.relative_to(output), "image"
        write_classes(path, indices, label_map, scan, form)
        several = len(task.images) > 1
        images = {f"image_{n}" if several else "image": str(file.absolute()) for n, file in enumerate(task.images, 1)}
        label = path.relative_to(folder).as_posix()
        uncertainty = row["uncertainty"]
        table[task.id] = {"id": task.id, "uncertainty": uncertainty, **images, "label": label, WRITTEN: file_hash(path)}
    if not table:
        log.warning("no case could be segmented, so none is laid out to be corrected")
        return
    columns = dict.fromkeys(name for row in table.values() for name in row)
    write_text(folder / TABLE, as_csv(list(columns), table.values()))
    log.info("to be corrected, the least certain first: %d case(s) in %s", len(worst), folder)
