"""A search: a queue of trainings that Optuna draws from a space, each when a share of the machine is free.

Its study lies in the sweep's folder, so that it goes on where it was stopped, and several processes can work on it,
also on machines that share the folder. A process that trains a trial holds a lock that is the trial's; the operating
system frees it with the process, and whoever takes it next goes on with the trial.
"""

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from medseg.config.check import is_int, is_number, resolve
from medseg.config.schema import typed
from medseg.config.settings import FirstStageSettings, SearchSettings, TrainerSettings
from medseg.errors import MedsegError
from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.io.csv_files import read_csv
from medseg.io.damage import reading
from medseg.jobs.rundir import read_result
from medseg.sweeps.process import CANCELLED, KILLED, Job
from medseg.sweeps.queue import Queue
from medseg.sweeps.record import DONE, GIVEN_UP, INTERRUPTED_JOB, done_result
from medseg.system.files import write_json
from medseg.system.locks import NotLockableError, is_held, open_locked, open_to_append

log = logging.getLogger(__name__)

SEARCH = "search.json"
"""What the trials of a search were, in the sweep's folder."""

JOURNAL = "study.journal"
"""The study, as Optuna keeps it."""

FINALISTS = 3
"""How many of the best are repeated with further seeds."""

RUNGS = {"min_resource": 15, "reduction_factor": 2}
"""Trials are compared at 15, 30 and 60 % of their training, where the better half goes on: 20 trials take about as long
as 8 (successive halving; Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020)."""

MOST_KILLS = 2
"""How often a trial is done again whose process was killed."""

DRAWS = 20
"""Draws by Optuna's model for a combination that is new, before it is drawn at random."""

LOOK = 1.0
"""Seconds from one look at what other processes have done to the next, while there is nothing to begin."""


class Search(Queue):
    """The trials of a search, and after them repeats of the best with further seeds. A job's number is its trial's.

    The first trial is the config as it is, as far as the space has its values.
    """

    most_on_cluster = 4  # each is drawn in the light of those that have ended

    def __init__(
        self,
        folder: Path,
        space: Mapping[str, BaseDistribution],
        start: Mapping[str, Any],
        settings: SearchSettings,
        seed: int,
        job_of: Callable[[int, list[str]], Job],
    ) -> None:
        """``start`` are values of the config by key, ``seed`` is its seed; ``job_of`` adds to what the space draws.

        Raises:
            MedsegError: the study in the folder is damaged, or cannot be written.
        """
        self.folder, self.space, self.start, self.settings = folder, dict(space), dict(start), settings
        self.seed, self.job_of = seed, job_of
        size = math.prod(map(number_of_values, self.space.values()))
        self.total = int(min(settings.trials, size))
        self.lock = StudyLock(folder)
        self.claims: dict[int, IO[str]] = {}
        self.seen: dict[int, int] = {}
        self.limits: dict[int, TrainerSettings] = {}
        self.next_look = -math.inf
        self.is_over = False
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        lock: Any = self.lock  # which need not inherit Optuna's
        with self.lock, reading(lock.journal, "journal of a study"):
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(lock.journal), lock_obj=lock))
            self.study = optuna.create_study(
                study_name="search",
                storage=storage,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.SuccessiveHalvingPruner(**RUNGS),
            )
            self.trials()

    def __len__(self) -> int:
        """Return how many trials are to be begun."""
        return 0 if self.is_over else max(0, self.total - len(self.trials()))

    @property
    def is_empty(self) -> bool:
        """Whether all trials have ended, those of other processes too, some of which may die."""
        return self.is_over

    def upcoming(self, count: int) -> list[Job]:
        """Return nothing: what the next trials are depends on those under way."""
        return []

    def next(self) -> Job | None:
        """Return a trial whose process has died, or else a new one; None while there is none to begin."""
        if self.is_over or time.monotonic() < self.next_look:
            return None
        with self.lock:
            for trial in self.trials():
                if trial.state == TrialState.RUNNING and self.claim(trial.number):
                    folder = self.folder / str(trial.number)
                    if not is_held(folder) and not done_result(folder):
                        return self.job(trial)
                    if not is_held(folder):  # else its job saves
                        self.take_in(trial)
                    self.release(trial.number)
            if drawn := self.draw(self.trials()):
                params, attributes = drawn
                now = create_trial(
                    state=TrialState.RUNNING, params=params, distributions=self.space, user_attrs=attributes
                )
                self.study.add_trial(now)
                trial = self.trials()[-1]
                self.claim(trial.number)
                return self.job(trial)
            self.is_over = not any(trial.state == TrialState.RUNNING for trial in self.trials())
            self.next_look = time.monotonic() + LOOK
        return None

    def take(self, numbers: Container[int]) -> list[Job]:
        """Return the trials of these numbers that no process has: their jobs run on a cluster without it."""
        with self.lock:
            running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
            return [self.job(trial) for trial in running if trial.number in numbers and self.claim(trial.number)]

    def draw(self, trials: list[FrozenTrial]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the parameters and attributes of the next trial: a new one, or the repeat of one of the best."""
        first = [trial for trial in trials if "seed" not in trial.user_attrs]
        spent = sum(trial.user_attrs.get("seconds", 0.0) for trial in first)
        if len(first) < self.total and not (self.settings.time and spent >= self.settings.time):
            return self.propose(trials), {}
        if any(trial.state == TrialState.RUNNING for trial in first):
            return None
        complete = [trial for trial in first if trial.state == TrialState.COMPLETE]
        had = [(trial.params, trial.user_attrs.get("seed")) for trial in trials]
        for best in sorted(complete, key=lambda trial: -(trial.value or 0.0))[:FINALISTS]:
            for seed in range(self.seed + 1, self.seed + 1 + self.settings.repeats):
                if (best.params, seed) not in had:
                    return best.params, {"seed": seed}
        return None

    def propose(self, trials: list[FrozenTrial]) -> dict[str, Any]:
        """Return parameters that no trial has had, by the tree-structured Parzen estimator of Optuna.

        What is drawn depends on the trials so far, and not on the process. Trials that run count as bad ones
        (``constant_liar``), so that others do not draw the like.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the argument was experimental before Optuna 5
            study = optuna.create_study(direction="maximize")
            study.add_trials(trials)
            if not trials:
                study.enqueue_trial(self.start)
            for attempt in count():
                [seed] = np.random.SeedSequence([self.settings.seed, len(trials), attempt]).generate_state(1).tolist()
                is_modelled = attempt < DRAWS
                study.sampler = TPESampler(seed=seed, constant_liar=True) if is_modelled else RandomSampler(seed=seed)
                params: dict[str, Any] = study.ask(self.space).params
                if all(params != trial.params for trial in trials):
                    return params
        raise AssertionError

    def job(self, trial: FrozenTrial) -> Job:
        """Return the job of a trial."""
        return self.job_of(trial.number, self.overrides(trial))

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """Return the overrides of a trial, whose parameters may come from a stranger's file.

        Raises:
            MedsegError: they are not of the space.
        """
        if trial.distributions != self.space:
            raise MedsegError(f"{self.lock.journal}: trial {trial.number} is not of the space of this search.")
        texts = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in trial.params.items()}
        seed = [f"seed={int(trial.user_attrs['seed'])}"] if "seed" in trial.user_attrs else []
        return [*(f"{key}={text}" for key, text in texts.items()), *seed]

    def ended(self, job: Job) -> None:
        """Tell the study what became of a trial."""
        with self.lock:
            self.take_in(self.trials()[job.number])
            self.release(job.number)
        self.next_look = -math.inf

    def take_in(self, trial: FrozenTrial) -> None:
        """Tell the study of a trial's result. One that was interrupted or killed keeps its state: it is to go on.

        One that someone has cancelled on a cluster is not.
        """
        result = read_result(self.folder / str(trial.number) / "result.json")
        handle, reason = Trial(self.study, trial._trial_id), result.get("reason") or ""
        if result["seconds"] is not None:
            handle.set_user_attr("seconds", result["seconds"])
        if result["status"] == GIVEN_UP:
            self.study.tell(trial.number, state=TrialState.PRUNED)
        elif result["status"] in DONE and result["score"] is not None:
            self.study.tell(trial.number, result["score"])
        elif reason.startswith(KILLED) and (kills := trial.user_attrs.get("kills", 0)) < MOST_KILLS:
            handle.set_user_attr("kills", kills + 1)
        elif result["status"] != INTERRUPTED_JOB["status"] or reason.startswith(CANCELLED):
            handle.set_user_attr("reason", reason or "it has no score")
            self.study.tell(trial.number, state=TrialState.FAIL)
        self.write()

    def is_hopeless(self, job: Job) -> bool:
        """Return whether a trial is not worth going on with, by its validation Dice so far.

        The first trial, with which others compare, and repeats are trained to their end.
        """
        table = job.folder / "metrics.csv"
        size = table.stat().st_size if table.is_file() else 0
        if not self.settings.pruning or job.number == 0 or self.seen.get(job.number, 0) == size:
            return False
        self.seen[job.number] = size
        with self.lock:
            trial = self.trials()[job.number]
            if "seed" in trial.user_attrs:
                return False
            if job.number not in self.limits:
                config = resolve(job.compose())
                stage = typed(FirstStageSettings, config.get("first_stage", {}), "first_stage.")
                self.limits[job.number] = stage.left_of(typed(TrainerSettings, config["trainer"], "trainer."))
            handle = Trial(self.study, trial._trial_id)
            for percent, score in validations(table, self.limits[job.number]):
                if percent > (trial.last_step or 0):
                    handle.report(score, percent)
                    if handle.should_prune():
                        return True
                    trial = self.trials()[job.number]
        return False

    def trials(self) -> list[FrozenTrial]:
        """Return all trials by number, of other processes too.

        Raises:
            MedsegError: one has a value of another kind, as in a stranger's file.
        """
        trials: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        for trial in trials:
            attributes = trial.user_attrs
            wrong = [name for name in ("seed", "kills") if not is_int(attributes.get(name, 0))]
            wrong += [] if is_number(attributes.get("seconds", 0)) else ["seconds"]
            if wrong:
                raise MedsegError(f"{self.lock.journal}: trial {trial.number} has {wrong[0]}={attributes[wrong[0]]!r}.")
        return trials

    def claim(self, number: int) -> bool:
        """Take a trial's lock; False where a process has it, be it this one."""
        if number in self.claims:
            return False
        path = self.folder / ".claims" / str(number)
        path.parent.mkdir(exist_ok=True)
        try:
            self.claims[number] = open_locked(path, wait=False)
        except BlockingIOError:
            return False
        except NotLockableError:  # then one process alone may work on the search
            self.claims[number] = open_to_append(path)
        return True

    def release(self, number: int) -> None:
        """Give a trial's lock back."""
        self.claims.pop(number).close()

    def write(self) -> None:
        """Write ``search.json``: the trials, their scores over the course of training, and what matters how much."""
        trials = self.trials()
        importances: dict[str, float] = {}
        with warnings.catch_warnings(), suppress(ValueError, RuntimeError):  # of too few scores, or all the same
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            importances = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        write_json(
            self.folder / SEARCH,
            {
                "space": {key: optuna.distributions.distribution_to_json(each) for key, each in self.space.items()},
                "importances": importances,
                "trials": [
                    {
                        "number": trial.number,
                        "state": trial.state.name.lower(),
                        "score": trial.value if trial.state == TrialState.COMPLETE else None,
                        "params": trial.params,
                        "percents": [[step, score] for step, score in sorted(trial.intermediate_values.items())],
                        **{name: trial.user_attrs.get(name) for name in ("seed", "seconds", "kills", "reason")},
                    }
                    for trial in trials
                ],
            },
        )


class StudyLock:
    """The lock of a study, which its process may take again while it has it. It is freed with the process.

    A process that died while it wrote may have left half a line, which is removed: Optuna could not read on.
    """

    def __init__(self, folder: Path) -> None:
        self.journal, self.path = folder / JOURNAL, folder / ".study.lock"
        self.depth = 0
        try:
            self.file = open_to_append(self.journal)  # which refuses links
        except OSError as error:
            raise MedsegError(f"{self.journal} cannot be written: {error.strerror}.") from error
        self.file.close()

    def acquire(self) -> bool:
        """Wait for the lock."""
        if self.depth == 0:
            try:
                self.file = open_locked(self.path)
            except NotLockableError:
                self.file = open_to_append(self.path)
            with self.journal.open("r+b") as journal:
                journal.seek(max(0, journal.seek(0, os.SEEK_END) - 1))
                if journal.read() not in (b"", b"\n"):
                    journal.seek(0)
                    journal.truncate(journal.read().rfind(b"\n") + 1)
        self.depth += 1
        return True

    def release(self) -> None:
        """Free the lock, if this ends its outermost use."""
        self.depth -= 1
        if self.depth == 0:
            self.file.close()

    def __enter__(self) -> "StudyLock":
        """Wait for the lock."""
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        """Free the lock."""
        self.release()


def number_of_values(distribution: Any) -> float:
    """Return how many values a distribution has, infinity where it is continuous."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if distribution.single():
        return 1
    return round((distribution.high - distribution.low) / distribution.step) + 1 if distribution.step else math.inf


def validations(table: Path, limits: TrainerSettings) -> Iterator[tuple[int, float]]:
    """Yield how much of a training is done, in per cent of its epochs or its time, and its best score so far."""
    best, column = -math.inf, ScoreNames("dice").mean.column
    for row in read_csv(table):
        best = max(best, float(row.get(column) or -math.inf))
        of_epochs = int(row["epoch"]) / limits.epochs if limits.epochs else 0.0
        of_time = float(row["seconds"]) / limits.max_time if limits.max_time else 0.0
        if row.get(column) and math.isfinite(best):
            yield int(100 * max(of_epochs, of_time)), best
