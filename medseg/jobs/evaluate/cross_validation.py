"""The reports of a cross-validation: each case by the model that has not seen it, and the test of the ensemble."""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

from medseg import __version__
from medseg.config.check import problems, resolve
from medseg.config.schema import CONF, typed
from medseg.config.settings import DatasetSettings, MetricsSettings
from medseg.config.untrusted import config_of_run, read_json_object, read_yaml
from medseg.errors import MedsegError, listing
from medseg.evaluation.metrics.registry import settings_of
from medseg.evaluation.pages.text_table import print_tables
from medseg.evaluation.report.files import REPORT, Report, read_report
from medseg.evaluation.report.run_info import node, read_part
from medseg.evaluation.report.tables import tables_of
from medseg.evaluation.statistics.summary import Summary
from medseg.inference.loading import BEST, LAST, folds_of_sweep, read_models
from medseg.inference.predictor import Predictor
from medseg.io.case import Case
from medseg.io.damage import reading
from medseg.io.datasets.dataset import open_dataset
from medseg.io.datasets.splits import Split
from medseg.jobs.evaluate.candidates import classes_of
from medseg.jobs.evaluate.scoring import ReportOptions, evaluate_cases
from medseg.jobs.evaluate.seen import FOLD, SPOILING, Seen, out_of_fold, without_seen
from medseg.jobs.training_run import run_of, saved_dataset, select
from medseg.sweeps.record import CROSS_VALIDATION
from medseg.system.files import refuse_links, write_json
from medseg.system.locks import locked
from medseg.system.terminal import Terminal

log = logging.getLogger(__name__)

MADE_OF = "made_of.json"
"""Written into a report's folder when it is whole: a hash of what it was made of."""


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Write the reports of the sweep in ``run_dir``, and test where ``test`` says so; return the result of the job."""
    return cross_validate(Path(config["run_dir"]), test=config["test"], device=config["device"], trust=config["trust"])


def cross_validate(
    sweep: Path, *, test: bool = True, device: str = "auto", trust: Collection[str] = ()
) -> dict[str, Any]:
    """Write the reports of a sweep of folds that are complete; those that are there and up to date stay.

    ``cross_validation/`` has that of all validation cases, each by the model of its fold. As the weights of a fold were
    chosen on these very cases, ``cross_validation/last`` has the same of the last weights, and the first says the
    difference. ``test/`` has that of the ensemble on the test part, if there is one.

    Args:
        sweep: its folder.
        test: whether the ensemble is to be tested.
        device: where to compute, as ``device`` of ``medseg eval``.
        trust: dotted names of classes that the runs may name beside those that medseg ships.

    Returns:
        ``status`` and ``reason`` as a job's; ``score``, the mean Dice over all validation cases; ``over_folds``, the
        ``mean`` and ``std`` of the folds' means, None of folds of a case or so; ``test_score`` of the ensemble, None
        where it is not tested.

    Raises:
        MedsegError: the folds are not complete, or their data cannot be read.
    """
    runs = [sweep / str(job) for job in folds_of_sweep(sweep)]
    chosen, last = ([run / file for run in runs] for file in (BEST, LAST))
    reports, folder = Reports(runs[0], device, trust), sweep / CROSS_VALIDATION
    refuse_links(sweep, str(sweep))
    folder.mkdir(exist_ok=True)
    with locked(folder, str(folder)):
        against, notes = None, list[str]()
        selections = [node(read_part(run / "result.json"), "selection") for run in runs]
        epochs = [[node(selection, which).get("epoch") for which in ("best", "last")] for selection in selections]
        if all(best is not None and best == ending for best, ending in epochs):
            notes = ["validation has chosen the last weights in every fold: there are no others to compare with"]
        elif gone := [str(file) for file in last if not file.is_file()]:
            notes = [f"not compared with the last weights, which are not there: {', '.join(gone)}"]
            log.warning("%s", notes[0])
        else:
            log.info("out of fold, with the last weights, for which nothing was chosen on these cases:")
            reports.write_out_of_fold(folder / "last", [last])
            against = read_report(folder / "last", "the last weights, for which nothing was chosen on these cases")
        log.info("out of fold, with the weights that validation has chosen:")
        pooled = reports.write_out_of_fold(folder, [chosen], against, notes)
        summaries = [pooled]
        if test and Split.load(runs[0] / "splits.json").test:
            log.info("test of the ensemble of %d folds:", len(runs))
            summaries.append(reports.write_test(sweep / "test", chosen))
        elif test:
            log.info("no test report: the split has no test part")
    failed = max(len(summary["problems"]) for summary in summaries)
    return {
        "status": "some_failed" if failed else "done",
        "reason": f"{failed} case(s) failed" if failed else "",
        "score": pooled["mean"]["dice"],
        "over_folds": pooled["over_strata"].get(FOLD, {}).get("dice"),
        "test_score": summaries[1]["mean"]["dice"] if len(summaries) > 1 else None,
    }


class Reports:
    """Writes reports on the data set of a run, with the metrics of its test, and leaves those that are up to date."""

    def __init__(self, run: Path, device: str, trust: Collection[str]) -> None:
        self.device, self.trust = device, trust
        data = typed(DatasetSettings, saved_dataset({}, run, trust))
        self.dataset = open_dataset(data, trust, may_write=False)
        saved = config_of_run(run, trust, part="metrics").get("metrics") or {}
        config = {"metrics": {**read_yaml(CONF / "metrics" / "default.yaml"), **saved}}  # of a run that is older
        if wrong := list(problems(config).values()):
            raise MedsegError(f"{run / 'config.yaml'}: its metrics have wrong values:\n{listing(wrong)}")
        self.metrics = typed(MetricsSettings, resolve(config)["metrics"])

    def write_out_of_fold(
        self,
        folder: Path,
        configurations: Sequence[Sequence[Path]],
        against: Report | None = None,
        notes: Sequence[str] = (),
    ) -> Summary:
        """Write the report of a configuration, or of several averaged, on the validation cases of their folds.

        Of each configuration, the models of its folds, that model predicts a case which was not trained on it.
        ``against`` and ``notes`` are as in ``ReportOptions``.

        Raises:
            MedsegError: they have no validation case in common.
        """
        each = [out_of_fold(self.dataset, models, Seen.by(models, SPOILING["val"])) for models in configurations]
        shared = set.intersection(*(set(folds.number_of) for folds in each))
        if not shared:
            raise MedsegError(f"{folder.name}: no case that all of them have validated, and none trained on.")
        cases = [case for case in each[0].cases if case.id in shared]
        models_of = {
            case.id: tuple(models[folds.number_of[case.id]] for models, folds in zip(configurations, each, strict=True))
            for case in cases
        }
        own = each[0].notes
        if len(each) > 1:
            own = [f"out of fold: each case by the mean of {len(each)} models, none of which was trained on it"]
        return self.write(folder, "val", cases, models_of, [*own, *notes], each[0].strata, against)

    def write_test(self, folder: Path, models: Sequence[Path]) -> Summary:
        """Write the report of an ensemble on the test part of the first model's run, as far as none has seen it."""
        run = run_of(models[0])
        cases = select(self.dataset, "test", run and run / "splits.json")
        cases, notes = without_seen(cases, "test", models, Seen.by(models, SPOILING["test"]))
        return self.write(folder, "test", cases, {case.id: tuple(models) for case in cases}, notes)

    def write(
        self,
        folder: Path,
        subset: str,
        cases: Sequence[Case],
        models_of: Mapping[str, tuple[Path, ...]],
        notes: Sequence[str],
        strata: Sequence[str] = (),
        against: Report | None = None,
    ) -> Summary:
        """Write a report on cases, each predicted by its ensemble of models, unless it is there; show its tables."""
        files = list(dict.fromkeys(file for ensemble in models_of.values() for file in ensemble))
        rival = [against.folder / "cases.csv"] if against else []
        content = {
            "version": __version__,
            "files": [
                size_and_time(path) for path in (*files, *rival, *(file for case in cases for file in case.files))
            ],
            "models": {case: [files.index(file) for file in ensemble] for case, ensemble in models_of.items()},
            "cases": [[case.id, case.group, dict(case.columns)] for case in cases],
            "metrics": asdict(self.metrics),
            "notes": list(notes),
        }
        made_of = {"made_of": hashlib.sha256(json.dumps(content).encode()).hexdigest()}
        with suppress(MedsegError):  # there is none, or it is damaged
            if read_json_object(folder / MADE_OF) == made_of and (folder / REPORT).is_file():
                with reading(folder / "metrics.json", "report"):
                    summary = read_json_object(folder / "metrics.json")
                    print_tables(tables_of(summary), Terminal())
                log.info("report: %s, made of the same models and cases before", folder / REPORT)
                return summary
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MADE_OF).unlink(missing_ok=True)
        rmtree(folder / "overlays", ignore_errors=True)  # which would be shown, of whatever report they are
        models = dict(zip(files, read_models(files, self.trust), strict=True))
        predictors = {
            ensemble: Predictor([models[file] for file in ensemble], device=self.device)
            for ensemble in dict.fromkeys(models_of.values())
        }
        options = ReportOptions(
            settings_of(self.metrics),
            subset,
            [*self.metrics.strata, *strata],
            runs={"training": training} if (training := run_of(files[0])) else {},
            notes=notes,
            against=against,
            models=files,
        )
        summary, _ = evaluate_cases(
            lambda case, scan: predictors[models_of[case.id]](scan).indices,
            cases,
            classes_of(self.dataset, models[files[0]].label_map),
            folder,
            options,
        )
        write_json(folder / MADE_OF, made_of)
        log.info("report: %s", folder / REPORT)
        return summary


def size_and_time(path: Path) -> list[int] | None:
    """Return what changes with a file's content: its size and the time of its last change; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]
