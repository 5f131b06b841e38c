"""Signals that ask a process to end: Ctrl-C, SIGTERM (a scheduler's time limit, preemption), SIGUSR1 (its warning).

Each ends a job at once, by an exception. Only a training lets the first one wait until its state is saved; a further
Ctrl-C ends it at once, too. As in a shell, the exit status is 128 and the signal's number: 130, 143, 138.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


NAMES = {"SIGINT": "Ctrl-C"}
"""What people call signals that are known by another name than their own."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end; the message says so, and when that was."""

    def __init__(self, number: int, when: str = "") -> None:
        name = signal.Signals(number).name
        super().__init__(" ".join(filter(None, ["interrupted by", NAMES.get(name, name), when])))
        self.number = number


class Handler:
    """What the process does at a signal. ``received`` is the one that waits, if ``is_waited_for`` and there is one."""

    def __init__(self) -> None:
        self.is_waited_for = False
        self.received: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # Schedulers send SIGTERM beside their warning, and again: who means "at once" there sends SIGKILL
        if not self.is_waited_for or (self.received is not None and number == signal.SIGINT):
            raise Interrupted(number)
        self.received = self.received or number

    def install(self) -> None:
        """Take the signals, also from a library that has taken them meanwhile; ignored ones stay ignored."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self)


@contextmanager
def heeded() -> Iterator[None]:
    """Let each of the signals raise ``Interrupted`` in the main thread while the block runs."""
    with restored():
        Handler().install()
        yield


def ignore() -> None:
    """Let none of the signals end this process, which ends with the one that it serves."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore the signals while the block runs, and for good in the processes that it starts."""
    with restored():
        ignore()
        yield


@contextmanager
def restored() -> Iterator[None]:
    """Let the signals do again what they did when the block began."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            if signal.getsignal(number) is not former:
                signal.signal(number, signal.SIG_DFL if former is None else former)  # None is not Python's own
