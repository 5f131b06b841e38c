"""What signals do to this very process."""

import signal
import threading

import pytest

from medseg.system.running import signals
from medseg.system.running.signals import SIGNALS, Handler, Interrupted, heeded, ignored


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_an_exception_that_says_which(number):
    before, name = handlers(), {signal.SIGINT: "Ctrl-C"}.get(number, number.name)
    with pytest.raises(KeyboardInterrupt, match=f"^interrupted by {name}$") as stop, heeded():
        signal.raise_signal(number)
    assert stop.value.number == number
    assert handlers() == before


def test_the_first_signal_that_is_waited_for_is_noted_and_a_further_ctrl_c_raised():
    handler = Handler()
    with signals.restored():
        handler.install()
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        handler.is_waited_for = True
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert handler.received == signal.SIGUSR1
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_what_is_ignored_stays_ignored():
    with ignored():
        with heeded():
            for number in SIGNALS:
                signal.raise_signal(number)
        assert handlers() == [signal.SIG_IGN] * len(SIGNALS)


def test_in_another_thread_nothing_is_taken():
    before, seen = handlers(), []

    def work():
        with heeded():
            seen.append(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
