"""Which job of a sweep begins next."""

from collections.abc import Container, Iterable

from medseg.sweeps.process import Job
from medseg.system.locks import is_held


class Queue:
    """Jobs that are known from the beginning, in their order. A search has a queue of its own, which draws them."""

    most_on_cluster = 256
    """How many of the jobs wait or run on a cluster at a time, unless the launcher says so."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs = list(jobs)

    def __len__(self) -> int:
        """Return the number of jobs that wait, as far as it is known."""
        return len(self.jobs)

    @property
    def is_empty(self) -> bool:
        """Whether no more jobs will begin."""
        return not self.jobs

    def next(self) -> Job | None:
        """Return the next job to begin, which leaves the queue; None while none can.

        A folder may be held by a job whose sweep was killed, and which saves.
        """
        job = next((job for job in self.jobs if not is_held(job.folder)), None)
        if job:
            self.jobs.remove(job)
        return job

    def take(self, numbers: Container[int]) -> list[Job]:
        """Return the jobs of these numbers, which leave the queue: an earlier session has begun them."""
        begun = [job for job in self.jobs if job.number in numbers]
        self.jobs = [job for job in self.jobs if job.number not in numbers]
        return begun

    def upcoming(self, count: int) -> list[Job]:
        """Return the jobs that are likely to be next, so many at most; none where they are not known."""
        return [job for job in self.jobs[:count] if not is_held(job.folder)]

    def ended(self, job: Job) -> None:
        """Take in that a job has ended; its folder has the result."""

    def is_hopeless(self, job: Job) -> bool:
        """Return whether a job under way is not worth going on with."""
        return False
