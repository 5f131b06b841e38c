"""Stages of work that overlap, each in a thread of its own, with little waiting between them."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, Generic, TypeVar

import torch

from medseg.errors import MedsegError, first_line
from medseg.system.memory import free_caches, is_out_of_memory

log = logging.getLogger(__name__)

Item = TypeVar("Item")
NAME = "medseg-stage"
"""Name of the threads. They are daemons: a program that must end at once leaves them behind."""

GRACE = 1.0
"""Seconds that the last stage, which writes, has to finish its item."""

MAX_SHORTAGES = 3
"""Times that memory may run out before items are worked on one at a time."""

PAUSE = 0.1
"""Seconds after which a waiting thread checks whether it should stop."""


@dataclass(frozen=True)
class Stage:
    """One step of the work, and the number of threads that PyTorch may compute it with."""

    work: Callable[[Any], Any]
    threads: int


@dataclass
class Passage(Generic[Item]):
    """An item on its way: what the last stage returned, or why no further stage can work on it."""

    item: Item
    made: Any
    error: str | None = None
    is_short: bool = False  # whether that is a lack of memory


def pipeline(items: Iterable[Item], stages: Sequence[Stage]) -> Iterator[Passage[Item]]:
    """Yield each item with what the last stage made of it, in order; an error of one item stops no other.

    Each stage gets what the one before it returned. At most one finished result waits between two stages. A caller
    that stops iterating, by Ctrl-C or an error, stops the threads after their current items, and waits a moment for the
    last of them.

    Where memory runs out, no further item starts until those on their way have ended and the items that did not fit
    have been worked on again, one at a time. After ``MAX_SHORTAGES`` such events all further items are.
    """
    remaining, short = iter(items), Event()
    for _ in range(MAX_SHORTAGES):
        with closing(overlapped(remaining, stages, short)) as passages:
            for passage in passages:
                for each in (passage, *passages) if passage.is_short else (passage,):  # the others end first
                    if each.is_short:
                        log.warning("memory is short: a scan that does not fit beside others is worked on by itself")
                        free_caches()
                        yield from overlapped([each.item], stages, Event())
                    else:
                        yield each
        if not short.is_set():
            return
        short.clear()
    for item in remaining:
        yield from overlapped([item], stages, Event())


def overlapped(items: Iterable[Item], stages: Sequence[Stage], short: Event) -> Generator[Passage[Item]]:
    """Yield each item with what the stages made of it; start no further item once a stage has set ``short``."""
    stop = Event()
    queues: list[Queue[Passage[Item] | None]] = [Queue(1) for _ in stages]

    def first() -> Iterator[Passage[Item] | None]:
        for item in items:
            yield Passage(item, item)
            if short.is_set():
                break
        yield None

    threads = torch.get_num_threads()
    sources = [first(), *(received(queue, stop) for queue in queues[:-1])]
    workers = [
        Thread(target=run, args=(stage, source, queue, stop, short), name=NAME, daemon=True)
        for stage, source, queue in zip(stages, sources, queues, strict=True)
    ]
    for worker in workers:
        worker.start()
    try:
        while (passage := queues[-1].get()) is not None:
            yield passage
        for worker in workers:
            worker.join()  # each has passed on the None that ends the queue
    finally:
        stop.set()
        workers[-1].join(GRACE)
        torch.set_num_threads(threads)  # also of threads that begin later


def run(
    stage: Stage,
    source: Iterator[Passage[Any] | None],
    queue: "Queue[Passage[Any] | None]",
    stop: Event,
    short: Event,
) -> None:
    """Run a stage in its thread: receive, work, send, until the queue ends or ``stop`` is set."""
    torch.get_num_threads()  # the first call in a thread sets its number to that of the thread that set one last
    torch.set_num_threads(stage.threads)  # of this thread
    for passage in source:
        if passage is not None and passage.error is None:
            advance(stage, passage)
            if passage.is_short:
                short.set()
        send(queue, passage, stop)
        if stop.is_set() or passage is None:
            return


def advance(stage: Stage, passage: Passage[Any]) -> None:
    """Do a stage's work on an item; an unexpected exception is logged with its traceback."""
    try:
        passage.made = stage.work(passage.made)
    except MedsegError as error:
        passage.made, passage.error, passage.is_short = None, str(error), is_out_of_memory(error)
    except Exception as error:
        if is_out_of_memory(error):
            passage.made, passage.error, passage.is_short = None, f"not enough memory ({first_line(error)})", True
            return
        log.exception("%s: unexpected", passage.item)
        passage.made, passage.error = None, f"unexpected {type(error).__name__}: {error}"


def received(queue: "Queue[Passage[Any] | None]", stop: Event) -> Iterator[Passage[Any] | None]:
    """Yield the items of a queue until ``stop`` is set."""
    while not stop.is_set():
        try:
            yield queue.get(timeout=PAUSE)
        except Empty:
            continue


def send(queue: "Queue[Passage[Any] | None]", passage: Passage[Any] | None, stop: Event) -> None:
    """Put an item into a queue, unless ``stop`` is set."""
    while not stop.is_set():
        try:
            queue.put(passage, timeout=PAUSE)
            return
        except Full:
            continue
