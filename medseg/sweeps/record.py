"""A sweep's folder: a record of its jobs from the first second on, and a folder for each with what became of it."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from medseg.config.untrusted import LAUNCHING, SWEEP, read_json_object, read_yaml
from medseg.errors import MedsegError
from medseg.evaluation.report.run_info import data_name, node, read_part
from medseg.io.csv_files import as_csv
from medseg.io.damage import reading
from medseg.io.datasets.splits import Split, are_folds, parts_by_hash
from medseg.jobs.rundir import RESULT_CURE, has_state, make_unique, read_result
from medseg.sweeps.rankings import JobResult, Ranking, differing, rankings, settings_of
from medseg.system.file_names import file_name
from medseg.system.files import TEMPORARY, refuse_links, remove_leftovers, write_json, write_text
from medseg.system.locks import NAME as LOCK
from medseg.system.locks import is_held, locked, locked_file
from medseg.system.running.progress_file import NAME as PROGRESS

log = logging.getLogger(__name__)

COLUMNS = ("ranking", "job", "status", "score", "test_score", "seconds", "unlearned")
"""The first columns of ``sweep.csv``."""

RECORD_LOCK = ".sweep.lock"
"""What a process holds while it changes the record: several may work on a search."""

CROSS_VALIDATION = "cross_validation"
"""Where a sweep of folds has the report of all their validation cases."""

GIVEN_UP = "pruned"
"""The status of a job that a search has ended early."""

DONE = ("done", "some_failed", GIVEN_UP)
"""How a job ends that need not be done again."""

INTERRUPTED_JOB = {"status": "interrupted", "reason": "interrupted"}
"""The result of a job that did not end."""


@contextmanager
def sweep_folder(run_dir: str | None, dataset: str, settings: Sequence[str], *, is_shared: bool) -> Iterator[Path]:
    """Yield the sweep's folder: ``run_dir``, or else ``outputs/sweeps/<dataset>/<timestamp>``.

    A sweep that was stopped goes on in the folder ``run_dir``, with the ``settings`` that it was started with, maybe on
    other machines: those of the launcher may differ. If ``is_shared`` others may work in it at the same time.

    Raises:
        MedsegError: ``run_dir`` holds anything else, another process works in it, or it cannot be made.
    """
    try:
        if run_dir:
            folder = Path(run_dir)
            folder.mkdir(parents=True, exist_ok=True)
        else:
            name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
            folder = make_unique(Path("outputs") / "sweeps" / file_name(str(dataset)) / name)
    except OSError as error:
        raise MedsegError(
            f"the sweep's folder {error.filename or run_dir} cannot be made: {error.strerror}."
        ) from error
    names = {path.name for path in folder.iterdir() if not TEMPORARY.fullmatch(path.name)}
    if names - {LOCK, RECORD_LOCK} and SWEEP not in names:
        raise MedsegError(f"run_dir={run_dir}: it exists already, and holds no sweep. Give a folder that does not.")
    refuse_links(folder, f"run_dir={folder}")
    with nullcontext() if is_shared else locked(folder, f"run_dir={folder}"):
        with locked_file(folder / RECORD_LOCK):
            before = read_json_object(folder / SWEEP) if (folder / SWEEP).is_file() else {"settings": list(settings)}
            begun, own = kept(before.get("settings") or []), kept(settings)
            if begun != own:
                differences = [
                    *(f"with {text}" for text in begun if text not in own),
                    *(f"without {text}" for text in own if text not in begun),
                ]
                raise MedsegError(
                    f"run_dir={run_dir}: it exists already, and was started with other settings:"
                    f" {', '.join(differences) or 'these in another order'}. Give another folder; resume={run_dir} goes"
                    " on with that sweep."
                )
            remove_leftovers(folder)
            write_json(folder / SWEEP, {**before, "settings": list(settings), "has_ended": False})
        yield folder


def kept(settings: Sequence[str]) -> list[str]:
    """Return the settings that a sweep keeps when it goes on: all but where it lies, and where its jobs run."""
    begins = ("-m", "--multirun", "run_dir=", "resume=", "trust=", *LAUNCHING)
    return [setting for setting in settings if not setting.startswith(begins)]


def announce(folder: Path, jobs: Mapping[int, Sequence[str]]) -> None:
    """Write the overrides of jobs into the sweep's record before they begin."""
    named = {str(number): list(overrides) for number, overrides in jobs.items()}
    with locked_file(folder / RECORD_LOCK):
        record = read_json_object(folder / SWEEP)
        write_json(folder / SWEEP, {**record, "jobs": {**record.get("jobs", {}), **named}})


def done_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a job that is done; None where it is to be done, or to be done again."""
    path = folder / "result.json"
    result = read_result(path) if path.is_file() else {}
    return result if result.get("status") in DONE else None


def withdraw(folder: Path) -> None:
    """Remove the result of a job's earlier attempt, unless it goes on from there, or is done and only tested."""
    with locked_file(folder.parent / RECORD_LOCK):  # others may be reading all results
        if not done_result(folder) and not has_state(folder):
            (folder / "result.json").unlink(missing_ok=True)


def is_job(run_dir: Path) -> bool:
    """Return whether a run is one of a sweep's jobs."""
    return (run_dir.parent / SWEEP).is_file()


def record(folder: Path, result: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write a job's result.json, or add the overrides and the cases it was validated on to the one that it wrote.

    That may be of an earlier attempt: how this one has ended is what ``result`` says, unless it is ``INTERRUPTED_JOB``:
    the job itself may have said more of it.
    """
    path = folder / "result.json"
    own = read_json_object(path, RESULT_CURE) if path.is_file() else {}
    if result != INTERRUPTED_JOB:
        told = ("status", "reason", "score", "test_score")
        own |= {name: result[name] for name in told if result.get(name) is not None and result[name] == result[name]}
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: result.get(name) for name in ("status", "reason", "score", "test_score", "seconds")}
    plain |= {name: None for name in ("score", "test_score") if plain[name] != plain[name]}  # JSON has no NaN
    write_json(path, plain | own | {"overrides": list(overrides), "validated": validated(folder, plain | own)})


def validated(run: Path, result: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a training's score is of: data set, metric, number of cases, and a hash of these and their classes.

    None where the run has no split that can be read, so that its score has no order with others.
    """
    if not (run / "splits.json").is_file():
        return None
    try:
        cases = sorted(code for code, subset in parts_by_hash(run / "splits.json").items() if subset == "val")
    except MedsegError as error:  # a sweep ends with a table, whatever became of its jobs
        log.warning("the job is not ranked: %s", error)
        return None
    best = node(node(result, "selection"), "best")
    metric = next((name for name in best if name not in ("epoch", "smoothed")), "dice")
    dataset = node(read_part(run / "config.yaml", read_yaml), "dataset")
    drawn = result.get("validated_on")  # of many validation cases those that validated
    what = [cases, *(dataset.get(name) for name in ("root", "labels", "regions")), *([drawn] if drawn else [])]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return {"dataset": data_name(dataset), "metric": metric, "n_cases": len(drawn or cases), "cases": digest}


def read(folder: Path) -> list[JobResult]:
    """Return the results of a sweep's jobs, in their order."""
    paths = [path for path in folder.glob("*/result.json") if path.parent.name.isdecimal()]
    jobs = sorted(({**read_result(path), "job": int(path.parent.name)} for path in paths), key=lambda job: job["job"])
    names = names_of({job["job"]: job["overrides"] for job in jobs} | announced(folder))
    return [{**job, "name": names[job["job"]]} for job in jobs]


def announced(folder: Path) -> dict[int, list[str]]:
    """Return the overrides of the jobs in a sweep's record, by number.

    Raises:
        MedsegError: the record is damaged.
    """
    path = folder / SWEEP
    with reading(path, "record of a sweep"):
        jobs = read_json_object(path).get("jobs", {}) if path.is_file() else {}
        return {int(number): list(map(str, overrides)) for number, overrides in jobs.items()}


def names_of(jobs: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """Return what tells jobs apart, by number: of the overrides of each those that not all share."""
    return dict(zip(jobs, differing([*jobs.values()]), strict=True))


def write_record(folder: Path, *, has_ended: bool = False) -> list[Ranking]:
    """Write into ``sweep.json`` what became of the jobs so far, ranked, and return the rankings.

    A sweep that has ended stays so until it is begun again, whatever becomes of single jobs.
    ``best`` are the best jobs, one or the folds of one for each ranking. ``ensemble`` are all jobs if these are the
    complete folds of one cross-validation, else null. ``sweep.csv`` has the same in a table.
    """
    with locked_file(folder / RECORD_LOCK):
        path, jobs = folder / SWEEP, read(folder)
        ranked, names = rankings(jobs), ("job", "status", "reason", "score", "test_score", "unlearned")
        before = read_json_object(path) if path.is_file() else {}
        content = {
            "settings": before.get("settings"),
            "jobs": before.get("jobs", {}),
            "has_ended": has_ended or before.get("has_ended", False),
            "rankings": [
                {
                    "title": each.title,
                    "jobs": [{name: job.get(name) for name in names} | {"overrides": job["name"]} for job in each.jobs],
                }
                for each in ranked
            ],
            "best": [job["job"] for each in ranked for job in each.best],
            "ensemble": [job["job"] for job in jobs] if are_complete_folds(folder, jobs) else None,
        }
        write_json(path, content)
        write_text(folder / "sweep.csv", csv_of(ranked))
    return ranked


def csv_of(ranked: Sequence[Ranking]) -> str:
    """Return the jobs as CSV in the order of their rankings, with a column for each key that jobs override."""
    rows = []
    for number, ranking in enumerate(ranked, start=1):
        for job in ranking.jobs:
            own = {"ranking": number, "of": ranking.title, "unlearned": "; ".join(job["unlearned"])}
            rows.append({**job, **settings_of(job["overrides"]), **own})
    keys = dict.fromkeys(key for row in rows for key in settings_of(row["overrides"]))
    return as_csv([*COLUMNS, *keys, "of", "reason"], rows)


def states_of(folder: Path) -> list[dict[str, Any]]:
    """Return where the jobs of a sweep are that have not ended: ``job``, ``name``, and what ``state_of`` tells.

    They have left no result, or are being done again.
    """
    states = []
    for number, name in names_of(announced(folder)).items():
        run = folder / str(number)
        if not (run / "result.json").is_file() or (not done_result(run) and is_held(run)):
            states.append({"job": number, "name": name, **state_of(run)})
    return states


def state_of(run_dir: Path) -> dict[str, Any]:
    """Return where a job that has not ended is: ``state`` and what its ``progress.json`` tells."""
    if not is_held(run_dir):
        return {"state": "stopped" if (run_dir / "config.yaml").is_file() else "waiting"}
    try:
        return {"state": "running", **read_json_object(run_dir / PROGRESS)}
    except MedsegError:  # it is not there yet
        return {"state": "running"}


def are_complete_folds(folder: Path, jobs: Sequence[JobResult]) -> bool:
    """Return whether jobs are folds of one cross-validation that have validated each of its cases, and are all done."""
    cases = {(job["validated"] or {}).get("cases") for job in jobs if job["status"] in ("done", "some_failed")}
    if None in cases or len(cases) < max(2, len(jobs)):
        return False
    files = [folder / str(job["job"]) / "splits.json" for job in jobs]
    splits = [Split.load(file) for file in files]
    is_complete = sum(len(split.val) for split in splits) == len(splits[0].train) + len(splits[0].val)
    return is_complete and are_folds(map(parts_by_hash, files))


def reports_by_run(path: Path) -> dict[Path, Path | None]:
    """Return the folder of a run's own report, or of those of the runs in it, of which some may have none."""
    if own := report_folder(path):
        return {path: own}
    children = sorted(path.iterdir(), key=lambda child: (len(child.name) if child.name.isdecimal() else 0, child.name))
    return {child: report_folder(child) for child in children if child.is_dir()}


def report_folder(path: Path) -> Path | None:
    """Return the folder of a run's own report, if it has one."""
    folders = [path / CROSS_VALIDATION, path / "test" if (path / "splits.json").is_file() else path]
    return next((folder for folder in folders if (folder / "cases.csv").is_file()), None)
