"""Stages of work that overlap, each in a thread of its own, with little waiting between them."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, Generic, TypeVar

import torch

from medseg.errors import MedsegError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
NAME = "medseg-stage"
"""Name of the threads. They are daemons: a program that must end at once leaves them behind."""

GRACE = 1.0
"""Seconds that the last stage, which writes, is given to end what it is at."""

PAUSE = 0.1
"""Seconds after which a thread that waits looks whether it is still wanted."""


@dataclass(frozen=True)
class Stage:
    """One step of the work, and the number of threads that PyTorch may compute it with."""

    work: Callable[[Any], Any]
    threads: int


@dataclass
class Passage(Generic[Item]):
    """An item on its way: what the stages have made of it so far, or why it cannot go on."""

    item: Item
    made: Any
    error: str | None = None


def pipeline(items: Iterable[Item], stages: Sequence[Stage]) -> Iterator[Passage[Item]]:
    """Yield each item with what the last stage made of it, in order; an error of one item stops no other.

    Each stage takes what the one before it returned. At most one result waits between two stages. Who stops asking,
    by Ctrl-C or an error, ends the threads as soon as what they are at is done, and waits a moment for the last one.
    """
    given, stop = iter(items), Event()
    queues: list[Queue[Passage[Item] | None]] = [Queue(1) for _ in stages]

    def first() -> Iterator[Passage[Item] | None]:
        yield from (Passage(item, item) for item in given)
        yield None

    threads = torch.get_num_threads()
    sources = [first(), *(taken(queue, stop) for queue in queues[:-1])]
    workers = [
        Thread(target=run, args=(stage, source, queue, stop), name=NAME, daemon=True)
        for stage, source, queue in zip(stages, sources, queues, strict=True)
    ]
    for worker in workers:
        worker.start()
    try:
        while (passage := queues[-1].get()) is not None:
            yield passage
        for worker in workers:
            worker.join()  # they have handed on that nothing comes any more
    finally:
        stop.set()
        workers[-1].join(GRACE)
        torch.set_num_threads(threads)  # also of threads that begin later


def run(stage: Stage, source: Iterator[Passage[Any] | None], queue: "Queue[Passage[Any] | None]", stop: Event) -> None:
    """Be a stage: take, work, hand on."""
    torch.get_num_threads()  # a thread's first question sets its number to the last that any thread was given
    torch.set_num_threads(stage.threads)  # of this thread
    for passage in source:
        if passage is not None and passage.error is None:
            advance(stage, passage)
        put(queue, passage, stop)
        if stop.is_set() or passage is None:
            return


def advance(stage: Stage, passage: Passage[Any]) -> None:
    """Do a stage's work on an item; an exception that is not the user's to mend is logged with its traceback."""
    try:
        passage.made = stage.work(passage.made)
    except MedsegError as error:
        passage.made, passage.error = None, str(error)
    except Exception as error:
        log.exception("%s: unexpected", passage.item)
        passage.made, passage.error = None, f"unexpected {type(error).__name__}: {error}"


def taken(queue: "Queue[Passage[Any] | None]", stop: Event) -> Iterator[Passage[Any] | None]:
    """Yield what comes until nothing is wanted any more."""
    while not stop.is_set():
        try:
            yield queue.get(timeout=PAUSE)
        except Empty:
            continue


def put(queue: "Queue[Passage[Any] | None]", passage: Passage[Any] | None, stop: Event) -> None:
    """Hand on, unless nothing is wanted any more."""
    while not stop.is_set():
        try:
            queue.put(passage, timeout=PAUSE)
            return
        except Full:
            continue
