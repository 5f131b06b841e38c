"""The table of a folder of masks: ``predictions.csv``, a row a scan."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.inference.predictor import Mask
from medseg.io.atomic import write_text
from medseg.jobs import records
from medseg.jobs.scans import Job

DONE, FAILED = "done", "failed"
ABSENT = "missing_channels"
"""Column of the channels that a scan had no file of."""


def row_of(job: Job, mask: Mask, seconds: float) -> dict[str, Any]:
    """Return the row of a scan that was segmented."""
    absent = " ".join(job.absent.values())
    return {"case": job.id, "status": DONE, "seconds": round(seconds, 2), ABSENT: absent, **dict(sizes(mask))}


def sizes(mask: Mask) -> Iterator[tuple[str, Any]]:
    """Yield the columns that tell how large each class is."""
    yield from ((f"{name}_voxels", value) for name, value in mask.voxels.items())
    yield from ((f"{name}_ml", round(value, 6)) for name, value in (mask.ml or {}).items())


def write_table(output: Path, names: Sequence[str], jobs: Sequence[Job], problems: Sequence[str]) -> None:
    """Write the table anew, of all scans that any process has recorded in this folder, and of files that are none.

    Raises:
        MedsegError: the folder cannot be written.
    """
    absent = [ABSENT] if any(job.absent for job in jobs) else []
    columns = [
        "case",
        "status",
        "seconds",
        *absent,
        *(f"{name}_ml" for name in names),
        *(f"{name}_voxels" for name in names),
    ]
    text = StringIO(newline="")
    writer = csv.DictWriter(text, [*columns, "error"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows({"case": "", "status": FAILED, "error": problem} for problem in problems)
    kept = (records.read(output, job.id) for job in jobs)
    writer.writerows(record.row for record in kept if record is not None)
    try:
        write_text(output / "predictions.csv", text.getvalue())
    except MedsegError as error:
        raise MedsegError(f"output={output}: {error}") from error
