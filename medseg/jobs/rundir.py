"""Run directories: where a job's files go, and what made them."""

import logging
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from medseg.config.check import escape, is_number, resolve
from medseg.config.untrusted import read_json_object, read_yaml
from medseg.errors import MedsegError
from medseg.system.file_names import file_name
from medseg.system.files import TEMPORARY, refuse_links, remove_leftovers, write_json, write_text
from medseg.system.locks import NAME as LOCK
from medseg.system.locks import locked, open_to_append
from medseg.system.printable import PrintableFormatter, printable
from medseg.system.running.progress_file import NAME as PROGRESS

log = logging.getLogger(__name__)

RESULT_CURE = "Remove it, to have the job done again."

OUTPUT = "output.log"
"""What the process of a sweep's job prints, in the job's folder before the job makes it its own."""

FIRST_STAGE = "first_stage"
"""The folder in a run's directory that holds the runs of its coarse models."""

PACKAGES = ("medseg", "torch", "lightning", "hydra-core", "omegaconf", "monai", "nibabel", "numpy", "scipy")


@contextmanager
def run_directory(config: dict[str, Any], dataset: str) -> Iterator[dict[str, Any]]:
    """Make the directory of a run and yield the config that names it, so that every ``${run_dir}`` leads there.

    It is ``run_dir`` where the config gives one, else ``outputs/<command>/<dataset>/<timestamp>``. No other process
    can write into it while the block runs. If the block fails before anything is written into it, it is removed.
    A resumed run has its directory, which is locked alone.

    Raises:
        MedsegError: it cannot be made, ``run_dir`` is not empty, or another process works in it.
    """
    chosen = resolve(config)["run_dir"]
    if config.get("resume"):
        refuse_links(Path(chosen), f"resume={chosen}")
        with locked(Path(chosen), f"resume={chosen}"):
            yield config
        return
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    path = Path(chosen) if chosen else Path("outputs") / config["command"] / file_name(str(dataset)) / name
    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        if chosen:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path = make_unique(path)
    except OSError as error:
        raise MedsegError(f"the run directory {error.filename} cannot be made: {error.strerror}.") from error
    try:
        refuse_links(path, f"run_dir={path}")
        with locked(path, f"run_dir={path}"):
            refuse_full(path, config["command"])
            remove_leftovers(path)
            yield config | {"run_dir": escape(str(path))}
    except BaseException:
        with suppress(OSError):  # it holds something by now
            for folder in dict.fromkeys([*([path] if not chosen else []), *absent]):
                folder.rmdir()
        raise


def refuse_full(run_dir: Path, command: str) -> None:
    """Raise MedsegError where a directory holds anything but what a command began there and broke off."""
    if found_in(run_dir, command) not in ("nothing", "begun"):
        raise MedsegError(
            f"run_dir={run_dir}: this directory is not empty. Give another, or resume={run_dir} to go on with it."
        )


def found_in(run_dir: Path, command: str) -> str:
    """Return what a directory holds of a command's job.

    "nothing"; or what was "begun" and broken off, so that the command may start again there; or a training that is
    "resumable", for it has a state to go on from; or one that has "ended"; or "other" things.
    """
    entries = [*run_dir.iterdir()] if run_dir.is_dir() else []
    names = {path.name for path in entries if not TEMPORARY.fullmatch(path.name)} - {LOCK, OUTPUT, PROGRESS}
    if "config.yaml" not in names:
        return "other" if names else "nothing"
    try:
        status = read_json_object(run_dir / "result.json").get("status") if "result.json" in names else None
        is_own = read_yaml(run_dir / "config.yaml").get("command") == command
    except MedsegError:
        status, is_own = "damaged", has_state(run_dir)
    if not is_own:
        return "other"
    if has_state(run_dir):
        return "ended" if status in ("done", "some_failed") else "resumable"
    table = run_dir / "metrics.csv"
    epochs = len(table.read_bytes().splitlines()) - 1 if table.is_file() else 0
    is_broken_off = status in (None, "failed", "interrupted") and epochs <= 1  # of which the last may lack a state
    return "begun" if is_broken_off else "other"


def has_state(run_dir: Path) -> bool:
    """Return whether a training can be resumed: from its last state, or from what there is of its first stage."""
    return (run_dir / "checkpoints" / "last.ckpt").exists() or (run_dir / FIRST_STAGE).is_dir()


def make_unique(path: Path) -> Path:
    """Make ``path``, or ``path-2``, ``path-3``, … where other processes were quicker."""
    candidate, number = path, 1
    while True:
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Write a config as YAML, which has escapes of its own for names that are not printable."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    write_text(path, text if printable(text) == text else yaml.safe_dump(config, sort_keys=False))


def write_environment(path: Path) -> None:
    """Write versions, git revision, device and arguments: what another needs to repeat the run."""
    import torch

    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    write_json(
        path,
        {
            "arguments": sys.argv[1:],
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": device,
            "git": git_revision(),
            "versions": versions,
        },
    )


def git_revision() -> str | None:
    """Return the revision of the checkout that medseg runs from, "-dirty" where it was changed; None outside one."""
    if not (Path(__file__).parents[2] / ".git").exists():
        return None  # installed: a repository round the environment is somebody else's
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@contextmanager
def recorded(run_dir: Path, started: float | None = None) -> Iterator[dict[str, Any]]:
    """Yield a job's result and write it into ``result.json`` when the block ends, however it ends.

    The seconds of a resumed run include those of earlier sessions, and what a sweep has written into it stays.
    ``started``, by the monotonic clock, is when the job began, if not now.
    """
    started = time.monotonic() if started is None else started
    path = run_dir / "result.json"
    before = earlier_result(path)
    earlier = before.get("seconds") or 0.0
    result: dict[str, Any] = {"status": "failed", "reason": "", "score": None, "seconds": None}
    result |= {name: before[name] for name in ("overrides", "validated") if name in before}
    try:
        yield result
    except BaseException as error:
        is_stopped = isinstance(error, KeyboardInterrupt)
        result["status"] = "interrupted" if is_stopped else "failed"
        result["reason"] = str(error) or ("interrupted" if is_stopped else type(error).__name__)
        result["seconds"] = round(earlier + time.monotonic() - started, 1)
        with suppress(MedsegError):  # on a full disk the first error is what counts
            write_json(path, result)
        raise
    result["seconds"] = round(earlier + time.monotonic() - started, 1)
    write_json(path, result)


def read_result(path: Path) -> dict[str, Any]:
    """Return what a job has left as its ``result.json``.

    Raises:
        MedsegError: it cannot be read, or holds other kinds of values.
    """
    result = read_json_object(path, RESULT_CURE)
    overrides, unlearned = result.get("overrides", []), result.get("unlearned", [])
    is_fit = {
        "status": isinstance(result.get("status"), str),
        "reason": isinstance(result.get("reason"), str | None),
        **{name: result.get(name) is None or is_number(result[name]) for name in ("score", "test_score")},
        "seconds": result.get("seconds") is None or is_number(result["seconds"]),
        "overrides": isinstance(overrides, list) and all(isinstance(setting, str) for setting in overrides),
        "unlearned": isinstance(unlearned, list) and all(isinstance(name, str) for name in unlearned),
        "validated": is_of_cases(result.get("validated")),
        "is_trained": isinstance(result.get("is_trained", True), bool),
    }
    if wrong := [f"{name}={result.get(name)!r}" for name, fits in is_fit.items() if not fits]:
        raise MedsegError(f"{path}: no result of a job: {', '.join(wrong)}. {RESULT_CURE}")
    best = result["selection"].get("best") if isinstance(result.get("selection"), dict) else None
    if "test_score" not in result and isinstance(best, dict) and is_number(best.get("dice")):
        # An older version had the test score in the place of the validation's.
        result |= {"score": best["dice"], "test_score": result.get("score")}
    defaults: dict[str, Any] = {"score": None, "test_score": None, "seconds": None, "validated": None, "unlearned": []}
    return {**defaults, **result, "overrides": overrides}


def is_of_cases(validated: Any) -> bool:
    """Return whether a result says which cases its score is over as ``sweeps.validated`` does, or says nothing."""
    kinds = {"dataset": str, "metric": str, "n_cases": int, "cases": str}
    return validated is None or (
        isinstance(validated, dict)
        and list(validated) == list(kinds)
        and all(isinstance(validated[name], kind) for name, kind in kinds.items())
    )


def earlier_result(path: Path) -> dict[str, Any]:
    """Return the result of an earlier session of a run; nothing, with a line in the log, if it is damaged."""
    try:
        before = read_json_object(path) if path.is_file() else {}
    except MedsegError as error:
        log.warning("the seconds of the run's earlier sessions are unknown: %s", error)
        return {}
    is_time = isinstance(before.get("seconds"), int | float)
    return before if is_time else {**before, "seconds": None}


class LogFile(logging.FileHandler):
    """A log file. On a full disk its lines are lost without an error: files that must be whole raise one."""

    def _open(self) -> Any:
        """Open the file, which is never a link to another."""
        return open_to_append(Path(self.baseFilename))

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing, where logging would print a traceback for each line."""

    def close(self) -> None:
        """Close the file, though its last line may not fit."""
        with suppress(OSError):
            super().close()


@contextmanager
def logged_to(path: Path) -> Iterator[logging.Handler]:
    """Copy medseg's log, with times, into a file while the block runs, and the error that ends it, if one does.

    Yields the handler that writes the file.
    """
    try:
        handler = LogFile(path, encoding="utf-8")
    except OSError as error:
        raise MedsegError(f"cannot write {path}: {error.strerror}. Check the folder's rights and space.") from error
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("medseg")
    logger.addHandler(handler)
    try:
        yield handler
    except (MedsegError, KeyboardInterrupt) as error:  # the terminal gets it from the command line
        level = logging.INFO if isinstance(error, KeyboardInterrupt) else logging.ERROR
        handler.handle(logger.makeRecord(logger.name, level, __file__, 0, str(error) or "interrupted", (), None))
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()
