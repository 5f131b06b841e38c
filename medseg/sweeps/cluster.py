"""The jobs of a sweep on a cluster: submitted to Slurm by submitit, waited for, and what became of each."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.io.damage import reading
from medseg.jobs.rundir import has_state, read_result
from medseg.sweeps.process import CANCELLED, AnySweep, Job, JobProcess, Share
from medseg.sweeps.queue import Queue
from medseg.sweeps.record import GIVEN_UP, RECORD_LOCK, done_result, record, withdraw, write_record
from medseg.sweeps.watch import Watch
from medseg.system.files import write_json
from medseg.system.locks import is_held, locked_file
from medseg.system.relaunch import import_path, start

if TYPE_CHECKING:
    import submitit
    from submitit.helpers import DelayedSubmission

log = logging.getLogger(__name__)

SUBMITTED = "submitted.json"
"""What a sweep's folder has of its jobs on a cluster: under which number each was submitted."""

SUBMITIT = ".submitit"
"""The folder, in a sweep's, of what submitit and Slurm write, a folder for each of the numbers."""

LOOK = 0.5
"""Seconds from one look at the jobs to the next."""
ASK = 5.0
"""Seconds from one question to Slurm to the next: its controller answers all users of the cluster."""

SHARED = ("name", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb")
"""Parameters that submitit has for every kind of cluster; the others are Slurm's own."""

ENDED = {
    "COMPLETED": "ended without a result",
    "FAILED": "ended without a result",
    "CANCELLED": CANCELLED,
    "TIMEOUT": "ended by its time limit before it had saved; hydra.launcher.signal_delay_s gives it more time for that",
    "DEADLINE": "ended by its deadline",
    "OUT_OF_MEMORY": "out of the memory that it was given; hydra.launcher.mem_gb gives it more",
    "PREEMPTED": "preempted, and not queued again",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
}
"""The states in which Slurm leaves a job for good, and what they mean."""


@dataclass
class Task:
    """A job as submitit's pickle takes it to a node of the cluster, where it becomes a process of its own.

    Slurm may start it several times: after a preemption, its time limit, or the failure of a node. It goes on then.
    """

    command: str
    number: int
    folder: Path
    overrides: Sequence[str]
    config: dict[str, Any]
    argv: Sequence[str]
    process: JobProcess | None = field(default=None, init=False)

    def __call__(self) -> None:
        """Do the job, or the part of one of several processes of its training; the exit status is 1 where it fails."""
        if has_state(self.folder):
            self.config["resume"] = self.config["run_dir"]
        # Slurm sends its notice to all processes of a job. It would end the training and its workers; blocked here, it
        # is so in them, too.
        notice = {signal.SIGUSR2}
        signal.pthread_sigmask(signal.SIG_BLOCK, notice)
        if int(os.environ.get("SLURM_PROCID", 0)):  # the first process tells the others to save, and has the result
            sys.exit(start(self.config, {}).wait())
        withdraw(self.folder)
        self.process = JobProcess(self.command, self.folder)
        job = Job(self.number, self.folder, self.overrides, lambda: self.config)
        self.process.begin(job, Share(os.environ.get("SLURMD_NODENAME", "")), self.argv)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, notice)
        while not self.process.has_ended:
            time.sleep(LOOK)
        if done_result(self.folder):
            return
        if is_preempted():  # Slurm gave it some time, and has told the training itself to end
            signal.raise_signal(signal.SIGUSR2)
        if reason := self.process.reason():
            record(self.folder, {"status": "failed", "reason": reason}, self.overrides)
        sys.exit(1)

    def checkpoint(self) -> "DelayedSubmission | None":
        """Let the job save and end, and return what submitit then has queued again: at a notice of Slurm's."""
        from submitit.helpers import DelayedSubmission

        if self.process:
            self.process.stop()
            # Unlike the process's own wait, which this may have interrupted, it leaves the status and locks nothing
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.process.process.pid, os.WEXITED | os.WNOWAIT)
        return None if done_result(self.folder) else DelayedSubmission(replace(self))


def is_preempted() -> bool:
    """Return whether Slurm has chosen the job of this process to make room for another."""
    if "SLURM_JOB_ID" not in os.environ:
        return False
    command = ["scontrol", "show", "job", os.environ["SLURM_JOB_ID"]]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return bool(re.search(r"\bPreemptTime=\d", shown))


def run_on_cluster(
    queue: Queue, sweep: AnySweep, cluster: Literal["slurm", "local"], parameters: Mapping[str, Any]
) -> None:
    """Submit the queued jobs of a sweep, and wait until all have ended and have left their results in their folders.

    ``local`` rehearses the cluster with processes of this machine. ``parameters`` are submitit's; at most
    ``array_parallelism`` jobs wait or run there at a time, where it is null as many as the queue says. Jobs that
    another process of the sweep has submitted, and which still wait or run, are not submitted again. Ctrl-C cancels the
    jobs, for which Slurm gives them time to save; a second one does not wait for that. Other signals leave the jobs
    alone.

    Raises:
        MedsegError: submitit is not installed, there is no Slurm, it does not take the jobs, or a parameter is wrong.
        KeyboardInterrupt: the jobs were cancelled.
    """
    if (most := parameters["array_parallelism"]) is not None and most < 1:
        raise MedsegError(f"hydra.launcher.array_parallelism={most}: must be a whole number from 1 on, or null.")
    executor_of(cluster, sweep.folder / SUBMITIT / "%j", parameters)  # where there is no cluster, it shows here
    with Watch(sweep.folder, queue) as watch:
        on_cluster = ClusterJobs(sweep, cluster, parameters, watch)
        try:
            on_cluster.run(queue)
        except KeyboardInterrupt as stop:
            if getattr(stop, "number", signal.SIGINT) != signal.SIGINT:  # the machine that waits is shut down, perhaps
                log.warning("the jobs stay on the cluster: %s", " ".join(on_cluster.jobs))
                raise
            log.warning("the jobs are cancelled and save; a second Ctrl-C does not wait for them")
            on_cluster.cancel(on_cluster.jobs)
            with suppress(KeyboardInterrupt):
                on_cluster.run(Queue([]))
            raise


@dataclass(frozen=True)
class State:
    """Where a job is in Slurm: the name of its state, why it is in it, and its nodes. No name: it is not known."""

    name: str = ""
    reason: str = ""
    node: str = ""

    @property
    def is_active(self) -> bool:
        """Whether the job waits or runs."""
        return self.name != "" and self.name not in ENDED


class ClusterJobs:
    """The jobs of a sweep that a cluster has taken and that have not ended, by their numbers there."""

    def __init__(
        self, sweep: AnySweep, cluster: Literal["slurm", "local"], parameters: Mapping[str, Any], watch: Watch
    ) -> None:
        self.sweep, self.cluster, self.parameters, self.watch = sweep, cluster, parameters, watch
        self.jobs: dict[str, Job] = {}
        self.processes: dict[str, submitit.Job[None]] = {}  # of this machine
        self.states: dict[str, State] = defaultdict(State)
        self.asked_at, self.is_answered = float("-inf"), False
        self.begun: set[str] = set()
        self.given_up: set[str] = set()
        self.waits_for = {"", "None"}

    def run(self, queue: Queue) -> None:
        """Submit the jobs of a queue, and wait for them and for those that are there already."""
        folder, most = self.sweep.folder, self.parameters["array_parallelism"] or queue.most_on_cluster
        numbers = {} if queue.is_empty else submitted_in(folder)
        self.ask()
        if numbers and self.cluster == "slurm" and not self.is_answered:  # else they would be submitted twice
            raise MedsegError(
                f"Slurm does not answer (squeue), so that it is not known which jobs of {folder} are there already."
                " Go on with the sweep once squeue answers."
            )
        if earlier := {job: number for job, number in numbers.items() if self.states[number].is_active}:
            self.jobs |= {earlier[job.number]: job for job in queue.take(earlier)}
            log.info("%d job(s) are on the cluster already: %s", len(self.jobs), " ".join(self.jobs))
        while not queue.is_empty or self.jobs:
            new: list[Job] = []
            while len(self.jobs) + len(new) < most and (job := queue.next()):
                number = submitted_in(folder).get(job.number, "")
                if self.states[number].is_active:  # by a process of the search that has died since
                    self.jobs[number] = job
                else:
                    new.append(job)
            if new:
                self.submit(new)
            self.ask()
            for number, job in [*self.jobs.items()]:
                if self.states[number].is_active or is_held(job.folder):  # it may still save
                    self.look_at(number, job, queue)
                else:
                    self.take_in(number, self.states[number].name)
                    queue.ended(job)
            self.watch.look(len(queue) + len(self.jobs) - len(self.watch.jobs))
            time.sleep(LOOK)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit jobs as one array."""
        sweep = self.sweep
        tasks = [Task(sweep.command, job.number, job.folder, job.overrides, job.compose(), sweep.argv) for job in jobs]
        executor = executor_of(self.cluster, sweep.folder / SUBMITIT / "%j", self.parameters)
        with environment_of_jobs():
            try:
                submitted = executor.submit_array(tasks)
            except RuntimeError as error:  # with what sbatch says
                said = "; ".join(str(error).splitlines())
                raise MedsegError(f"Slurm does not take the jobs (hydra.launcher): {said}.") from error
        self.jobs |= {each.job_id: job for each, job in zip(submitted, jobs, strict=True)}
        with locked_file(sweep.folder / RECORD_LOCK):
            numbers = {job.number: number for number, job in self.jobs.items()}
            write_json(sweep.folder / SUBMITTED, submitted_in(sweep.folder) | numbers)
        self.states |= {each.job_id: State("PENDING") for each in submitted}  # until Slurm is asked
        self.processes |= {each.job_id: each for each in submitted if self.cluster == "local"}
        log.info("%d job(s) submitted: %s", len(submitted), " ".join(each.job_id for each in submitted))

    def ask(self) -> None:
        """Ask for the states of the jobs, unless this was done a moment ago, or Slurm does not answer."""
        if self.cluster == "local":
            running = {number: State("RUNNING") for number, each in self.processes.items() if not each.done()}
            self.states = defaultdict(State, running)
        elif time.monotonic() - self.asked_at >= ASK:
            # Not by submitit, which asks the accounting that many a Slurm is without. Ended jobs are shown for minutes.
            command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%N"]
            command.append(f"--user={os.getuid()}")
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.is_answered = done.returncode == 0
            if self.is_answered:
                lines = (line.split("|") for line in done.stdout.splitlines())
                self.states = defaultdict(State, {number: State(*rest) for number, *rest in lines})
            self.asked_at = time.monotonic()

    def look_at(self, number: str, job: Job, queue: Queue) -> None:
        """Say what a job waits for, or that it begins; cancel it where the search does not want it any more."""
        state = self.states[number]
        if state.name == "PENDING":
            if state.reason not in self.waits_for:
                log.info("job %d waits in Slurm's queue: %s", job.number, state.reason)
            self.waits_for.add(state.reason)
        elif number not in self.begun:
            self.begun.add(number)
            self.watch.begun(job, state.node or number)
        elif number not in self.given_up and queue.is_hopeless(job):
            self.given_up.add(number)
            self.cancel([number])

    def take_in(self, number: str, state: str) -> None:
        """Write down how a job has ended: as its own result says, unless Slurm has ended it."""
        job = self.jobs.pop(number)
        path = job.folder / "result.json"
        own = read_result(path) if path.is_file() else {"status": "", "reason": ""}
        is_own = state in ("COMPLETED", "FAILED", "") and path.is_file()
        if number in self.given_up:
            record(job.folder, {"status": GIVEN_UP, "reason": "worse than others at the same epoch"}, job.overrides)
        elif not is_own and not done_result(job.folder):
            output = self.sweep.folder / SUBMITIT / number / f"{number}_0_log.err"
            said = output.read_text("utf-8", errors="replace") if output.is_file() else ""
            if state == "FAILED" and re.search("memory limit|oom.kill", said):  # where Slurm has no cgroups
                state = "OUT_OF_MEMORY"
            reason = ENDED.get(state, "ended without a result, and Slurm does not know how")
            is_stopped = state == "CANCELLED" and own["status"] != "failed"
            if is_stopped and own["reason"]:  # it has saved
                reason = f"{reason}; {own['reason'].removeprefix(f'{reason}; ')}"
            record(job.folder, {"status": "interrupted" if is_stopped else "failed", "reason": reason}, job.overrides)
        write_record(self.sweep.folder)
        self.watch.ended(job)

    def cancel(self, numbers: Collection[str]) -> None:
        """Cancel jobs."""
        if self.cluster == "slurm" and numbers:
            subprocess.run(["scancel", *numbers], check=False)
        for number in numbers if self.cluster == "local" else ():
            self.processes[number].cancel()


def submitted_in(folder: Path) -> dict[int, str]:
    """Return under which number of Slurm's each job of a sweep's folder was submitted last.

    Raises:
        MedsegError: the file that has them is damaged.
    """
    path = folder / SUBMITTED
    with reading(path, "record of submitted jobs"):
        content = read_json_object(path) if path.is_file() else {}
        return {int(job): str(number) for job, number in content.items()}


@contextmanager
def environment_of_jobs() -> Iterator[None]:
    """Let jobs that are submitted in the block import what this process can.

    Nothing is handed on of a job that this process is itself in: its tasks and memory would contradict the new one's.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith("SLURM_") and name != "SLURM_CONF":
            del os.environ[name]
    os.environ["PYTHONPATH"] = import_path()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def executor_of(cluster: str, folder: Path, parameters: Mapping[str, Any]) -> "submitit.AutoExecutor":
    """Return what submits jobs with these parameters, and has its files in a folder.

    Raises:
        MedsegError: submitit is not installed, there is no Slurm, or a parameter is more than a line.
    """
    try:
        import submitit
    except ImportError as error:
        raise MedsegError(f"hydra/launcher=submitit_{cluster} needs submitit: pip install 'medseg[slurm]'.") from error
    own = {name: value for name, value in parameters.items() if value is not None}
    if several := [name for name, value in own.items() if isinstance(value, str) and not value.isprintable()]:
        # Each parameter becomes a line of a shell script, and those of a resumed sweep are read from a file
        raise MedsegError(f"hydra.launcher.{several[0]}={own[several[0]]!r}: must be one line of text.")
    timeouts = {f"{cluster}_max_num_timeout": own.pop("max_num_timeout")}
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, **timeouts)
    except RuntimeError as error:
        raise MedsegError(
            "hydra/launcher=submitit_slurm: this machine has no Slurm (srun). Start the sweep on a login node of the "
            "cluster; hydra/launcher=submitit_local rehearses it here."
        ) from error
    executor.update_parameters(**{name if name in SHARED else f"slurm_{name}": own[name] for name in own})
    return executor
