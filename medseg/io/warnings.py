"""Warnings about the files of a case: logged, and kept with what is cached of the case, so that every run logs them."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import local

log = logging.getLogger(__name__)

COLLECTING = local()
"""Of each thread the list ``messages`` that warnings go into, where there is one."""

LOGGED: set[str] = set()
"""What this job has logged, so that a case that is read again, to draw or preprocess it, is not warned of again."""


def begin_job() -> None:
    """Forget what an earlier job of this process has logged, as in a sweep: each job's log is whole."""
    LOGGED.clear()


def warn(message: str) -> None:
    """Warn of something in a case's files: into the list of ``collected``, else into the log, there only once."""
    messages = getattr(COLLECTING, "messages", None)
    if messages is None:
        log_all([message] if message not in LOGGED else [])
    elif message not in messages:
        messages.append(message)


def log_all(messages: Iterable[str]) -> None:
    """Log warnings, also those that have been logged before."""
    for message in messages:
        LOGGED.add(message)
        log.warning("%s", message)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Yield a list that gets what this thread warns of while the block runs; nothing of it is logged."""
    around = getattr(COLLECTING, "messages", None)
    COLLECTING.messages = messages = list[str]()
    try:
        yield messages
    finally:
        COLLECTING.messages = around


@contextmanager
def logged() -> Iterator[list[str]]:
    """Log what the block warns of when it ends, also if it has been logged before; yield the list of it.

    Within ``collected``, or another such block, it is passed on to that.
    """
    messages: list[str] = []
    try:
        with collected() as messages:
            yield messages
    finally:
        around = getattr(COLLECTING, "messages", None)
        if around is None:
            log_all(messages)
        else:
            around.extend(messages)
