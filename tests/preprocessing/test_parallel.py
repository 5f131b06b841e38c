"""Many items at once: in order, with what they log, and nothing left running."""

import logging
import threading
import time

import pytest
import torch

from medseg.preprocessing.parallel import in_parallel

log = logging.getLogger("medseg.test")


def test_results_and_messages_come_in_the_order_of_the_items(caplog):
    def work(number):
        time.sleep(0.002 * (number % 3))
        log.warning("item %d", number)
        return number**2

    results = []
    for result in in_parallel(work, range(20)):
        results.append(result)
        assert len(caplog.messages) == len(results)
    assert results == [number**2 for number in range(20)]
    assert caplog.messages == [f"item {number}" for number in range(20)]


def test_the_first_error_in_order_is_raised_and_threads_end():
    before, threads = set(threading.enumerate()), torch.get_num_threads()

    def work(number):
        if number in (3, 5):
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="3"):
        list(in_parallel(work, range(10)))
    assert set(threading.enumerate()) <= before
    assert torch.get_num_threads() == threads


def test_ended_early_nothing_new_is_begun_and_threads_end():
    before, begun = set(threading.enumerate()), []

    def work(number):
        begun.append(number)
        time.sleep(0.002)
        return number

    results = in_parallel(work, range(1000))
    next(results)
    results.close()
    assert set(threading.enumerate()) <= before
    assert len(begun) < 500


def test_no_items_give_no_results():
    assert list(in_parallel(str, [])) == []


def test_large_items_are_worked_on_one_at_a_time():
    busy, most = [], []

    def work(number):
        busy.append(number)
        most.append(len(busy))
        time.sleep(0.002)
        busy.remove(number)

    list(in_parallel(work, range(6), bytes_each=1e18))
    assert max(most) == 1
