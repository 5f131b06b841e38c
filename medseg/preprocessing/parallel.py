"""Work on many cases at once, in threads: reading, NumPy and PyTorch let go of Python's lock.

Processes took longer wherever it was measured: each imports PyTorch first, which is longer than small data sets take.
What is yielded and what is logged come in the order of the items, as if they had been worked on one by one.
"""

import ctypes
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, local
from typing import Protocol, TypeVar

import torch

HELD = local()
"""Of each thread at work the ``records`` that it has logged, which are shown with its result."""

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 32
PATIENCE = 2.0  # seconds that an interruption waits for what is being worked on


class Watch(Protocol):
    """Passes results on, one by one, and shows how many of ``total`` there are; ``doing`` says what is done."""

    def __call__(self, results: Iterable[Result], total: int, doing: str) -> Iterable[Result]: ...


def unwatched(results: Iterable[Result], total: int, doing: str) -> Iterable[Result]:
    """Pass results on and show nothing."""
    return results


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item], bytes_each: float = 0) -> Iterator[Result]:
    """Yield ``function(item)`` of each item, in order; raise what it raises.

    There is a thread for each core, but no more than fit half the free memory with ``bytes_each`` for an item at work
    and as much for one that waits to be taken. While several work, PyTorch computes each of them on one core.

    Ended early, by an error or Ctrl-C, it interrupts what is being worked on and waits for it, two seconds at most.
    """
    workers = max(1, min(len(items), cores(), MOST_WORKERS, int(free_memory() / 4 / max(bytes_each, 1))))
    todo: SimpleQueue[tuple[Item, Future[Result]] | None] = SimpleQueue()
    with ExitStack() as stack:
        stack.enter_context(held_back())
        stack.enter_context(torch_threads(1 if workers > 1 else torch.get_num_threads()))
        threads = [Thread(target=work, args=(function, todo), daemon=True) for _ in range(workers)]
        stack.callback(stop, threads, todo)
        for thread in threads:
            thread.start()
        waiting: deque[Future[Result]] = deque()
        for item in items:
            if len(waiting) == 2 * workers:
                yield taken(waiting.popleft())
            waiting.append(Future())
            todo.put((item, waiting[-1]))
        while waiting:
            yield taken(waiting.popleft())


def work(function: Callable[[Item], Result], todo: "SimpleQueue[tuple[Item, Future[Result]] | None]") -> None:
    """Do what is to do, each with what it logs kept beside its result, until there is None."""
    try:
        while task := todo.get():
            item, future = task
            HELD.records = future.records = []  # type: ignore[attr-defined]
            try:
                future.set_result(function(item))
            except Exception as error:
                future.set_exception(error)
    except KeyboardInterrupt:  # from ``stop``
        pass


def taken(future: "Future[Result]") -> Result:
    """Wait for a result, log what was held back of it, and return it."""
    try:
        return future.result()
    finally:
        for record in getattr(future, "records", ()) if future.done() else ():
            logging.getLogger(record.name).handle(record)


def stop(threads: Sequence[Thread], todo: "SimpleQueue[tuple[Item, Future[Result]] | None]") -> None:
    """End threads: those at work by an exception of their own, so that their files are tidied away."""
    while not todo.empty():
        todo.get()
    for _ in threads:
        todo.put(None)
    for thread in threads:
        if thread.ident and thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
            )
    for thread in threads:
        thread.join(PATIENCE / len(threads))


@contextmanager
def held_back() -> Iterator[None]:
    """Keep what threads at work log, rather than show it as it comes."""

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
    """Tell whether the item that this thread works on has logged anything."""
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


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> float:
    """Return the bytes of memory that are free for use, within the container's limit; infinite where unknown."""
    free = float("inf")
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{name}").read_text("ascii").strip() for name in ("max", "current"))
        return free if limit == "max" else min(free, max(0, float(limit) - float(used)))
    except (OSError, StopIteration, ValueError):
        return free
