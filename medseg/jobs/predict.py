"""``medseg predict``: masks for one scan or a folder of scans, from the checkpoint alone."""

import csv
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from medseg.config import resolve
from medseg.errors import MedsegError, listing
from medseg.inference.predictor import Mask, Predictor
from medseg.io.atomic import replacing
from medseg.io.channels import cases_from_files, equal_names
from medseg.io.files import SUFFIXES, find_images, mask_name, stem

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One scan to segment: its files, one a channel or one for all, and where its mask goes."""

    id: str
    images: tuple[Path, ...]
    mask: Path
    picture: Path


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Predict as the composed config says; return status, reason and seconds.

    Raises:
        MedsegError: no checkpoint, no scans, or an output folder that cannot be used; nothing has been written then.
            Or else no scan could be segmented.
    """
    started = time.monotonic()
    settings = resolve(config)
    options = {name: settings[name] for name in ("trust", "device", "precision", "inference", "postprocess")}
    predictor = Predictor.load(settings["checkpoint"], **options, reading=settings["dataset"])
    output = Path(settings["output"])
    jobs, problems = find_jobs(Path(settings["input"]), output, predictor.endings, predictor.reading["reference"])
    failed = predict_all(predictor, jobs, problems, output, draw=settings["overlays"])
    total = len(jobs) + len(problems)
    log.info("%d of %d masks written to %s", total - len(failed), total, output)
    if 0 < len(failed) < total:
        log.error("%d failed:\n%s", len(failed), listing(failed))
    if len(failed) == total:
        raise MedsegError(f"no scan of {total} could be segmented:\n{listing(failed)}")
    return {
        "status": "some_failed" if failed else "done",
        "reason": f"{len(failed)} of {total} scans failed:\n{listing(failed)}" if failed else "",
        "score": None,
        "seconds": round(time.monotonic() - started, 1),
    }


def find_jobs(
    source: Path, output: Path, endings: Sequence[Sequence[str]] | None, reference: int = 0
) -> tuple[list[Job], list[str]]:
    """List the scans under ``source`` and where their masks go: the same relative path and name.

    Returns:
        The scans, and a line for each file that belongs to none, such as one whose other channels are missing.

    Raises:
        MedsegError: no scan is there, or a mask would overwrite its scan.
    """
    if output.is_file() or output.name.lower().endswith(SUFFIXES):
        raise MedsegError(f"output={output}: give a folder; the masks in it take the scans' names.")
    root = source if source.is_dir() else source.parent
    files = find_images(source)
    if output.resolve().is_relative_to(root.resolve()) and output.resolve() != root.resolve():
        files = [file for file in files if not file.resolve().is_relative_to(output.resolve())]
    if equal := equal_names(root, files, endings):
        raise MedsegError(f"these files cannot be told apart:\n{listing(equal)}")
    cases, problems = cases_from_files(root, files, endings)
    if not cases:
        raise MedsegError(f"input={source}: no scan to segment.\n{listing(problems)}".rstrip())
    jobs = [job_of(case.id, case.images, output, reference) for case in cases]
    refuse_overwriting(jobs)
    return jobs, problems


def job_of(name: str, images: tuple[Path, ...], output: Path, reference: int) -> Job:
    """Return where the results of one scan go; its mask is called like the case, in the form of the reference."""
    form = images[min(reference, len(images) - 1)]
    mask = Path(name).parent / mask_name(Path(Path(name).name + form.name[len(stem(form)) :]))
    return Job(name, images, output / mask, output / "overlays" / f"{mask}.png")


def refuse_overwriting(jobs: Sequence[Job]) -> None:
    """Refuse masks that would take the place of their scans."""
    images = {image.resolve() for job in jobs for image in job.images}
    if overwritten := [str(job.mask) for job in jobs if job.mask.resolve() in images]:
        raise MedsegError(f"these masks would overwrite scans; give another output folder:\n{listing(overwritten)}")


def predict_all(
    predictor: Predictor, jobs: Sequence[Job], problems: Sequence[str], output: Path, *, draw: bool
) -> list[str]:
    """Segment every scan, whatever becomes of the others; return a line for each that failed."""
    names = list(predictor.label_map.reported)
    failed = list(problems)
    columns = ["case", "status", "seconds", *(f"{name}_ml" for name in names), *(f"{name}_voxels" for name in names)]
    with open_table(output / "predictions.csv") as file:
        writer = csv.DictWriter(file, [*columns, "error"])
        writer.writeheader()
        writer.writerows({"case": "", "status": "failed", "error": problem} for problem in problems)
        for number, job in enumerate(jobs, 1):
            started = time.monotonic()
            row: dict[str, Any] = {"case": job.id, "status": "done"}
            try:
                row |= dict(sizes(predict_one(predictor, job, draw=draw)))
            except MedsegError as error:
                failed.append(f"{job.id}: {error}")
                row |= {"status": "failed", "error": str(error)}
            writer.writerow(row | {"seconds": round(time.monotonic() - started, 2)})
            file.flush()
            log.info("%d/%d %s %s", number, len(jobs), job.id, row["status"])
    return failed


@contextmanager
def open_table(path: Path) -> Iterator[TextIO]:
    """Open a CSV file for writing, its folder made first; MedsegError where it cannot be written, then or later."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise MedsegError(f"output={path.parent}: cannot be written ({error.strerror}).") from error


def predict_one(predictor: Predictor, job: Job, *, draw: bool) -> Mask:
    """Segment one scan, write its mask and, if wanted, its overlay."""
    mask = predictor(job.images)
    mask.save(job.mask)
    if draw:
        from medseg.evaluation.overlays import overlay

        with replacing(job.picture) as temporary:
            overlay(mask.scan, mask.indices, predictor.label_map.names).save(temporary)
    return mask


def sizes(mask: Mask) -> Iterator[tuple[str, Any]]:
    """Yield the columns of ``predictions.csv`` that tell how large each class is."""
    yield from ((f"{name}_voxels", value) for name, value in mask.voxels.items())
    yield from ((f"{name}_ml", round(value, 6)) for name, value in (mask.ml or {}).items())
