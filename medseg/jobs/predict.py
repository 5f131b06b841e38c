"""``medseg predict``: masks for one scan or a folder of scans, from the checkpoint alone.

Reading the next scan, the network, and writing the last mask overlap. Each mask that is written whole is recorded with
what it was made of, so that a run that was stopped goes on where it ended.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medseg import __version__
from medseg.config import resolve
from medseg.errors import MedsegError, listing
from medseg.inference.model import Model
from medseg.inference.models import read_models
from medseg.inference.predictor import Mask, Predictor, Prepared
from medseg.inference.probabilities import probability_files
from medseg.io.atomic import leftovers, remove_unfinished, replacing
from medseg.io.mask_formats import write_classes
from medseg.io.meshes import write_meshes
from medseg.jobs import records
from medseg.jobs.pipeline import Stage, pipeline
from medseg.jobs.predictions import FAILED, row_of, write_table
from medseg.jobs.records import Record
from medseg.jobs.scans import Job, find_jobs
from medseg.jobs.shards import check_devices, of_shard, on_devices, parse_shard

log = logging.getLogger(__name__)

IDLE = 60.0
"""Seconds after which a temporary file that another process may be writing is taken for abandoned."""

REWRITTEN = 5.0
"""Seconds after which the table is written again while scans are worked on."""


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Predict as the composed config says; return status, reason and seconds.

    Raises:
        MedsegError: no checkpoint, no scans, or an output folder that cannot be used; nothing has been written then.
            Or else no scan could be segmented.
    """
    started = time.monotonic()
    settings = resolve(config)
    output, (place, number) = Path(settings["output"]), parse_shard(settings["predict"]["shard"])
    models = read_models(settings["checkpoint"], settings["trust"])
    reading = resolve(settings["dataset"], models[0].reading)
    may_lack = all(model.may_lack for model in models)
    source, form = Path(settings["input"]), settings["format"]
    jobs, problems = find_jobs(source, output, models[0].endings, reading["reference"], form, may_lack=may_lack)
    mine, names = of_shard(jobs, place, number), list(models[0].label_map.reported)
    remove_leftovers(output, mine)
    write_table(output, names, jobs, problems)  # to find out whether the folder can be written
    if settings["trainer"]["devices"] > 1:
        rows = predict_on_devices(settings, mine, output, (place, number))
    else:
        rows = predict_all(Folder.of(models, settings), mine, lambda: write_table(output, names, jobs, problems))
    write_table(output, names, jobs, problems)
    return outcome(rows, problems if place == 1 else [], output) | {"seconds": round(time.monotonic() - started, 1)}


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
    settings: dict[str, Any], jobs: Sequence[Job], output: Path, shard: tuple[int, int]
) -> list[dict[str, Any]]:
    """Let a process for each device do its part of the jobs; return their rows.

    Raises:
        MedsegError: there are not so many devices, or a process ended before its part was done.
    """
    count = settings["trainer"]["devices"]
    kind = check_devices(settings["device"], count)
    on_devices(kind, count, *shard)
    kept = [(job, records.read(output, job.id)) for job in jobs]
    if lost := [job.id for job, record in kept if record is None]:
        raise MedsegError(f"{len(lost)} scan(s) were not reached; what is above says why:\n{listing(lost)}")
    return [dict(record.row) for _, record in kept if record is not None]


@dataclass
class Work:
    """A scan on its way: what it is made of, what was made of it so far, and the seconds that took."""

    job: Job
    made_of: str
    seconds: float = 0.0
    prepared: Prepared | None = None
    decided: NDArray[np.uint8] | None = None
    files: list[Path] = field(default_factory=list)
    kept: Record | None = None


@dataclass(frozen=True)
class Folder:
    """How the scans of a folder are worked on, in three stages: read, segment and write."""

    predictor: Predictor
    output: Path
    recipe: dict[str, Any]
    skip_done: bool
    overlays: bool
    save_probabilities: bool
    format: str
    codes: dict[str, Any] | None
    meshes: bool

    @classmethod
    def of(cls, models: Sequence[Model], settings: dict[str, Any]) -> "Folder":
        """Set up what the settings ask for."""
        output = Path(settings["output"])
        options = {name: settings[name] for name in ("device", "precision", "inference", "postprocess")}
        predictor = Predictor(models, **options, reading=settings["dataset"], scratch=output)
        wanted = {name: settings[name] for name in ("overlays", "save_probabilities", "format", "codes", "meshes")}
        recipe = {**predictor.recipe, **wanted, "version": __version__}
        recipe["models"] = [records.file_hash(model.path) for model in models]
        return cls(predictor, output, recipe, settings["skip_done"], **wanted)

    @property
    def stages(self) -> list[Stage]:
        """The stages, with PyTorch's threads for each: on a CPU the network has the cores."""
        threads = torch.get_num_threads()
        beside = 1 if self.predictor.device.type == "cpu" else threads
        return [Stage(self.read, beside), Stage(self.segment, threads), Stage(self.write, 1)]

    def read(self, job: Job) -> Work:
        """Read and prepare a scan, unless its results are there."""
        began = time.monotonic()
        work = Work(job, records.made_of(job.images, self.recipe | {"absent": sorted(job.absent)}))
        record = records.read(self.output, job.id)
        if self.skip_done and records.is_done(self.output, record, work.made_of):
            work.kept = record
        else:
            prepared = self.predictor.prepare(job.images, sorted(job.absent))
            work.prepared = prepared if self.overlays else prepared.without_image
        work.seconds += time.monotonic() - began
        return work

    def segment(self, work: Work) -> Work:
        """Run the networks over a scan."""
        if work.kept:
            return work
        assert work.prepared is not None
        began = time.monotonic()
        with ExitStack() as files:
            watches = []
            if self.save_probabilities:
                names, folder = self.predictor.label_map.outputs, work.job.probabilities
                watches.append(files.enter_context(probability_files(folder, names, work.prepared.scan, work.files)))
            work.decided = self.predictor.decide(work.prepared, watches)
        work.prepared = replace(work.prepared, inputs=())  # frees the image on the network grid
        work.seconds += time.monotonic() - began
        return work

    def write(self, work: Work) -> dict[str, Any]:
        """Write a scan's mask and what else is wanted, record it, and return its row of the table."""
        if work.kept:
            return dict(work.kept.row)
        assert work.prepared is not None
        assert work.decided is not None
        began = time.monotonic()
        mask = self.predictor.finish(work.prepared, work.decided)
        write_classes(work.job.mask, mask.indices, mask.label_map, mask.scan, self.format, self.codes)
        work.files.append(work.job.mask)
        if self.meshes:
            work.files += write_meshes(work.job.meshes, mask.indices, mask.label_map.names, mask.scan)
        if self.overlays:
            draw(mask, work.job.picture)
            work.files.append(work.job.picture)
        row = row_of(work.job, mask, work.seconds + time.monotonic() - began)
        files = {path.relative_to(self.output).as_posix(): records.file_hash(path) for path in work.files}
        records.write(self.output, work.job.id, Record(work.made_of, files, row))
        return row


def predict_all(folder: Folder, jobs: Sequence[Job], rewrite_table: Any) -> list[dict[str, Any]]:
    """Segment every scan, whatever becomes of the others; return their rows."""
    rows, written = [], time.monotonic()
    try:
        for number, passage in enumerate(pipeline(jobs, folder.stages), 1):
            row = passage.made
            if passage.error is not None:
                row = {"case": passage.item.id, "status": FAILED, "error": passage.error}
                records.write(folder.output, passage.item.id, Record("", {}, row))
            rows.append(row)
            log.info("%d/%d %s %s", number, len(jobs), row["case"], row["status"])
            if time.monotonic() - written > REWRITTEN:
                rewrite_table()
                written = time.monotonic()
    except BaseException:
        remove_unfinished()
        rewrite_table()
        raise
    return rows


def remove_leftovers(output: Path, jobs: Sequence[Job]) -> None:
    """Remove what a killed process left half-written of these jobs, or that nobody has written to for a minute."""
    own = {path for job in jobs for path in (job.mask, job.picture, records.place(output, job.id))}
    folders = {job.probabilities for job in jobs}
    for path in leftovers(output):
        target = path.with_name(path.name.partition("-")[2])
        if target in own or target.parent in folders or time.time() - path.stat().st_mtime > IDLE:
            path.unlink(missing_ok=True)


def draw(mask: Mask, path: Path) -> None:
    """Draw a mask over its scan."""
    from medseg.evaluation.overlays import overlay

    with replacing(path) as temporary:
        overlay(mask.scan, mask.indices, mask.label_map.names).save(temporary)
