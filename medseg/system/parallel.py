"""Work on many cases at once, in threads: reading, NumPy and PyTorch let go of Python's lock.

Processes would each import PyTorch first, which takes longer than a data set of 200 small scans. What is yielded and
what is logged come in the order of the items, as if they had been worked on one by one.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any, Generic, Protocol, TypeVar, cast

import torch

from medseg.system.cores import CGROUPS, cores
from medseg.system.memory import drop_frames, free_caches, is_out_of_memory

log = logging.getLogger(__name__)

HELD = local()
"""Of each thread at work the ``records`` that it has logged, which are logged with its result."""

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 32


class Watch(Protocol):
    """Passes results on, one by one, and shows how many of ``total`` there are; ``doing`` says what is done."""

    def __call__(self, results: Iterable[Result], total: int, doing: str) -> Iterable[Result]: ...


def unwatched(results: Iterable[Result], total: int, doing: str) -> Iterable[Result]:
    """Pass results on and show nothing."""
    return results


def in_parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    bytes_each: float = 0,
    too_large: Callable[[Item, Exception], Result] | None = None,
) -> Iterator[Result]:
    """Yield ``function(item)`` of each item, in order; raise what it raises.

    There is a thread for each core, but no more than fit half the free memory with ``bytes_each`` for an item at work
    and as much for one that waits to be taken. While several work, PyTorch computes each of them on one core. Ended
    early, by an error or Ctrl-C, it finishes what is being worked on and begins nothing new.

    An item for which memory runs out is worked on again when nothing else is, and half as many at once from then on.
    Where it is too large even so, ``too_large`` makes its result of the error.
    """
    workers = int(max(1, min(len(items), cores(), MAX_WORKERS, free_memory() / 4 / max(bytes_each, 1))))
    waiting: deque[tuple[Item, Future[Outcome[Result]]]] = deque()
    most = 2 * workers  # at work and waiting to be taken

    def next_result() -> Result:
        nonlocal most
        item, future = waiting.popleft()
        outcome = future.result()
        if outcome.error and is_out_of_memory(outcome.error):
            if most > 1:
                most //= 2
                log.warning("memory is short: fewer cases are worked on at once")
            wait([other for _, other in waiting])
            drop_frames(outcome.error)
            free_caches()
            outcome = attempt(function, item)
        if too_large and outcome.error and is_out_of_memory(outcome.error):
            return too_large(item, outcome.error)
        return logged(outcome)

    with (
        withheld_records(),
        torch_threads(1 if workers > 1 else torch.get_num_threads()),
        ThreadPoolExecutor(workers) as pool,
    ):
        try:
            for item in items:
                while len(waiting) >= most:
                    yield next_result()
                waiting.append((item, pool.submit(attempt, function, item)))
            while waiting:
                yield next_result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield items; while one is worked on, a thread makes the next."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = pool.submit(next, items, end)
            yield item
            del item  # it is the caller's alone to keep


@dataclass
class Outcome(Generic[Result]):
    """What became of an item: a result or an error, and what was logged on the way."""

    records: list[logging.LogRecord]
    result: Result | None = None
    error: Exception | None = None


def attempt(function: Callable[[Item], Result], item: Item) -> Outcome[Result]:
    """Work on an item, with what is logged kept beside the result."""
    records: list[logging.LogRecord] = []
    HELD.records = records
    try:
        return Outcome(records, result=function(item))
    except Exception as error:
        return Outcome(records, error=error)
    finally:
        HELD.records = None


def logged(outcome: Outcome[Result]) -> Result:
    """Log what was held back of an item, then return its result or raise its error."""
    log_records(outcome.records)
    if outcome.error:
        raise outcome.error
    return cast(Result, outcome.result)


def log_records(records: Iterable[logging.LogRecord]) -> None:
    """Log what was held back."""
    for record in records:
        logging.getLogger(record.name).handle(record)


@contextmanager
def withheld_records() -> Iterator[None]:
    """Store the log records of threads at work instead of showing them at once."""

    def is_shown(record: logging.LogRecord) -> bool:
        records = getattr(HELD, "records", None)
        if records is not None and record not in records:
            records.append(record)
        return records is None

    handlers = [*logging.getLogger().handlers, *logging.getLogger("medseg").handlers]
    for handler in handlers:
        handler.addFilter(is_shown)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_shown)


def has_logged() -> bool:
    """Return whether the item that this thread works on has logged anything."""
    return bool(getattr(HELD, "records", ()))


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let PyTorch compute with this many threads in those that start while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_to_cores() -> None:
    """Let PyTorch compute with no more threads than there are cores: of a container's limit it does not know."""
    if torch.get_num_threads() > (number := cores()):
        torch.set_num_threads(number)


def free_memory() -> float:
    """Return the bytes of memory that are free for use, within the container's limit; infinite where unknown."""
    free = float("inf")
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
        is_old = not (CGROUPS / "memory.max").is_file()
        group, prefix = (CGROUPS / "memory", "total_") if is_old else (CGROUPS, "")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if is_old else ("memory.max", "memory.current")
        limit, used = ((group / name).read_text("ascii").strip() for name in names)
        numbers = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
        cached = float(numbers[f"{prefix}inactive_file"])  # of files that were read: given back when needed
        return free if limit == "max" else min(free, max(0, float(limit) - float(used) + cached))
    except (OSError, StopIteration, ValueError, KeyError):
        return free
