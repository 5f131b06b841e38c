"""``medseg compare … select=best``: the run, cross-validation or ensemble that is best on cases it was not trained on.

As nnU-Net's find_best_configuration, for any settings: Isensee et al., "nnU-Net", Nature Methods 18 (2021).
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from os.path import relpath
from pathlib import Path

from medseg.config.untrusted import SWEEP
from medseg.errors import MedsegError
from medseg.evaluation.comparison.tables import Result, in_words
from medseg.evaluation.pages.text_table import counted
from medseg.evaluation.report.files import Report, read_report
from medseg.inference.loading import BEST, SELECTED, files_of
from medseg.jobs.evaluate.cross_validation import Reports, cross_validate
from medseg.jobs.evaluate.seen import is_cross_validation
from medseg.jobs.rundir import read_result
from medseg.jobs.training_run import run_of
from medseg.sweeps.record import CROSS_VALIDATION
from medseg.system.file_names import file_names
from medseg.system.files import write_json

log = logging.getLogger(__name__)

FORMAT = 1

MOST = 5
"""Configurations of which every two are averaged; of more, those of the best Dice."""


@dataclass(frozen=True)
class Configuration:
    """A way to train, as one run or as the folds of a cross-validation.

    ``folder`` is the run's, the sweep's if these are all of its jobs, or else the first fold's.
    """

    folder: Path
    models: tuple[Path, ...]


def configurations_of(paths: Sequence[Path]) -> list[Configuration]:
    """Return the configurations in run directories, folders of folds, and sweeps, whose jobs may be folds of several.

    Raises:
        MedsegError: it is not known which cases a model was trained on.
    """
    found: dict[tuple[Path, ...], Configuration] = {}
    for path in paths:
        if (path / SWEEP).is_file():
            groups: dict[tuple[str, ...], list[Path]] = {}
            for job in sorted((job for job in path.iterdir() if job.name.isdecimal()), key=lambda job: int(job.name)):
                result = read_result(job / "result.json") if (job / "result.json").is_file() else {"status": "killed"}
                if result["status"] not in ("done", "some_failed") or not (job / BEST).is_file():
                    log.warning("left out: %s (%s)", job, result["status"])
                    continue
                own = tuple(item for item in result["overrides"] if not item.startswith("split.fold="))
                groups.setdefault(own, []).append(job / BEST)
            several, ensemble = list(groups.values()), []
            with suppress(MedsegError):  # it is not the complete folds of one cross-validation
                ensemble = files_of(path)
        else:
            several = [ensemble := files_of(path)]
        for files in several:
            if unknown := [str(file) for file in files if run_of(file) is None]:
                raise MedsegError(
                    "select=best takes training runs of medseg's, of which it is known what they were trained on. It is"
                    f" not known of {unknown[0]}."
                )
            are_folds = len(files) > 1 and is_cross_validation(files)
            for models in [tuple(files)] if are_folds else [(file,) for file in files]:
                folder = path if are_folds and [*models] == ensemble else models[0].parent.parent
                found.setdefault(models, Configuration(folder, models))
    return list(found.values())


def report_candidates(
    configurations: Mapping[str, Configuration], folder: Path, device: str, trust: Collection[str]
) -> tuple[list[Report], dict[str, list[Path]]]:
    """Write reports of named configurations and of ensembles of two, on cases that they were not trained on.

    That of a sweep of folds is in its ``cross_validation``, where it is made if it is not there; all others are written
    into ``folder``. An ensemble predicts a case by the mean of those two models that have not seen it.

    Returns:
        The reports, and the models of each candidate by its name.
    """
    reports = Reports(next(iter(configurations.values())).models[0].parent.parent, device, trust)
    pairs = {" + ".join(pair): pair for pair in combinations(configurations, 2)}
    own_folders = {name: folder / file for name, file in file_names([*configurations, *pairs]).items()}
    dice: dict[str, float] = {}
    models: dict[str, list[Path]] = {}
    for name, configuration in configurations.items():
        log.info("%s:", name)
        models[name] = list(configuration.models)
        if (configuration.folder / SWEEP).is_file():
            own_folders[name] = configuration.folder / CROSS_VALIDATION
            score = cross_validate(configuration.folder, test=False, device=device, trust=trust)["score"]
        else:
            score = reports.write_out_of_fold(own_folders[name], [configuration.models])["mean"]["dice"]
        dice[name] = score or 0.0
    best = sorted(dice, key=lambda name: -dice[name])[:MOST]
    if len(dice) > MOST:
        log.info("ensembles are made of the %d best of %d: %s", MOST, len(dice), ", ".join(best))
    for name, pair in pairs.items():
        if {*pair} <= {*best}:
            log.info("%s:", name)
            members = [configurations[member].models for member in pair]
            models[name] = [model for each in members for model in each]
            reports.write_out_of_fold(own_folders[name], members)
    return [read_report(own_folders[name], name) for name in models], models


def select_best(result: Result, models: Mapping[str, Sequence[Path]], folder: Path) -> Result:
    """Write ``selected.json``, by which ``checkpoint=`` takes the best candidate, into a folder; add the conclusions.

    ``models`` are those of each candidate. Of candidates with the same Dice the first counts, which is a single
    configuration before an ensemble.
    """
    first, second = (ranked.run for ranked in result.ranking.runs[:2])
    one = next(one for one in result.of("dice", result.overall) if {one.a, one.b} == {first, second})
    if one.a != first and one.difference is not None:
        bounds = one.interval and [-bound for bound in reversed(one.interval)]
        one = replace(one, a=first, b=second, difference=-one.difference, interval=bounds)
    conclusions = [
        f"Selected: {first}, of {counted(len(models[first]), 'model')}. Against the second, {second}: {in_words(one)}.",
        f"It is the best of {len(models)} candidates on the same {len(result.paired.cases)} cases. A choice among many"
        " flatters: the interval is not adjusted for it. Post-processing is not chosen here.",
    ]
    content = {
        "format": FORMAT,
        "selected": first,
        "runs": [relpath(model.resolve().parent.parent, folder.resolve()) for model in models[first]],
        "dice": result.ranking.runs[0].mean,
        "second": second,
        "difference": one.difference,
        "interval": one.interval,
        "p": one.p_holm,
        "n_candidates": len(models),
    }
    write_json(folder / SELECTED, content)
    return replace(result, conclusions=conclusions)
