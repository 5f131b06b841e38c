"""A sweep's folder as its jobs leave it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medseg.sweeps.record import announce, record
from medseg.system.files import write_json

Sweep = Callable[..., Path]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Make a folder of jobs: of overrides, each with its score, None for one that failed, or "" for one not begun."""

    def made(scores: dict[str, float | str | None], *, val: str = "bc", metric: str = "dice") -> Path:
        folder = tmp_path / "sweep"
        folder.mkdir()
        write_json(folder / "sweep.json", {"settings": ["-m"], "has_ended": False})
        announce(folder, {job: ["dataset=x", *overrides.split()] for job, overrides in enumerate(scores)})
        for job, (overrides, score) in enumerate(scores.items()):
            if score == "":
                continue
            run = folder / str(job)
            run.mkdir()
            hashes = {name: f"#{name}" for name in "abcd"}
            split = {"format": 1, "train": ["a"], "val": list(val), "test": ["d"], "hashes": hashes}
            (run / "splits.json").write_text(json.dumps(split))
            (run / "config.yaml").write_text("dataset: {name: x}")
            (run / "train.log").write_text("what happened")
            result = {"status": "done", "reason": "", "score": score, "seconds": 10.0 + job}
            if score is None:
                result |= {"status": "failed", "reason": "killed by <SIGKILL>"}
            else:
                rows = [f"{epoch},{score * epoch / 3}" for epoch in (1, 2, 3)]
                (run / "metrics.csv").write_text("\n".join([f"epoch,val_{metric}", *rows]))
                result["selection"] = {"best": {"epoch": 3, metric: score}}
            (run / "result.json").write_text(json.dumps(result))
            record(run, result, ["dataset=x", *overrides.split()])
        return folder

    return made


GRID = {
    "optimizer.lr=0.1 model.depth=2": 0.6,
    "optimizer.lr=0.1 model.depth=3": 0.7,
    "optimizer.lr=0.001 model.depth=2": 0.8,
    "optimizer.lr=0.001 model.depth=3": 0.9,
    "optimizer.lr=1 model.depth=2": None,
    "optimizer.lr=1 model.depth=3": "",
}


@pytest.fixture
def grid(sweep: Sweep) -> Path:
    """Two values by two, of which job 3 is the best and was tested; job 4 has failed, and 5 not begun."""
    folder = sweep(GRID)
    (folder / "3" / "test").mkdir()
    (folder / "3" / "test" / "metrics.json").write_text(json.dumps({"n_cases": 26, "mean_ci95": [0.8, 0.9]}))
    (folder / "3" / "test" / "report.html").touch()
    result = json.loads((folder / "3" / "result.json").read_text())
    (folder / "3" / "result.json").write_text(json.dumps({**result, "test_score": 0.85}))
    return folder


@pytest.fixture
def folds(sweep: Sweep) -> Path:
    """The folds of one cross-validation, with the reports of all cases out of fold and of the ensemble's test."""
    scores = {"split.fold=0": 0.6, "split.fold=1": 0.9, "split.fold=2": 0.7}
    folder = sweep(scores)
    for job, overrides in enumerate(scores):
        split = json.loads((folder / str(job) / "splits.json").read_text())
        split |= {"train": [name for name in "abc" if name != "abc"[job]], "val": ["abc"[job]]}
        (folder / str(job) / "splits.json").write_text(json.dumps(split))
        record(folder / str(job), {"status": "done"}, ["dataset=x", overrides])
    for name, dice in {"cross_validation": 0.735, "test": 0.815}.items():
        (folder / name).mkdir()
        summary = {"n_cases": 3, "mean": {"dice": dice}, "mean_ci95": [dice - 0.1, dice + 0.1]}
        (folder / name / "metrics.json").write_text(json.dumps(summary))
        (folder / name / "report.html").touch()
    return folder
