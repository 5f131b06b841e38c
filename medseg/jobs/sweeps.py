"""A sweep's folder: one for each job, what became of it, and the tables of those that may be ranked.

A job's score is over the validation cases of its split. Jobs are in one order only where these cases are the same.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from medseg.config.untrusted import read_json_object, read_yaml
from medseg.errors import MedsegError
from medseg.evaluation.pages.text_table import counted
from medseg.evaluation.report.run_info import data_name, node, read_part
from medseg.inference.loading import SWEEP
from medseg.io.datasets.splits import Split, are_folds, parts_by_hash
from medseg.jobs.rundir import RESULT_CURE, make_unique, read_result
from medseg.system.file_names import file_name
from medseg.system.files import TEMPORARY, refuse_links, remove_leftovers, write_json
from medseg.system.locks import NAME as LOCK
from medseg.system.locks import locked

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)

Job = dict[str, Any]
"""What a job has left as its ``result.json``, and its number as ``job``."""


@contextmanager
def sweep_folder(run_dir: str | None, dataset: str, settings: Sequence[str]) -> Iterator[Path]:
    """Yield the sweep's folder: ``run_dir``, or else ``outputs/sweeps/<dataset>/<timestamp>``.

    A sweep that was stopped goes on in the folder ``run_dir``, with the settings that it was started with.

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
    asked = [setting for setting in settings if not setting.startswith("run_dir=")]
    names = {path.name for path in folder.iterdir() if not TEMPORARY.fullmatch(path.name)} - {LOCK}
    if names and SWEEP not in names:
        raise MedsegError(f"run_dir={run_dir}: it exists already, and holds no sweep. Give a folder that does not.")
    refuse_links(folder, f"run_dir={folder}")
    with locked(folder, f"run_dir={folder}"):
        if names and (begun := read_json_object(folder / SWEEP).get("settings")) != asked:
            raise MedsegError(
                f"run_dir={run_dir}: it exists already, and was started with other settings ({begun}). Give these to "
                "continue that sweep, or another folder."
            )
        remove_leftovers(folder)
        write_json(folder / SWEEP, {"settings": asked, "has_ended": False})
        yield folder


def result_of(folder: Path) -> dict[str, Any] | None:
    """Return the result of a job of a sweep that was stopped; None where the job is to be done, or to be done again."""
    path = folder / "result.json"
    result = read_result(path) if path.is_file() else {}
    if result.get("status") in ("done", "some_failed"):
        return result
    path.unlink(missing_ok=True)
    return None


def is_job(run_dir: Path) -> bool:
    """Return whether a run is one of a sweep's jobs."""
    return (run_dir.parent / SWEEP).is_file()


def record(folder: Path, result: dict[str, Any], overrides: list[str]) -> None:
    """Write a job's result.json, or add the overrides and the cases it was validated on to the one that it wrote."""
    path = folder / "result.json"
    own = read_json_object(path, RESULT_CURE) if path.is_file() else {}
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: result.get(name) for name in ("status", "reason", "score", "test_score", "seconds")}
    plain |= {name: None for name in ("score", "test_score") if plain[name] != plain[name]}  # JSON has no NaN
    write_json(path, plain | own | {"overrides": overrides, "validated": validated(folder, plain | own)})


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


def read(folder: Path) -> list[Job]:
    """Return the results of a sweep's jobs, in their order."""
    paths = [path for path in folder.glob("*/result.json") if path.parent.name.isdecimal()]
    return sorted(({**read_result(path), "job": int(path.parent.name)} for path in paths), key=lambda job: job["job"])


@dataclass(frozen=True)
class Setting:
    """The jobs of one setting, which differ in the seed alone; those with a score that counts first, the best first."""

    jobs: Sequence[Job]

    @property
    def scores(self) -> list[float]:
        """The scores that can be ranked: of trainings whose validation cases are known."""
        return [job["score"] for job in self.jobs if counts(job)]


@dataclass(frozen=True)
class Ranking:
    """The settings with the same validation cases, by their mean score over the seeds, the best first.

    Jobs without a score, or whose cases are not known, follow in their order.
    """

    settings: Sequence[Setting]

    @property
    def jobs(self) -> list[Job]:
        """All jobs, in the order of the ranking."""
        return [job for setting in self.settings for job in setting.jobs]

    @property
    def best(self) -> Job | None:
        """The best job of the best setting; None where nothing can be ranked."""
        return next((job for job in self.jobs if counts(job)), None)

    @property
    def title(self) -> str:
        """What the scores are, of which cases, and which way is better."""
        if self.best is None:
            return "in the order of the jobs, which have no validation scores to be ranked by"
        what = self.best["validated"]
        metric = "mean Dice" if what["metric"] == "dice" else f"minus the {what['metric']}"
        return f"{metric} over {counted(what['n_cases'], 'validation case')} of {what['dataset']}; higher is better"


def counts(job: Job) -> bool:
    """Return whether a job's score can be ranked."""
    return job["score"] is not None and job["validated"] is not None


def rankings(jobs: Sequence[Job]) -> list[Ranking]:
    """Return the order of the jobs that were validated on the same cases of a data set, one for each such set of cases.

    What cannot be ranked stands behind the only ranking, or, of several, apart.
    """
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(tuple((job["validated"] or {}).values()) if counts(job) else (), []).append(job)
    others = groups.pop((), [])
    if len(groups) == 1:
        next(iter(groups.values())).extend(others)
    elif others:
        groups[()] = others
    ranked = []
    for group in groups.values():
        settings: dict[tuple[str, ...], list[Job]] = {}
        for job in group:
            own = tuple(item for item in job["overrides"] if not item.startswith("seed="))
            settings.setdefault(own if counts(job) else (str(job["job"]),), []).append(job)
        ordered = [Setting(sorted(its, key=lambda job: -(job["score"] or 0.0))) for its in settings.values()]
        ordered.sort(key=lambda setting: (not setting.scores, -fmean(setting.scores) if setting.scores else 0.0))
        ranked.append(Ranking(ordered))
    return ranked


def write_record(folder: Path, *, has_ended: bool = False) -> list[Ranking]:
    """Write into ``sweep.json`` what became of the jobs so far, ranked, and return the rankings.

    A sweep that has ended stays so until it is begun again, whatever becomes of single jobs.
    ``best`` are the best jobs, one for each ranking. ``ensemble`` are all jobs if these are the complete folds of one
    cross-validation, else null.
    """
    path, jobs = folder / SWEEP, read(folder)
    ranked, names = rankings(jobs), ("job", "status", "reason", "score", "test_score")
    own = dict(zip((job["job"] for job in jobs), differing([job["overrides"] for job in jobs]), strict=True))
    before = read_json_object(path) if path.is_file() else {}
    content = {
        "settings": before.get("settings"),
        "has_ended": has_ended or before.get("has_ended", False),
        "rankings": [
            {
                "title": each.title,
                "jobs": [{name: job.get(name) for name in names} | {"overrides": own[job["job"]]} for job in each.jobs],
            }
            for each in ranked
        ],
        "best": [each.best["job"] for each in ranked if each.best],
        "ensemble": [job["job"] for job in jobs] if are_complete_folds(folder, jobs) else None,
    }
    write_json(path, content)
    return ranked


def are_complete_folds(folder: Path, jobs: Sequence[Job]) -> bool:
    """Return whether jobs are folds of one cross-validation that have validated each of its cases, and are all done."""
    cases = {(job["validated"] or {}).get("cases") for job in jobs if job["status"] in ("done", "some_failed")}
    if None in cases or len(cases) < max(2, len(jobs)):
        return False
    files = [folder / str(job["job"]) / "splits.json" for job in jobs]
    splits = [Split.load(file) for file in files]
    is_complete = sum(len(split.val) for split in splits) == len(splits[0].train) + len(splits[0].val)
    return is_complete and are_folds(map(parts_by_hash, files))


def differing(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return of each job the overrides that not all of them share, in a line; of a single job all.

    >>> differing([["seed=1", "model.depth=3"], ["seed=1", "model.depth=4"]])
    ['model.depth=3', 'model.depth=4']
    """
    common = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    return [" ".join(override for override in own if override not in common) for own in jobs]


def tables(ranked: Sequence[Ranking]) -> "list[Table]":
    """Return a table for each ranking by ``score``; the test's stands beside it and chooses nothing.

    Overrides that all jobs share are left out. Where jobs differ in the seed alone, a row before theirs has the mean.
    A table without a frame follows where jobs are not done, with the reason of each in a line that is cut to the width.
    """
    from rich.markup import escape
    from rich.table import Table

    jobs = [job for ranking in ranked for job in ranking.jobs]
    lines = differing([job["overrides"] for job in jobs])
    shown = {job["job"]: line for job, line in zip(jobs, lines, strict=True)}
    has_test = any(job["test_score"] is not None for job in jobs)  # on 80 columns the overrides need the room
    several = []
    for ranking in ranked:
        table = Table("job", title=escape(ranking.title), title_justify="left")
        for header in ("overrides", "val", *["test"] * has_test, "status", "seconds"):
            table.add_column(header, overflow="fold")
        for setting in ranking.settings:
            if len(scores := setting.scores) > 1:
                own = " ".join(item for item in shown[setting.jobs[0]["job"]].split() if not item.startswith("seed="))
                spread = f"{len(scores)} seeds, {min(scores):.4f} to {max(scores):.4f}"
                table.add_row("", escape(f"{own}: {spread}" if own else spread), f"{fmean(scores):.4f}")
            for job in setting.jobs:
                cells = [str(job["job"]), escape(shown[job["job"]])]
                for score in (job["score"], job["test_score"])[: 1 + has_test]:
                    cells.append("-" if score is None else f"{score:.4f}")
                cells += [job["status"], "-" if job["seconds"] is None else f"{job['seconds']:.0f}"]
                table.add_row(*cells)
        reasons = Table.grid()
        reasons.add_column(no_wrap=True)
        for job in ranking.jobs:
            if job["status"] != "done" and (reason := " ".join((job.get("reason") or "").split())):
                reasons.add_row(escape(f"job {job['job']}: {reason}"))
        several += [table, reasons] if reasons.rows else [table]
    return several
