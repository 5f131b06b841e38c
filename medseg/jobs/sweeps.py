"""A sweep's folder: one for each job, what became of it, and the ranked table at the end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.jobs.rundir import RESULT_CURE, make_unique, read_result
from medseg.system.file_names import file_name
from medseg.system.files import TEMPORARY, refuse_links, remove_leftovers, write_json
from medseg.system.locks import NAME as LOCK
from medseg.system.locks import locked

if TYPE_CHECKING:
    from rich.table import Table

SETTINGS = "sweep.json"
"""The settings that a sweep was started with, in its folder."""


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
    if names and SETTINGS not in names:
        raise MedsegError(f"run_dir={run_dir}: it exists already, and holds no sweep. Give a folder that does not.")
    refuse_links(folder, f"run_dir={folder}")
    with locked(folder, f"run_dir={folder}"):
        if names and (begun := read_json_object(folder / SETTINGS).get("settings")) != asked:
            raise MedsegError(
                f"run_dir={run_dir}: it exists already, and was started with other settings ({begun}). Give these to "
                "continue that sweep, or another folder."
            )
        remove_leftovers(folder)
        write_json(folder / SETTINGS, {"settings": asked})
        yield folder


def result_of(folder: Path) -> dict[str, Any] | None:
    """Return the result of a job of a sweep that was stopped; None where the job is to be done, or to be done again."""
    path = folder / "result.json"
    result = read_result(path) if path.is_file() else {}
    if result.get("status") in ("done", "some_failed"):
        return result
    path.unlink(missing_ok=True)
    return None


def record(folder: Path, result: dict[str, Any], overrides: list[str]) -> None:
    """Write a job's result.json, or add the overrides to the one that the job wrote itself."""
    path = folder / "result.json"
    own = read_json_object(path, RESULT_CURE) if path.is_file() else {}
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: result.get(name) for name in ("status", "reason", "score", "test_score", "seconds")}
    plain |= {name: None for name in ("score", "test_score") if plain[name] != plain[name]}  # JSON has no NaN
    write_json(path, plain | own | {"overrides": overrides})


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the results of a sweep's jobs, the best first, those without a score last."""
    paths = [path for path in folder.glob("*/result.json") if path.parent.name.isdecimal()]
    results = [{**read_result(path), "job": int(path.parent.name)} for path in paths]
    return sorted(results, key=lambda result: (result["score"] is None, -(result["score"] or 0.0), result["job"]))


def differing(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return of each job the overrides that not all of them share, in a line.

    >>> differing([["seed=1", "model.depth=3"], ["seed=1", "model.depth=4"]])
    ['model.depth=3', 'model.depth=4']
    """
    common = set.intersection(*map(set, jobs)) if jobs else set()
    return [" ".join(override for override in own if override not in common) for own in jobs]


def table(results: list[dict[str, Any]]) -> "Table":
    """Return the table of a sweep, ranked by ``score``; the test's stands beside it and chooses nothing.

    Overrides that all jobs share are left out.
    """
    from rich.markup import escape
    from rich.table import Table

    overrides = [result["overrides"] for result in results]
    shown = differing(overrides) if len(results) > 1 else list(map(" ".join, overrides))
    # What no job has, and why jobs ended that are done, would leave the overrides no room on a terminal of 80 columns.
    has_test = any(result["test_score"] is not None for result in results)
    has_reason = any(result["status"] != "done" for result in results)
    columns = Table("job")
    scores = ("val", "test") if has_test else ("score",)
    for header in ("overrides", *scores, "status", "seconds", *(["reason"] if has_reason else [])):
        columns.add_column(header, overflow="fold")
    for result, own in zip(results, shown, strict=True):
        cells = [str(result["job"]), escape(own)]
        for score in [result["score"], result["test_score"]][: len(scores)]:
            cells.append("-" if score is None else f"{score:.4f}")
        cells += [result["status"], "-" if result["seconds"] is None else f"{result['seconds']:.0f}"]
        reason = "" if result["status"] == "done" else " ".join((result.get("reason") or "").split())
        columns.add_row(*cells, *([escape(reason)] if has_reason else []))
    return columns
