"""Jobs of a second on the synthetic data set, and what two runs of one must have in common."""

import csv
import json
from pathlib import Path

from leftovers import leftovers
from processes import check_whole, names_in, run, said

from medseg.preprocessing.file_hashes import NAME as HASHES
from medseg.system.locks import NAME as LOCK
from medseg.system.running.progress_file import NAME as PROGRESS

DATA = ("dataset.dims=2", "dataset.cases=8", "dataset.size=32")
SMALL = (
    *DATA,
    *("model.depth=1", "model.base_channels=2"),
    *("trainer.max_time=null", "trainer.max_epochs=3", "trainer.steps_per_epoch=2", "trainer.validation_interval=1"),
    *("trainer.accelerator=cpu", "logger=none", "plan.batch_size=2"),
    *("trainer.class_prior=false", "trainer.head_factor=1"),  # every class is found, in pieces that tuning removes
)
TRAIN = ("train", *SMALL, "run_dir=run")
RESUME = ("train", "resume=run")
SCANS = "outputs/phantom/2d-1-channels-8-cases-size-32-seed-0/images"
PREDICT = (
    *("predict", "checkpoint=run", f"input={SCANS}", "output=masks", "device=cpu", "overlays=html", "worst=1"),
    *("uncertainty=true", "save_probabilities=true", "format=nifti"),
)
EVAL = ("eval", "checkpoint=run", "device=cpu", "run_dir=evaluation", "subset=all")
TUNE = (
    *("eval", "tune=postprocess", "checkpoint=run", "device=cpu", "run_dir=tuning"),
    *("dataset=phantom", "dataset.dims=2", "dataset.cases=20", "dataset.size=24"),
)
SWEEP = ("train", "-m", *SMALL, "trainer.max_epochs=2", "loss=dice_ce,ce", "run_dir=sweep")
CLEAN = ("cache", "clean=true")

# Files and values that depend on the clock, or on where the run lies
VARIABLE_FILES = {
    "config.yaml",
    "environment.json",
    "report.html",
    "sweep.html",
    "train.log",
    "eval.log",
    "multirun.yaml",
    "last.ckpt",
    "output.log",
}
VARIABLE = {"seconds", "step_seconds", "data_share", "date", "image"}


def content(path):
    """Return what must be the same in two runs."""
    if path.name in VARIABLE_FILES:
        return None
    if path.suffix == ".json":
        return without_variable(json.loads(path.read_text("utf-8")))
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return without_variable(list(csv.DictReader(file)))
    return path.read_bytes()


def without_variable(value):
    if isinstance(value, dict):
        return {key: without_variable(each) for key, each in value.items() if key not in VARIABLE}
    return [without_variable(each) for each in value] if isinstance(value, list) else value


def check_same(folder, other):
    """Compare the files of two folders; a job that was killed in its last moment leaves its lock and its progress.

    Hashes of files are kept of those that are no longer new.
    """
    left = {HASHES, LOCK, PROGRESS}
    names, others = ([name for name in names_in(each) if Path(name).name not in left] for each in (folder, other))
    assert names == others
    for path in map(folder.joinpath, names):
        if path.is_file():
            assert content(path) == content(other / path.relative_to(folder)), path


def again(command, place):
    """Run a command that must end well, and leave nothing half-written."""
    status = run(command, place)
    assert status == 0, said(place)
    assert "Traceback" not in said(place)
    check_whole(place)
    assert not leftovers(place)
