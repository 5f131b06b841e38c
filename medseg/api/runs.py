"""Trainings and evaluations, started and looked at from Python."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from medseg.api.data import Dataset
from medseg.cli.job import log_handler, result_of
from medseg.cli.keywords import config_of
from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.evaluation.report.files import Report, read_report
from medseg.inference.checkpoint import locate
from medseg.inference.predictor import Options, Predictor
from medseg.jobs.rundir import read_result
from medseg.system.running.signals import heeded


@dataclass(frozen=True, repr=False)
class Run:
    """The directory of a training, and what is in it.

    >>> run = medseg.Run.open("outputs/nuclei")
    >>> run
    Run('outputs/nuclei', done, validation Dice ...)
    >>> run.best.name, run.report.mean["iou"] <= 1
    ('best.ckpt', True)
    >>> run.predictor(device="cpu")("scan.png").indices.shape
    (64, 64)
    """

    directory: Path

    @classmethod
    def open(cls, directory: str | Path) -> "Run":
        """Return the run in a directory, finished or not.

        Raises:
            MedsegError: there is none.
        """
        if not (Path(directory) / "config.yaml").is_file():
            raise MedsegError(f"{directory}: no config.yaml in it. Give the directory of a run.")
        return cls(Path(directory))

    def __repr__(self) -> str:
        """Describe the run by how it has ended, and its score."""
        score = f", validation Dice {self.score:.3f}" if self.score is not None else ""
        return f"Run({str(self.directory)!r}, {self.result['status']}{score})"

    @property
    def result(self) -> dict[str, Any]:
        """How the run has ended, as in ``result.json``: ``status``, ``reason``, ``score``, ``test_score``, ``seconds``.

        The status is "done", "failed", "interrupted", or "some_failed" where some test cases could not be scored;
        "testing" while the trained model is tested; "unfinished" while a run is under way. Either stays where it was
        killed.
        """
        file = self.directory / "result.json"
        unfinished = {"status": "unfinished", "reason": "", "score": None, "test_score": None, "seconds": None}
        return read_result(file) if file.is_file() else unfinished

    @property
    def score(self) -> float | None:
        """The best smoothed validation Dice, 0 to 1, whose weights are kept; None before the first validation."""
        score: float | None = self.result["score"]
        return score

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation Dice.

        Raises:
            MedsegError: there is none yet.
        """
        return locate(self.directory)

    @property
    def report(self) -> Report:
        """The report of the test cases.

        Raises:
            MedsegError: there is none: the run has not ended, or its split has no test part.
        """
        if not (self.directory / "test" / "metrics.json").is_file():
            raise MedsegError(
                f"{self.directory}: no report of test cases: the run has not ended, or its split has no test part."
                " medseg.evaluate(run, subset='val') makes one of the validation cases."
            )
        return read_report(self.directory / "test", self.directory.name)

    def predictor(self, *, trust: Collection[str] = (), **options: Unpack[Options]) -> Predictor:
        """Return what segments scans with the best weights; arguments as of ``Predictor.load``.

        Raises:
            MedsegError: there are no weights yet, or these or an option cannot be used.
        """
        return Predictor.load(self.directory, trust=trust, **options)


def train(dataset: str | Dataset | None = None, *, config_dir: str | Path | None = None, **settings: Any) -> Run:
    """Train and test, as ``medseg train`` does, and return the run.

    Ctrl-C, or the kernel's stop button, lets the training save its state first; ``medseg.train(resume=run_dir)`` goes
    on with it. The log is shown on a terminal and in a notebook, unless the program has set up logging itself.

    Args:
        dataset: what ``open_dataset`` returned, or the layout's name, such as "folder", with ``dataset.root`` among the
            settings; None: of a resumed run its own, else the synthetic "phantom".
        config_dir: a folder with config files and modules of your own, as ``--config-dir``.
        settings: by the names of the command line, nested (``model={"depth": 4}``) or dotted
            (``**{"model.depth": 4}``). An option of a group is text (``loss="dice"``), a path text or a ``Path``.

    Raises:
        MedsegError: the data or the settings cannot be used, with the message of the command line.
        KeyboardInterrupt: the training was stopped; the message says where it is.

    >>> run = medseg.train(
    ...     medseg.open_dataset("phantom", dims=2, cases=10, size=64),
    ...     trainer={"max_epochs": 1, "steps_per_epoch": 2, "accelerator": "cpu"},
    ...     model={"depth": 2, "base_channels": 4},
    ... )
    >>> run.score >= 0
    True
    >>> medseg.train("phantom", **{"trainer.max_epochs": 0})
    Traceback (most recent call last):
    medseg.errors.MedsegError: trainer.max_epochs=0: must be a whole number in [1, inf): epochs to train at most. ...
    """
    return Run(run_directory_of("train", settings_with(dataset, settings), config_dir))


def evaluate(
    model: Run | str | Path | Sequence[Run | str | Path],
    *,
    dataset: str | Dataset | None = None,
    config_dir: str | Path | None = None,
    **settings: Any,
) -> Report:
    """Evaluate a run or a checkpoint, as ``medseg eval`` does, and return the report.

    Args:
        model: a ``Run``, its directory, a checkpoint file, or several as an ensemble.
        dataset: what ``open_dataset`` returned, or a layout's name; None: the run's own data set, of which the test
            cases are evaluated, or those of ``subset``: "val", "train" or "all".
        config_dir: a folder with config files and modules of your own, as ``--config-dir``.
        settings: those of ``medseg eval``, by their names (see ``train``), such as ``metrics={"names": "full"}``.

    Raises:
        MedsegError: the model, the data or the settings cannot be used, or no case could be scored.

    >>> report = medseg.evaluate("outputs/nuclei", subset="val", metrics={"names": ["dice", "hd95"]})
    >>> sorted(report.mean)
    ['dice', 'hd95']
    """
    given = [model] if isinstance(model, Run | str | Path) else list(model)
    checkpoint = [str(each.directory if isinstance(each, Run) else each) for each in given]
    named = dict(settings_with(dataset, settings))
    if several := [name for name in ("tune", "ensemble", "predictions") if named.get(name) not in (None, True)]:
        raise MedsegError(f"{several[0]}: this makes another thing than one report. Use medseg eval for it.")
    folder = run_directory_of("eval", {"checkpoint": checkpoint, **named}, config_dir)
    return read_report(folder, folder.name)


@dataclass(frozen=True, repr=False)
class RunComparison:
    """Runs that were tested on the same cases, ranked and compared: printed it shows the tables, in Markdown.

    >>> compared = medseg.compare(["outputs/nuclei", medseg.evaluate("outputs/nuclei", inference={"tta": True})])
    >>> [run["rank"] for run in compared.ranking]
    [1, ...]
    >>> compared.comparisons[0]["metric"], compared.page.name
    ('dice', 'comparison.html')
    """

    folder: Path

    def __repr__(self) -> str:
        """Name the runs, the best first, and the folder."""
        return f"RunComparison({str(self.folder)!r}, {' > '.join(run['run'] for run in self.ranking)})"

    def __str__(self) -> str:
        """Return the tables."""
        return (self.folder / "comparison.md").read_text("utf-8")

    @property
    def page(self) -> Path:
        """The page of the comparison, with plots."""
        return self.folder / "comparison.html"

    @property
    def ranking(self) -> list[dict[str, Any]]:
        """The runs from the best to the worst, as in ``comparison.json``: ``run``, ``rank``, ``mean``, and more."""
        return list(read_json_object(self.folder / "comparison.json")["ranking"]["runs"])

    @property
    def comparisons(self) -> list[dict[str, Any]]:
        """Every two runs by every metric and class, as in ``comparison.json``: ``difference``, ``p_holm``, and more."""
        return list(read_json_object(self.folder / "comparison.json")["comparisons"])


def compare(runs: Sequence[Run | Report | str | Path], **settings: Any) -> RunComparison:
    """Compare runs that were tested on the same cases, as ``medseg compare`` does.

    Args:
        runs: runs, reports of ``evaluate``, or directories of either, or of sweeps.
        settings: those of ``medseg compare``, by their names (see ``train``), such as ``metrics={"names": ["dice"]}``.

    Raises:
        MedsegError: fewer than two have a report, or their reports cannot be compared.

    >>> medseg.compare(["outputs/nuclei"])
    Traceback (most recent call last):
    medseg.errors.MedsegError: runs=outputs/nuclei: 1 report found, but two or more are needed. ...
    """
    paths = [run.directory if isinstance(run, Run) else run.folder if isinstance(run, Report) else run for run in runs]
    return RunComparison(run_directory_of("compare", {"runs": list(map(str, paths)), **settings}, None))


def settings_with(dataset: str | Dataset | None, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings that begin with those of a data set."""
    if isinstance(dataset, Dataset):
        return {**dataset.settings, **settings}
    return settings if dataset is None else {"dataset": dataset, **settings}


def run_directory_of(command: str, settings: Mapping[str, Any], config_dir: str | Path | None) -> Path:
    """Run the job of a command, and return its run directory, also where a run had nothing left to do.

    Raises:
        MedsegError: the settings cannot be used, or nothing could be done.
        KeyboardInterrupt: a signal has asked the job to end.
    """
    with shown_log(), heeded():
        config, argv = config_of(command, settings, config_dir)
        folder = settings["run_dir"] if config is None else result_of(config, argv).get("run_dir")
    if folder is None:  # the jobs of a sweep were shown alone
        raise MedsegError("there are no two reports to compare; sweep.test=all tests all jobs of a sweep.")
    return Path(folder)


@contextmanager
def shown_log() -> Iterator[None]:
    """Show medseg's log from INFO on while the block runs, unless the program has set up logging itself."""
    logger = logging.getLogger("medseg")
    if logger.hasHandlers() or logger.level:
        yield
        return
    handler = log_handler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
