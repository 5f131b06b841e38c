"""Stages of work that overlap, each in threads of its own, with little waiting between them."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from typing import Any, Generic, TypeVar

import torch

from medseg.errors import MedsegError, first_line
from medseg.system.memory import free_caches, is_out_of_memory
from medseg.system.parallel import attempt, log_records, withheld_records

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

END: Any = object()


@dataclass(frozen=True)
class Stage:
    """One step of the work, the number of threads that PyTorch may compute an item with, and of items at once."""

    work: Callable[[Any], Any]
    threads: int
    at_once: int = 1


@dataclass
class Passage(Generic[Item]):
    """An item on its way: what the last stage returned, or why no further stage can work on it, and what it logged."""

    item: Item
    made: Any
    error: str | None = None
    is_short: bool = False  # whether that is a lack of memory
    records: list[logging.LogRecord] = field(default_factory=list)


Places = Queue[Future[Passage[Any] | None]]
"""What comes out of a stage, in the order of the items: a place each, which is filled once it is done; None ends it."""


def pipeline(items: Iterable[Item], stages: Sequence[Stage]) -> Iterator[Passage[Item]]:
    """Yield each item with what the last stage made of it, in order; an error of one item stops no other.

    Each stage gets what the one before it returned. Between two stages waits at most one result more than the first of
    them makes at once. What is logged of an item is logged when it is yielded. A caller that stops iterating, by Ctrl-C
    or an error, stops the threads after their current items, and waits a moment for the last of them.

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

    def first() -> Iterator[Passage[Item] | None]:
        for item in items:
            yield Passage(item, item)
            if short.is_set():
                break
        yield None

    threads = torch.get_num_threads()
    source, workers = first(), list[Thread]()
    for stage in stages:
        places: Places = Queue(stage.at_once + 1)
        passed = (stage, source, Lock(), places, stop, short)
        workers += [Thread(target=run, args=passed, name=NAME, daemon=True) for _ in range(stage.at_once)]
        source = received(places, stop)
    with withheld_records():
        for worker in workers:
            worker.start()
        try:
            for passage in source:
                if passage is None:
                    break
                log_records(passage.records)
                yield passage
            for worker in workers:
                worker.join()  # each has passed on the None that ends the work
        finally:
            stop.set()
            workers[-1].join(GRACE)
            torch.set_num_threads(threads)  # also of threads that begin later


def run(
    stage: Stage, source: Iterator[Passage[Any] | None], turn: Lock, places: Places, stop: Event, short: Event
) -> None:
    """Run a stage in one of its threads: receive, work, pass on, until the source ends or ``stop`` is set."""
    torch.get_num_threads()  # the first call in a thread sets its number to that of the thread that set one last
    torch.set_num_threads(stage.threads)  # of this thread
    while not stop.is_set():
        place: Future[Passage[Any] | None] = Future()
        with turn:  # so that items get their places in the order in which they come
            passage = next(source, END)
            if passage is END:
                return
            send(places, place, stop)
        if stop.is_set():
            return
        if passage is not None and passage.error is None:
            advance(stage, passage)
            if passage.is_short:
                short.set()
        place.set_result(passage)


def advance(stage: Stage, passage: Passage[Any]) -> None:
    """Do a stage's work on an item; an unexpected exception is logged with its traceback."""
    outcome = attempt(stage.work, passage.made)
    passage.made, error = outcome.result, outcome.error
    passage.records += outcome.records
    if error is None:
        return
    passage.is_short = is_out_of_memory(error)
    if isinstance(error, MedsegError):
        passage.error = str(error)
    elif passage.is_short:
        passage.error = f"not enough memory ({first_line(error)})"
    else:
        log.error("%s: unexpected", passage.item, exc_info=error)
        passage.error = f"unexpected {type(error).__name__}: {error}"


def received(places: Places, stop: Event) -> Iterator[Passage[Any] | None]:
    """Yield what comes out of a stage, up to the None that ends it, or until ``stop`` is set."""
    place: Future[Passage[Any] | None] | None = None
    while not stop.is_set():
        try:
            place = place or places.get(timeout=PAUSE)
            passage = place.result(timeout=PAUSE)
        except (Empty, TimeoutError):
            continue
        yield passage
        if passage is None:
            return
        place = None


def send(places: Places, place: "Future[Passage[Any] | None]", stop: Event) -> None:
    """Put a place into a queue, unless ``stop`` is set."""
    while not stop.is_set():
        try:
            places.put(place, timeout=PAUSE)
            return
        except Full:
            continue
