"""The jobs of a sweep on the devices of this machine, several at once where there are several."""

import logging
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.jobs.rundir import OUTPUT
from medseg.sweeps.process import AnySweep, Job, JobProcess, Share
from medseg.sweeps.queue import Queue
from medseg.sweeps.record import GIVEN_UP, done_result, record, withdraw, write_record
from medseg.sweeps.shares import divided, jobs_that_fit, shares_of
from medseg.sweeps.watch import Watch

log = logging.getLogger(__name__)

AHEAD = 2
"""Processes that are started before there is room for their jobs: importing takes each some seconds, of one core."""
LOOK = 0.1
"""Seconds from one look at the processes to the next."""


def run_locally(queue: Queue, sweep: AnySweep, chosen: Sequence[int] | None, jobs_per_device: int | str) -> None:
    """Run the queued jobs of a sweep until all have ended, ``jobs_per_device`` at once on each device of this machine.

    ``chosen`` are the numbers of the GPUs to use, null for all. "auto" for ``jobs_per_device`` goes by the memory of
    the first job's plan.

    Raises:
        MedsegError: there are no such devices, or a value is none of a launcher's.
        KeyboardInterrupt: the jobs were told to end.
    """
    if jobs_per_device != "auto" and not (isinstance(jobs_per_device, int) and jobs_per_device > 0):
        raise MedsegError(
            f"hydra.launcher.jobs_per_device={jobs_per_device}: must be a whole number from 1 on, or auto."
        )
    devices = shares_of(sweep.first, chosen)
    count = jobs_per_device if isinstance(jobs_per_device, int) else None
    LocalJobs(sweep, devices, count, Watch(sweep.folder, queue)).run(queue)


class LocalJobs:
    """Runs jobs of a command, each in a process of its own, as many at once as there are shares of the machine.

    While jobs run, the processes for the next ones are started already and import what they need.
    """

    def __init__(self, sweep: AnySweep, devices: Sequence[Share], jobs_per_device: int | None, watch: Watch) -> None:
        """``jobs_per_device`` is None where the plan of the first job decides, by its memory."""
        self.sweep, self.devices, self.watch = sweep, devices, watch
        self.is_open = jobs_per_device is None and all(device.free_gb for device in devices)
        self.free = divided(devices, jobs_per_device or 1)
        self.running: list[tuple[Job, JobProcess, Share]] = []
        self.spares: dict[int, tuple[Job, JobProcess | None]] = {}
        self.given_up: set[int] = set()

    def run(self, queue: Queue) -> None:
        """Run the jobs of a queue until all have ended, and leave the result of each in its folder.

        Ctrl-C tells all to save and to end; a second one ends them at once.

        Raises:
            KeyboardInterrupt: they were told so.
        """
        try:
            with self.watch:
                while not queue.is_empty or self.running:
                    while self.free and (job := queue.next()):
                        self.begin(job)
                    for job in queue.upcoming(AHEAD):
                        self.process_of(job)
                    self.let_more_in()
                    self.watch.look(len(queue))
                    time.sleep(LOOK)
                    self.collect(queue)
                    self.give_up(queue)
        except KeyboardInterrupt as stop:
            self.stop(queue, getattr(stop, "number", signal.SIGINT))
            raise
        finally:
            for _, process, _ in self.running:
                process.kill()
            self.collect(queue)
            self.dismiss_spares()

    def begin(self, job: Job) -> None:
        """Give a job the first share that is free."""
        share, process = self.free.pop(0), self.process_of(job)
        withdraw(job.folder)
        self.running.append((job, process, share))
        del self.spares[job.number]
        self.watch.begun(job, share.name)
        process.begin(job, share, self.sweep.argv)

    def process_of(self, job: Job) -> JobProcess:
        """Return the process of a job that has not begun; start it if there is none."""
        _, process = self.spares.setdefault(job.number, (job, None))  # entered first: Ctrl-C may come while it starts
        if not process:
            process = JobProcess(self.sweep.command, job.folder)
            self.spares[job.number] = job, process
        return process

    def collect(self, queue: Queue) -> None:
        """Take in the jobs that have ended."""
        for entry in [entry for entry in self.running if entry[1].has_ended]:
            job, process, share = entry
            self.running.remove(entry)
            self.free.append(share)
            if job.number in self.given_up and not done_result(job.folder):
                record(job.folder, {"status": GIVEN_UP, "reason": "worse than others at the same epoch"}, job.overrides)
            elif reason := process.reason() or no_result(job):
                status = "interrupted" if process.is_killed else "failed"
                record(job.folder, {"status": status, "reason": reason}, job.overrides)
            write_record(self.sweep.folder)
            self.watch.ended(job)
            queue.ended(job)

    def give_up(self, queue: Queue) -> None:
        """Tell jobs to end that are not worth going on with."""
        for job, process, _ in self.running:
            if job.number not in self.given_up and queue.is_hopeless(job):
                self.given_up.add(job.number)
                process.stop()

    def let_more_in(self) -> None:
        """Let as many jobs on each device as the plan of the first one says that there is memory for."""
        plans = [job.folder / "plan.json" for job, _, _ in self.running] if self.is_open else []
        plan = next((path for path in plans if path.is_file()), None)
        if plan is None:
            return
        self.is_open = False
        count = min(jobs_that_fit(read_json_object(plan), device.free_gb) for device in self.devices)
        log.info("%d job(s) at once on each device, by the memory of the first one's plan", count)
        self.free += divided(self.devices, count)[len(self.devices) :]

    def stop(self, queue: Queue, number: int) -> None:
        """Tell the jobs of the signal of a number, at which they save and end, and wait; Ctrl-C ends the wait."""
        log.warning("%d job(s) save and end; a second Ctrl-C ends them at once", len(self.running))
        for _, process, _ in self.running:
            process.stop(number)
        with suppress(KeyboardInterrupt):
            while self.running:
                time.sleep(LOOK)
                self.collect(queue)

    def dismiss_spares(self) -> None:
        """End the processes that got no job, and leave no folder where there was none."""
        for job, process in self.spares.values():
            if process:
                process.kill()
            if job.folder.is_dir() and {path.name for path in job.folder.iterdir()} <= {OUTPUT}:
                shutil.rmtree(job.folder, ignore_errors=True)


def no_result(job: Job) -> str:
    """Return what is wrong with a job that ended by itself and left no result; nothing of any other."""
    is_there = (job.folder / "result.json").is_file()
    return "" if is_there else f"its process left no result: {job.folder / OUTPUT} says why"
