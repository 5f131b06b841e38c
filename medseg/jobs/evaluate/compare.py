"""``medseg compare``: runs that were tested on the same cases, side by side; sweeps as their jobs were validated."""

import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from medseg.config.check import is_interpolation, read_settings, resolve
from medseg.config.settings import CompareSettings
from medseg.config.untrusted import SWEEP, read_json_object, read_yaml
from medseg.errors import MedsegError
from medseg.evaluation.comparison.files import write_comparison
from medseg.evaluation.comparison.pairing import pair
from medseg.evaluation.comparison.ranking import rank
from medseg.evaluation.comparison.tables import Result, short_tables
from medseg.evaluation.comparison.tests import compare_all
from medseg.evaluation.metrics.registry import PRESETS
from medseg.evaluation.pages.text_table import print_tables
from medseg.evaluation.report.files import Report, read_report
from medseg.jobs.evaluate.selection import configurations_of, report_candidates, select_best
from medseg.jobs.rundir import logged_to, recorded, run_directory, write_config, write_environment
from medseg.sweeps.rankings import differing
from medseg.sweeps.record import CROSS_VALIDATION, kept, reports_by_run
from medseg.sweeps.report.summary import show_sweep
from medseg.system.terminal import Terminal

log = logging.getLogger(__name__)

ALL = ("full", "brats")
"""Presets that together name every metric."""


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Compare, as the composed config says; return status, score (the best run's mean Dice), seconds and ``run_dir``.

    A sweep is shown as it is now, and no more of one whose jobs were not tested: then nothing is written.

    Raises:
        MedsegError: fewer than two reports, or reports that cannot be compared.
    """
    started, settings = time.monotonic(), read_settings(CompareSettings, config)
    if settings.select:
        configurations = configurations_of(settings.runs)
        folders = [configuration.folder for configuration in configurations]
    else:
        sweeps = [run for run in settings.runs if (run / SWEEP).is_file()]
        for folder in sweeps:
            show_sweep(folder)
        folders = list(dict.fromkeys(folder for run in settings.runs for folder in report_folders(run)))
        if len(folders) < 2 and sweeps:
            log.info("no tests are compared, as fewer than two jobs were tested; sweep.test=all tests all")
            return {"status": "done", "score": None, "seconds": time.monotonic() - started}
    if len(folders) < 2:
        runs, what = ", ".join(map(str, settings.runs)), "run" if settings.select else "report"
        raise MedsegError(
            f"runs={runs}: {len(folders)} {what} found, but two or more are needed. Of a sweep the best job alone is"
            " tested, unless sweep.test=all; the folds of a cross-validation count as one."
        )
    if settings.select:
        names = names_of(folders, [one.folder for one in configurations if len(one.models) > 1])
    else:
        names = names_of(folders)
        reports = [read_report(folder, name) for folder, name in zip(folders, names, strict=True)]
        result = compared(reports, settings.metrics.names)
    with run_directory(config, dataset_of(folders)) as named:
        run_dir = Path(resolve(named)["run_dir"])
        with logged_to(run_dir / "compare.log"), recorded(run_dir) as outcome:
            write_config(run_dir / "config.yaml", named)
            write_environment(run_dir / "environment.json")
            if settings.select:
                by_name = dict(zip(names, configurations, strict=True))
                reports, models = report_candidates(by_name, run_dir, settings.device, settings.trust)
                result = select_best(compared(reports, ["dice"]), models, run_dir)
            show_and_write(result, reports, run_dir)
            outcome |= {"status": "done", "score": result.ranking.runs[0].mean}
            log.info("run directory: %s", run_dir)
            if settings.select:
                log.info("to use what was selected: medseg predict checkpoint=%s input=… output=…", run_dir)
    return {**outcome, "run_dir": str(run_dir)}


def compared(reports: Sequence[Report], names: Sequence[str] = ALL) -> Result:
    """Compare reports by metrics and presets of them; Dice is always among them, and first.

    Raises:
        MedsegError: they cannot be compared.
    """
    chosen = [metric for name in names for metric in PRESETS.get(name, (name,))]
    if unknown := [name for name in chosen if name in names and not any(name in report.rows[0] for report in reports)]:
        raise MedsegError(f"metrics.names: no report has {', '.join(unknown)}.")
    paired = pair(reports, list(dict.fromkeys(["dice", *chosen])))
    comparisons = compare_all(paired)
    unit = "mm" if "truth_ml" in reports[0].rows[0] else "px"
    return Result(paired, comparisons, rank(paired, comparisons), unit)


def compare_reports(names: Sequence[str], folder: Path) -> None:
    """Compare reports that lie in a folder, under their names, and say where that cannot be done."""
    try:
        reports = [read_report(folder / name, name) for name in names]
        show_and_write(compared(reports), reports, folder)
    except MedsegError as error:
        log.warning("no comparison: %s", error)


def show_and_write(result: Result, reports: Sequence[Report], folder: Path) -> None:
    """Show a comparison's tables and write its files."""
    for note in result.paired.notes:
        log.warning("%s", note)
    write_comparison(folder, result, [report.folder for report in reports])
    print_tables(short_tables(result), Terminal())
    log.info("comparison: %s", folder / "comparison.html")


def report_folders(path: Path) -> list[Path]:
    """Return where a run's report lies: of a training in ``test``, of an evaluation or a sweep in one folder a run.

    Raises:
        MedsegError: there is none, in what is no sweep.
    """
    reports = reports_by_run(path)
    folders = [folder for folder in reports.values() if folder]
    is_sweep = (path / SWEEP).is_file()
    if not folders and not is_sweep:
        raise MedsegError(
            f"{path}: no report in it (cases.csv, test/cases.csv, or folders with one). Give the directory of a "
            "training or an evaluation, or a sweep's folder; medseg eval checkpoint=RUN makes one."
        )
    lost = [child.name for child, folder in reports.items() if not folder and (child / "result.json").is_file()]
    if lost and not (is_sweep and len(folders) < 2):  # of a sweep the best job alone is tested
        log.warning("%s: no report of %s, left out", path, ", ".join(lost))
    return folders


def run_of(folder: Path) -> Path:
    """Return the run directory, or the sweep's folder, that a report lies in."""
    folder = folder.resolve()
    is_part = folder.name == CROSS_VALIDATION or (folder.parent / "splits.json").is_file()
    return folder.parent if is_part else folder


def names_of(folders: Sequence[Path], folds: Collection[Path] = ()) -> list[str]:
    """Name runs: jobs of a sweep by what they differ in, others by as much of their path as tells them apart.

    ``folds`` are those of the folders that stand for all folds of their setting.
    """
    runs, settings = [run_of(folder) for folder in folders], []
    for folder, run in zip(folders, runs, strict=True):
        overrides: Any = None
        with suppress(MedsegError):
            file, key = (SWEEP, "settings") if (run / SWEEP).is_file() else ("result.json", "overrides")
            overrides = read_json_object(run / file).get(key)
        own = kept([*map(str, overrides)]) if isinstance(overrides, list) else []
        left_out = ("-", "split.fold=") if folder in folds else "-"  # flags of a command line
        settings.append([text for text in own if "=" in text and not text.startswith(left_out)])
    names = [text or run.name for text, run in zip(differing(settings), runs, strict=True)]
    if len(set(names)) == len(names):
        return names
    length = next(n for n in range(1, 100) if len({run.parts[-n:] for run in runs}) == len(runs))
    return ["/".join(run.parts[-length:]) for run in runs]


def dataset_of(folders: Sequence[Path]) -> str:
    """Return the name of the data set that the runs' configs name, or "runs" where they name none."""
    for run in map(run_of, folders):
        with suppress(MedsegError):
            job = run / "0" if (run / SWEEP).is_file() else run
            node = read_yaml(job / "config.yaml").get("dataset")
            name = node.get("name") if isinstance(node, dict) else None
            if isinstance(name, str) and name and not is_interpolation(name):
                return name
    return "runs"
