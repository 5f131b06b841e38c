"""Run directories: where a job's files go, and what made them."""

import logging
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from medseg.errors import MedsegError
from medseg.io.atomic import write_json, write_text
from medseg.io.file_names import file_name
from medseg.io.lock import is_locked
from medseg.printable import PrintableFormatter, printable
from medseg.untrusted import read_json_object, read_yaml

PACKAGES = ("medseg", "torch", "lightning", "hydra-core", "omegaconf", "monai", "nibabel", "numpy", "scipy")


def make_run_dir(config: dict[str, Any], dataset: str) -> Path:
    """Make and return the run directory: ``run_dir`` where given, else ``outputs/<command>/<dataset>/<timestamp>``.

    Raises:
        MedsegError: it cannot be made, or ``run_dir`` holds something already.
    """
    try:
        if config["run_dir"]:
            path = Path(config["run_dir"])
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()) and not is_broken_off(path, config["command"]):
                raise MedsegError(
                    f"run_dir={path}: this directory is not empty. Give another, or resume={path} to go on with it."
                )
            return path
        name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        return make_unique(Path("outputs") / config["command"] / file_name(str(dataset)) / name)
    except OSError as error:
        raise MedsegError(f"the run directory {error.filename} cannot be made: {error.strerror}.") from error


def is_broken_off(run_dir: Path, command: str) -> bool:
    """Tell whether a directory holds what this command left there when it was killed or stopped, and nothing more.

    Then it may begin anew in it. A training that has come as far as a checkpoint is resumed.
    """
    if is_locked(run_dir) or any((run_dir / "checkpoints").glob("*.ckpt")):
        return False
    try:
        result = read_json_object(run_dir / "result.json") if (run_dir / "result.json").is_file() else {}
        return read_yaml(run_dir / "config.yaml").get("command") == command and result.get("status") in (None, "failed")
    except MedsegError:
        return False


def make_unique(path: Path) -> Path:
    """Make ``path``, or ``path-2``, ``path-3``, … where others were quicker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = path, 1
    while True:
        try:
            candidate.mkdir()
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

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    write_json(
        path,
        {
            "arguments": sys.argv[1:],
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": device,
            "git": git_revision(),
            "versions": {name: installed(name) for name in PACKAGES},
        },
    )


def installed(name: str) -> str | None:
    """Return a package's installed version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


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
def recorded(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield a job's result and write it into ``result.json`` when the block ends, however it ends."""
    started = time.monotonic()
    result: dict[str, Any] = {"status": "failed", "reason": "", "score": None, "seconds": None}
    try:
        yield result
    except BaseException as error:
        result["reason"] = str(error) or type(error).__name__
        raise
    finally:
        result["seconds"] = round(time.monotonic() - started, 1)
        write_json(run_dir / "result.json", result)


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Copy medseg's log, with times, into a file while the block runs, and the error that ends it, if one does."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("medseg")
    logger.addHandler(handler)
    try:
        yield
    except MedsegError as error:  # the terminal gets it from the command line
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, str(error), (), None))
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()
