"""The tables and the page of a folder of masks: ``predictions.csv``, a row a scan, and what is made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.evaluation.metrics.sizes import columns, sizes
from medseg.inference.predictor import Mask
from medseg.io.csv_files import as_csv
from medseg.io.labels import LabelMap
from medseg.jobs.predict import manifest
from medseg.jobs.predict.manifest import DONE, FAILED
from medseg.jobs.predict.scans import ScanTask
from medseg.system.files import write_text

ABSENT = "missing_channels"
"""Column of the channels that a scan had no file of."""

Row = dict[str, Any]


def row_of(task: ScanTask, mask: Mask, seconds: float) -> Row:
    """Return the row of a scan that was segmented."""
    return {
        "case": task.id,
        "status": DONE,
        "seconds": round(seconds, 2),
        ABSENT: " ".join(task.absent.values()),
        **sizes(mask.indices, mask.scan, mask.label_map),
    }


def rows_of(output: Path, tasks: Sequence[ScanTask], problems: Sequence[str]) -> list[Row]:
    """Return a row for each file that is no scan, and for each scan that any process has recorded in this folder."""
    records = (manifest.read(output, task.id) for task in tasks)
    failed = [{"case": "", "status": FAILED, "error": problem} for problem in problems]
    return [*failed, *(dict(record.row) for record in records if record is not None)]


def write_table(output: Path, label_map: LabelMap, tasks: Sequence[ScanTask], problems: Sequence[str]) -> None:
    """Write the table anew, of all rows that there are.

    Raises:
        MedsegError: the folder cannot be written.
    """
    absent = [ABSENT] if any(task.absent for task in tasks) else []
    rows = rows_of(output, tasks, problems)
    optional = [name for name in ("uncertainty", "unlike") if any(name in row for row in rows)]
    names = ["case", "status", "seconds", *absent, *columns(label_map), *optional, "error"]
    try:
        write_text(output / "predictions.csv", as_csv(names, rows))
    except MedsegError as error:
        raise MedsegError(f"output={output}: {error}") from error


def write_views(
    output: Path, label_map: LabelMap, tasks: Sequence[ScanTask], problems: Sequence[str], *, page: bool, ranking: bool
) -> None:
    """Write the page of all overlays, and the table of cases by their uncertainty."""
    from medseg.evaluation.images.contact_sheet import contact_sheet
    from medseg.evaluation.images.overlays import colours
    from medseg.inference.uncertainty import write_ranking

    rows = rows_of(output, tasks, problems)
    if page:
        done = {row["case"] for row in rows if row["status"] == DONE}
        pictures = {task.id: task.picture for task in tasks if task.id in done}
        title = f"Masks in {output.resolve().name}"
        write_text(output / "contact_sheet.html", contact_sheet(rows, pictures, colours(label_map), output, title))
    if ranking:
        write_ranking(output / "uncertainty.csv", rows)
