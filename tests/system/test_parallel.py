"""Many items at once: in order, with what they log, and nothing left running."""

import logging
import sys
import threading
import time

import pytest
import torch

from medseg.system import cores, parallel
from medseg.system.parallel import free_memory, in_parallel, keep_to_cores, read_ahead

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


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr("medseg.system.parallel.cores", lambda: 4)


@pytest.mark.usefixtures("four_cores")
def test_an_item_that_memory_was_short_for_is_worked_on_again_by_itself(caplog):
    at_work, beside, tries = set(), [], []

    def work(number):
        at_work.add(number)
        try:
            if number == 5:
                tries.append(number)
                beside.append(at_work - {number})
                if len(tries) == 1:
                    log.warning("half done")
                    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            return number**2
        finally:
            at_work.discard(number)

    assert list(in_parallel(work, range(20))) == [number**2 for number in range(20)]
    assert len(tries) == 2
    assert beside[1] == set()
    assert caplog.messages == ["memory is short: fewer cases are worked on at once"]


@pytest.mark.usefixtures("four_cores")
def test_fewer_are_worked_on_at_once_after_memory_was_short():
    ahead, taken, failed = [], [], []

    def work(number):
        ahead.append(number - len(taken))  # how far the work is ahead of what has been taken
        if number < 3 and number not in failed:
            failed.append(number)
            raise MemoryError
        return number

    for result in in_parallel(work, range(40)):
        taken.append(result)
    assert taken == list(range(40))
    assert max(ahead[-20:]) <= 1


@pytest.mark.usefixtures("four_cores")
def test_an_item_that_is_too_large_even_alone_is_an_error_or_what_takes_its_place():
    def work(number):
        if number == 2:
            raise MemoryError("no room")
        return number

    with pytest.raises(MemoryError, match="no room"):
        list(in_parallel(work, range(5)))
    found = list(in_parallel(work, range(5), too_large=lambda number, error: f"{number}: {error}"))
    assert found == [0, 1, "2: no room", 3, 4]
    [alone] = in_parallel(work, [2], too_large=lambda number, error: str(error))
    assert alone == "no room"


def test_the_next_item_is_made_while_one_is_worked_on():
    made = threading.Semaphore(0)

    def items():
        for number in range(4):
            yield number
            made.release()  # the next is asked for

    for number in read_ahead(items()):
        assert made.acquire(timeout=300.0), number  # before this one is done


def test_an_error_of_reading_ahead_comes_in_its_turn():
    items = read_ahead(1 // (2 - number) for number in range(5))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)


@pytest.fixture
def container(monkeypatch, tmp_path):
    """``container(files)``: be in a container on 64 cores whose limits these files tell."""

    def make(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{text}\n")

    for module in (cores, parallel):
        monkeypatch.setattr(module, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda process: {*range(64)}, raising=False)
    return make


@pytest.mark.parametrize(
    ("files", "number"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "12800000 100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"cpu.max": "damaged"}, 64),
        ({}, 64),
    ],
)
def test_cores_are_those_of_the_container(container, files, number):
    container(files)
    assert cores.cores() == number


def test_pytorch_takes_no_more_threads_than_the_container_has_cores(container):
    container({"cpu.max": "200000 100000"})
    with parallel.torch_threads(5):
        keep_to_cores()
        assert torch.get_num_threads() == 2
    with parallel.torch_threads(1):
        keep_to_cores()
        assert torch.get_num_threads() == 1  # as OMP_NUM_THREADS may ask for


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there are no containers")
@pytest.mark.parametrize(
    ("folder", "limit", "used", "cached"),
    [
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_free_memory_is_that_of_the_container(container, folder, limit, used, cached):
    container({f"{folder}{limit}": 3000, f"{folder}{used}": 2000, f"{folder}memory.stat": f"{cached} 500"})
    assert free_memory() == 1500
