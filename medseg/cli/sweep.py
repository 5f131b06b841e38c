"""A sweep: what Hydra's sweepers and launchers are to do with each job, and the tables at its end."""

import logging
import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medseg.cli.hydra_main import hand_over, plain
from medseg.cli.job import EXIT_STATUS, attempt, configure_logging, counted, use_share
from medseg.cli.overrides import SEARCH, SEARCHER, Check, check, is_plain
from medseg.cli.quoting import quote
from medseg.cli.sources import Sources
from medseg.config.check import escape, look_up, resolve
from medseg.config.instantiate import own_targets
from medseg.errors import MedsegError
from medseg.io.datasets.splits import read_folds
from medseg.jobs.rundir import has_state
from medseg.sweeps.process import Job
from medseg.sweeps.queue import Queue
from medseg.sweeps.record import (
    CROSS_VALIDATION,
    GIVEN_UP,
    INTERRUPTED_JOB,
    announce,
    are_complete_folds,
    done_result,
    read,
    record,
    reports_by_run,
    sweep_folder,
    write_record,
)
from medseg.sweeps.report.summary import show_sweep
from medseg.sweeps.shares import shares_of
from medseg.sweeps.tables import ranked_tables
from medseg.system.locks import locked_file
from medseg.system.printable import printable
from medseg.system.relaunch import import_path, python_command
from medseg.system.terminal import Terminal

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

TEST_LOCK = ".test.lock"
"""What a process holds while it tests the best of a sweep."""

ALL_FOLDS = "split.fold=all"
"""The setting that trains all folds of a cross-validation."""

MAXIMISING = {
    "hydra.sweeper.direction": "maximize",
    "hydra.sweeper.optim.maximize": "true",
    "hydra.sweeper.ax_config.experiment.minimize": "false",
}
"""Where sweepers that others have written, as Nevergrad's and Ax's, are told that more is better."""


class Launcher(Protocol):
    """What runs jobs, each in a process of its own: one of medseg's own launchers."""

    def run(self, queue: Queue) -> None:
        """Run the queued jobs until all have ended, and leave the result of each in its folder."""


class Sweep:
    """What Hydra's launchers know of a sweep: they call it with the config of a job, which it runs in their process.

    medseg's own launchers ask it for the jobs instead, and run each in a process of its own.
    """

    def __init__(
        self, folder: Path, argv: Sequence[str], checked: Check, sources: Sources, settings: Sequence[str]
    ) -> None:
        self.folder, self.argv, self.sources = folder, list(argv), sources
        first = checked.composed[0]
        self.command, self.first = first["command"], first
        self.launcher: Launcher | None = None
        self.begun: dict[int, Job] = {}
        self.process = os.getpid()
        named = (name for config in checked.composed for name in (*(config.get("trust") or ()), *own_targets(config)))
        self.trust = [*dict.fromkeys(named)]
        is_given = any(setting.startswith("split.seed=") for setting in settings)
        self.seed = None if is_given or (first.get("split") or {}).get("seed", 0) is not None else first["seed"]
        if self.seed is not None and "seed" in checked.swept:
            log.info("all jobs share the split of split.seed=%s, so that their scores compare", self.seed)

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to another process where a launcher sends the sweep there: neither jobs nor caches."""
        return {**vars(self), "begun": {}, "launcher": None, "sources": replace(self.sources)}

    def __call__(self, composed: "DictConfig") -> float:
        """Run the job of a config here and now, as launchers that are not medseg's ask, and return its score.

        In a process of its own, as joblib's, it takes the device that its number falls on.
        """
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        if os.getpid() != self.process:
            configure_logging()
            devices = shares_of(self.first, None)
            use_share(asdict(devices[int(hydra.job.num) % len(devices)]))
        [job] = self.jobs([(int(hydra.job.num), list(hydra.overrides.task), lambda: composed)])
        result: dict[str, Any] = dict(INTERRUPTED_JOB)  # which stays of a job that does not end
        try:
            result = done_result(job.folder) or attempt(job.compose(), self.argv)[1]
        finally:
            record(job.folder, result, job.overrides)
            write_record(self.folder)
        return self.score(job)

    def jobs(self, asked: "Sequence[tuple[int, list[str], Callable[[], DictConfig]]]") -> list[Job]:
        """Return the jobs of numbers, overrides and composed configs; the sweep's record names them from now on."""
        jobs = [
            Job(number, self.folder / str(number), overrides, partial(self.config_of, number, overrides, composed))
            for number, overrides, composed in asked
        ]
        announce(self.folder, {job.number: job.overrides for job in jobs})
        self.begun |= {job.number: job for job in jobs}
        return jobs

    def config_of(self, number: int, overrides: list[str], composed: "Callable[[], DictConfig]") -> dict[str, Any]:
        """Return the config of a job in its folder: on the split that all share, going on where it was stopped."""
        config, run_dir = plain(composed(), self.sources, overrides), self.folder / str(number)
        if "run_dir" in config:
            config["run_dir"] = escape(str(run_dir))
        if self.seed is not None and (split := config.get("split") or {}).get("seed", 0) is None:
            split["seed"] = self.seed  # null would be the job's own
        if "resume" in config and has_state(run_dir):
            config["resume"] = config["run_dir"]
        return config

    def run(self, jobs: Sequence[Job]) -> list[float]:
        """Run those jobs that are not done by medseg's own launcher; return the scores of all."""
        assert self.launcher
        left = []
        for job in jobs:
            if not (result := done_result(job.folder)):
                left.append(job)
            elif result["overrides"] != [*job.overrides]:  # it was killed when its result was there, but not recorded
                record(job.folder, result, job.overrides)
        if left:
            self.launcher.run(Queue(left))
        return [self.score(job) for job in jobs]

    def score(self, job: Job) -> float:
        """Return the score of a job that has ended; NaN where it has none."""
        score = (done_result(job.folder) or {}).get("score")
        return float("nan") if score is None else float(score)

    def test_best(self) -> None:
        """Test the best training of each ranking: resumed with nothing left to train, it is tested.

        Of several processes that work on a search one does.
        """
        with locked_file(self.folder / TEST_LOCK):
            best = [ranking.best[0] for ranking in write_record(self.folder) if len(ranking.best) == 1]
            for number in (job["job"] for job in best if job["test_score"] is None):
                self.test(number)

    def test(self, number: int) -> None:
        """Test the training of a job that is done."""
        log.info("%s is the best by validation, and is tested", self.folder / str(number))
        job = self.begun.get(number)
        if job and self.launcher:
            self.launcher.run(Queue([replace(job, compose=partial(with_test, job.compose), kind="test")]))
        elif job:
            record(job.folder, attempt(with_test(job.compose), self.argv)[1], job.overrides)
        else:  # it was composed in another process
            own = ["--config-dir", str(self.sources.config_dir)] if self.sources.config_dir else []
            resume = ["train", f"resume={quote(str(self.folder / str(number)))}", "sweep.test=all", *own]
            command = [
                *python_command("medseg.cli.command_line", "main"),
                *resume,
                f"trust=[{','.join(map(quote, self.trust))}]",
            ]
            subprocess.run(command, env={**os.environ, "PYTHONPATH": import_path()}, check=False)

    def cross_validate(self) -> bool:
        """Write the report of all cases out of fold and that of the ensemble, where the jobs are complete folds.

        Return False where that fails.
        """
        jobs = [*self.begun.values()]
        if self.command != "train" or not are_complete_folds(self.folder, read(self.folder)):
            return True
        config = {
            "command": "cross_validate",
            "run_dir": str(self.folder),
            "trust": self.trust,
            "device": resolve({"trainer": self.first["trainer"]})["trainer"]["accelerator"],
            "test": self.first["sweep"]["test"] != "none",
        }
        job = Job(len(jobs), self.folder / CROSS_VALIDATION, ["cross-validation report"], config.copy, "report")
        if self.launcher:
            self.launcher.run(Queue([job]))
        else:
            record(job.folder, attempt(config, self.argv, ())[1], job.overrides)
        return bool(done_result(job.folder))


def with_test(compose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the config of a job that is done with its test, which jobs of a sweep leave out."""
    config = compose()
    return {**config, "resume": config["run_dir"], "sweep": {"test": "all"}}


def with_space(settings: list[str], sources: Sources) -> list[str]:
    """Return settings in which ``search=`` is a sweep over what its recipes list, by Optuna.

    Keys that the settings give stay as they are.
    """
    given = {setting.partition("=")[0].lstrip("+~") for setting in settings}
    space: dict[str, Any] = {}
    with suppress(MedsegError):  # there is no such recipe, as the check of all settings will say
        recipes = [setting for setting in settings if setting.startswith("search=")]
        space = sources.skeleton(*recipes)["search"]["space"]
    sweeper = [] if "hydra/sweeper" in given else [SEARCH]
    return [*settings, *sweeper, *(f"{key}={values}" for key, values in space.items() if key not in given)]


def sweep(argv: list[str], flags: list[str], settings: list[str], checked: Check, sources: Sources) -> int:
    """Run the jobs of a sweep into one folder, print them ranked, and return the exit status.

    A job that fails does not stop the others. In the folder of a sweep that was stopped, jobs that are done stay as
    they are, and a training that has a checkpoint goes on from there. An interrupted sweep shows what is done, and the
    line that goes on with it. Trainings share one split, which the seed does not draw anew.
    """
    if several := counted():
        raise MedsegError(
            f"a sweep is started once, but {several[0]}={os.environ[several[0]]} says that this process is one of "
            "several: leave out torchrun or srun. trainer.devices says how many devices each job has."
        )
    first = checked.composed[0]
    run_dir = resolve({"run_dir": first.get("run_dir")})["run_dir"]
    names = [(config.get("dataset") or {}).get("name") or config["command"] for config in checked.composed]
    sweeper = sources.of_multirun(settings)["sweeper"]
    is_search = sweeper["_target_"] == SEARCHER
    if len(checked.composed) == 1 and not (checked.swept or sweeper.get("params")):
        log.warning("-m: no setting has several values, so the sweep is one job. Several: model.depth=2,3")
    dataset = "+".join(dict.fromkeys(names))
    with sweep_folder(run_dir, dataset, [*flags, *settings], is_shared=is_search) as folder:
        this = Sweep(folder, argv, checked, sources, settings)
        where = [f"hydra.sweep.dir={quote(str(folder))}", "hydra.sweep.subdir=${hydra.job.num}"]
        try:
            hand_over([*flags, *settings, *where, *maximising(sweeper, settings)], this)
            if (first.get("sweep") or {}).get("test") == "best":
                this.test_best()
            is_complete = this.cross_validate()
        except KeyboardInterrupt:
            Terminal().print(*ranked_tables(write_record(folder)))
            print(printable(f"to go on: {how_to_go_on(folder, argv, first['command'], settings, sources)}"))
            raise
        return report(folder) or (0 if is_complete else EXIT_STATUS["some_failed"])


def with_all_folds(settings: list[str], sources: Sources) -> list[str]:
    """Return settings in which ``split.fold=all`` is a sweep over all folds.

    Raises:
        MedsegError: it is not known how many there are.
    """
    others = [setting for setting in settings if setting != ALL_FOLDS]
    composed = check(sources, others, multirun=True).composed
    split = resolve({"split": composed[0]["split"] if composed else {}})["split"]
    count = split.get("folds") or (len(read_folds(Path(split["file"]))) if split.get("file") else 0)
    if count < 2:
        raise MedsegError(
            f"{ALL_FOLDS}: of how many? Give their number, as in split.folds=5, or a split.file of several."
        )
    return [*others, f"split.fold={','.join(map(str, range(count)))}"]


def how_to_go_on(folder: Path, argv: list[str], command: str, settings: list[str], sources: Sources) -> str:
    """Return the command line that goes on with a sweep: its own where it has what is not taken from a file."""
    if not sources.config_dir and all(map(is_plain, settings)):
        return shlex.join(["medseg", command, f"resume={folder}"])
    return shlex.join(["medseg", *(word for word in argv if not word.startswith("run_dir=")), f"run_dir={folder}"])


def maximising(sweeper: dict[str, Any], settings: list[str]) -> list[str]:
    """Return what makes a sweeper that searches maximise the score, unless the settings say which way it is to go."""
    node = {"hydra": {"sweeper": sweeper}}
    names = {setting.partition("=")[0].lstrip("+") for setting in settings}
    return [
        f"{key}={value}" for key, value in MAXIMISING.items() if key not in names and look_up(node, key.split("."))[0]
    ]


def report(folder: Path) -> int:
    """Show a sweep that has ended, and where its files are; return its exit status: 0 all done, 1 none, 3 some."""
    ranked = write_record(folder, has_ended=True)
    results = [job for ranking in ranked for job in ranking.jobs]
    show_sweep(folder)
    if len({item for result in results for item in result["overrides"] if item.startswith("split.labelled=")}) > 1:
        from medseg.jobs.evaluate.few_shot import learning_curve

        if learning_curve(folder):
            print(printable(f"learning curve: {folder / 'learning_curve.html'}"))
    if len([*filter(None, reports_by_run(folder).values())]) > 1:
        print(printable(f"for significance tests: medseg compare runs={shlex.quote(str(folder))}"))
    if results and all(result["status"] in ("done", GIVEN_UP) for result in results):
        return 0
    return 3 if any(result["status"] != "failed" for result in results) else 1
