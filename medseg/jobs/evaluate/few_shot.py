"""The end of a sweep over ``split.labelled``: a learning curve, as a plot and a table."""

from pathlib import Path

from medseg.config.untrusted import read_yaml
from medseg.errors import MedsegError
from medseg.evaluation.comparison.learning_curve import Trained, points_of, table, write_learning_curve
from medseg.evaluation.pages.text_table import print_tables
from medseg.evaluation.report.files import read_report
from medseg.jobs.rundir import read_result
from medseg.sweeps.rankings import differing
from medseg.system.terminal import Terminal

AXES = ("split.labelled", "seed")
"""Overrides that are the axes of the curve; all others that differ between runs name its arms."""


def learning_curve(folder: Path) -> bool:
    """Write and show the learning curve of a sweep's folder; return whether there is one.

    It takes runs of two or more numbers of labelled groups, and writes ``learning_curve.json``, ``.md`` and ``.html``.
    """
    runs = trained_runs(folder)
    if len({run.labelled for run in runs}) < 2:
        return False
    points = points_of(runs)
    write_learning_curve(folder, points)
    print_tables([table(points)], Terminal())
    return True


def trained_runs(folder: Path) -> list[Trained]:
    """Read the runs of a sweep that have a test report and a number of labelled groups."""
    jobs = sorted((job for job in folder.iterdir() if job.name.isdecimal()), key=lambda job: int(job.name))
    jobs = [job for job in jobs if (job / "test" / "cases.csv").is_file()]
    results = [read_result(job / "result.json") for job in jobs]
    own = [[item for item in result["overrides"] if item.partition("=")[0] not in AXES] for result in results]
    runs = []
    for job, result, arm in zip(jobs, results, differing(own), strict=True):
        labelled, seed = sizes_of(job / "config.yaml")
        if labelled and result["test_score"] is not None:
            rows = read_report(job / "test", job.name).rows
            runs.append(Trained(arm or "test Dice", labelled, seed, result["test_score"], rows))
    return runs


def sizes_of(path: Path) -> tuple[int, int]:
    """Return the number of labelled groups, 0 where it is all, and the seed of a run's ``config.yaml``.

    Raises:
        MedsegError: it does not say them.
    """
    config = read_yaml(path)
    split = config.get("split")
    labelled = split.get("labelled") or 0 if isinstance(split, dict) else None
    if not isinstance(labelled, int) or not isinstance(config.get("seed"), int):
        raise MedsegError(f"{path}: no config of a training: split.labelled and seed must be whole numbers.")
    return labelled, config["seed"]
