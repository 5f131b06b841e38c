"""``medseg predict``: masks for one scan or a folder of scans, from the checkpoint alone.

Reading the next scan, the network, and writing the last mask overlap. Each mask that is written whole is recorded with
what it was made of, so that a run that was stopped goes on where it ended.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from medseg.config.check import read_settings, resolve
from medseg.config.settings import PredictSettings
from medseg.errors import MedsegError, listing
from medseg.inference.loading import read_models
from medseg.jobs.predict import manifest
from medseg.jobs.predict.manifest import FAILED, Record
from medseg.jobs.predict.pipeline import pipeline
from medseg.jobs.predict.scans import ScanTask, find_scans
from medseg.jobs.predict.shards import check_devices, of_shard, on_devices, parse_shard
from medseg.jobs.predict.steps import FolderPrediction
from medseg.jobs.predict.table import rows_of, write_table, write_views
from medseg.jobs.predict.to_correct import write_worst
from medseg.system.device import pick_devices
from medseg.system.files import refuse_links, remove_leftovers, remove_unfinished
from medseg.system.printable import on_a_line

log = logging.getLogger(__name__)

ENDED = (0, 1, 3)
"""Exit statuses of processes that did what they could: all, nothing or some of their scans."""

REWRITTEN = 5.0
"""Seconds after which the table is written again while scans are worked on."""


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Predict as the composed config says; return status, reason and seconds.

    Raises:
        MedsegError: no checkpoint, no scans, or an output folder that cannot be used; nothing has been written then.
            Or else no scan could be segmented.
    """
    started = time.monotonic()
    settings = read_settings(PredictSettings, config)
    settings = replace(settings, uncertainty=settings.uncertainty or settings.worst > 0)
    pick_devices(settings.device, settings.trainer.devices)  # what is wrong with it is said before anything is read
    output, shard = settings.output, parse_shard(settings.predict.shard)
    models = read_models(settings.checkpoint, settings.trust)
    reading = resolve(settings.dataset, models[0].reading)
    may_lack, suffixes = all(model.may_lack for model in models), models[0].endings
    tasks, problems = find_scans(
        settings.input, output, suffixes, reading["reference"], settings.format, may_lack=may_lack
    )
    mine, classes = of_shard(tasks, *shard), models[0].label_map
    refuse_links(output, f"output={output}")
    remove_leftovers(output)
    rewrite_table = partial(write_table, output, classes, tasks, problems)
    rewrite_table()  # to find out whether the folder can be written
    if settings.trainer.devices > 1:
        rows = predict_on_devices(config, settings, mine, output, shard)
    else:
        rows = predict_all(FolderPrediction.of(models, settings), mine, rewrite_table)
    rewrite_table()
    page, ranking = settings.overlays == "html", settings.uncertainty
    write_views(output, classes, tasks, problems, page=page, ranking=ranking)
    if page:
        log.info("all masks on a page: %s", output / "contact_sheet.html")
    if settings.worst:
        write_worst(output, rows_of(output, tasks, problems), tasks, classes, settings.worst, reading)
    is_first = shard[0] == 1  # of several shards one reports the files that are no scans
    return outcome(rows, problems if is_first else [], output) | {"seconds": round(time.monotonic() - started, 1)}


def outcome(rows: Sequence[dict[str, Any]], problems: Sequence[str], output: Path) -> dict[str, Any]:
    """Sum up and log what became of the scans; rows that were not reached have no status.

    Raises:
        MedsegError: no scan could be segmented.
    """
    failed = [*problems, *(f"{row['case']}: {row['error']}" for row in rows if row["status"] == FAILED)]
    total = len(rows) + len(problems)
    log.info("%d of %d masks written to %s", total - len(failed), total, output)
    if total and len(failed) == total:
        raise MedsegError(f"no scan of {total} could be segmented:\n{listing(failed)}")
    if failed:
        log.error("%d failed:\n%s", len(failed), listing(failed))
    reason = f"{len(failed)} of {total} scans failed:\n{listing(failed)}" if failed else ""
    return {"status": "some_failed" if failed else "done", "reason": reason, "score": None}


def predict_on_devices(
    config: dict[str, Any], settings: PredictSettings, tasks: Sequence[ScanTask], output: Path, shard: tuple[int, int]
) -> list[dict[str, Any]]:
    """Let a process for each device do its part of the scans; return their rows.

    Raises:
        MedsegError: there are not so many devices, or a process ended before its part was done.
    """
    count = settings.trainer.devices
    kind = check_devices(settings.device, count)
    began = time.time()
    statuses = on_devices(config, kind, count, *shard)
    if broken := [status for status in statuses if status not in ENDED]:  # records of an earlier run must not hide it
        raise MedsegError(
            f"{len(broken)} of {count} processes broke down (exit status {broken[0]}); what is above says why."
        )
    records = [(task, manifest.read(output, task.id)) for task in tasks]
    # A process that could do nothing has tried every scan of its part, or has not even begun.
    failed = [
        task for index, status in enumerate(statuses) if status == 1 for task in of_shard(tasks, index + 1, count)
    ]
    stale = {task.id for task in failed if manifest.written(output, task.id) < began}
    if lost := [task.id for task, record in records if record is None or task.id in stale]:
        raise MedsegError(f"{len(lost)} scan(s) were not reached; what is above says why:\n{listing(lost)}")
    return [dict(record.row) for _, record in records if record is not None]


def predict_all(
    prediction: FolderPrediction, tasks: Sequence[ScanTask], rewrite_table: Callable[[], None]
) -> list[dict[str, Any]]:
    """Segment every scan, whatever becomes of the others; return their rows."""
    rows, written = [], time.monotonic()
    try:
        for number, passage in enumerate(pipeline(tasks, prediction.stages(tasks)), 1):
            row = passage.made
            if passage.error is not None:
                row = {"case": passage.item.id, "status": FAILED, "error": passage.error}
                with suppress(MedsegError):  # on a full disk other scans may still have room
                    manifest.write(prediction.output, passage.item.id, Record("", {}, row))
            rows.append(row)
            log.info("%d/%d %s %s", number, len(tasks), on_a_line(row["case"]), row["status"])
            if time.monotonic() - written > REWRITTEN:
                with suppress(MedsegError):  # at the end it must be written
                    rewrite_table()
                written = time.monotonic()
    except BaseException:
        remove_unfinished()
        with suppress(MedsegError):  # the first error is what counts
            rewrite_table()
        raise
    return rows
