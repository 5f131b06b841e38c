"""Stages in threads: order, errors, bounds, and an early end."""

import logging
import threading

import pytest
import torch

from medseg.errors import MedsegError
from medseg.jobs.predict.pipeline import NAME, Stage, pipeline

log = logging.getLogger(__name__)

HANGS = 300.0
"""Seconds after which a test is taken to hang; nothing that works waits so long, however busy the machine is."""


def at_work():
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_items_come_in_order_through_every_stage():
    stages = [Stage(lambda x: x + 1, 1), Stage(lambda x: x * 10, 1), Stage(str, 1)]
    assert [(p.item, p.made) for p in pipeline(range(50), stages)] == [(n, str((n + 1) * 10)) for n in range(50)]


def test_a_bad_item_stops_no_other_and_reaches_no_later_stage(caplog):
    def first(x):
        if x == 3:
            raise MedsegError("three is bad")
        if x == 5:
            raise ZeroDivisionError("a bug")
        return x

    reached = []
    found = list(pipeline(range(8), [Stage(first, 1), Stage(lambda x: reached.append(x) or x, 1)]))
    assert [p.error for p in found if p.error] == ["three is bad", "unexpected ZeroDivisionError: a bug"]
    assert reached == [0, 1, 2, 4, 6, 7]
    assert "Traceback" in caplog.text  # of the bug alone
    assert "three" not in caplog.text


def test_stages_overlap():
    both_at_work = threading.Barrier(2, timeout=HANGS)

    def first(x):
        if x == 1:
            both_at_work.wait()
        return x

    def second(x):
        if x == 0:
            both_at_work.wait()
        return x

    assert [p.made for p in pipeline(range(3), [Stage(first, 1), Stage(second, 1)])] == [0, 1, 2]


def test_little_waits_between_stages():
    begun, ended = [], []
    stages = [Stage(lambda x: begun.append(x) or x, 1), Stage(lambda x: ended.append(x) or x, 1)]
    for _ in pipeline(range(200), stages):
        assert len(begun) - len(ended) <= 4  # one at each stage, one between, one taken by this loop
    assert len(ended) == 200


def test_an_early_end_leaves_no_thread_behind():
    items = pipeline(range(1000), [Stage(lambda x: x, 1, at_once=3), Stage(lambda x: x, 1)])
    assert next(items).made == 0
    items.close()
    for thread in at_work():
        thread.join(HANGS)
    assert not at_work()


def computing_threads(_):
    """How many threads an operation is given, after one has been done."""
    torch.ones(1 << 20).exp()
    return torch.get_num_threads()


def test_each_stage_has_its_number_of_threads():
    before = torch.get_num_threads()
    stages = [Stage(lambda x: [computing_threads(x)], n) for n in (1, 2, 1)]
    stages[1:] = [Stage(lambda x: [*x, computing_threads(x)], stage.threads) for stage in stages[1:]]
    assert [p.made for p in pipeline(range(5), stages)] == [[1, 2, 1]] * 5
    assert torch.get_num_threads() == before


def test_several_at_once_keep_the_order_of_items_and_of_what_is_logged(caplog):
    """Three read at once, since none goes on before the others have begun; the first of them ends last."""
    all_at_work, others_done = threading.Barrier(3, timeout=HANGS), threading.Semaphore(0)

    def read(x):
        all_at_work.wait()
        if x % 3:
            others_done.release()
        else:
            assert others_done.acquire(timeout=HANGS)
            assert others_done.acquire(timeout=HANGS)
        log.warning("read %d", x)
        return x * 10

    stages = [Stage(read, 1, at_once=3), Stage(lambda x: x + 1, 1)]
    assert [(p.item, p.made) for p in pipeline(range(30), stages)] == [(n, n * 10 + 1) for n in range(30)]
    assert caplog.messages == [f"read {n}" for n in range(30)]


def test_no_more_wait_than_a_stage_makes_at_once_and_one():
    begun, ended, most = [], [], 0
    stages = [Stage(lambda x: begun.append(x) or x, 1, at_once=3), Stage(lambda x: ended.append(x) or x, 1)]
    for _ in pipeline(range(200), stages):
        most = max(most, len(begun) - len(ended))
    assert ended == list(range(200))
    assert most <= 3 + 1 + 2


@pytest.mark.parametrize("at_once", [1, 4])
def test_memory_that_is_short_for_one_of_several_at_once(at_once):
    memory = Memory(large=3, tries_that_fail=1, at_stage=1)
    stages = [Stage(memory.first, 1, at_once), Stage(memory.second, 1)]
    assert [(p.item, p.made) for p in pipeline(range(12), stages)] == [(n, n * 10) for n in range(12)]
    assert memory.beside[1] == set()


@pytest.mark.parametrize("count", [0, 1])
def test_few_items(count):
    assert len(list(pipeline(range(count), [Stage(lambda x: x, 1)]))) == count


class Memory:
    """Items that are on their way through two stages, and what happens to one that needs the memory for itself."""

    def __init__(self, large, tries_that_fail, at_stage=2):
        self.large, self.tries_that_fail, self.at_stage = large, tries_that_fail, at_stage
        self.on_their_way, self.beside, self.tries = set(), [], 0

    @property
    def stages(self):
        return [Stage(self.first, 1), Stage(self.second, 1)]

    def first(self, item):
        self.on_their_way.add(item)
        return self.work(item, 1)

    def second(self, item):
        made = self.work(item, 2)
        self.on_their_way.discard(item)
        return made * 10

    def work(self, item, stage):
        if item == self.large and stage == self.at_stage:
            self.tries += 1
            self.beside.append(self.on_their_way - {item})
            if self.tries <= self.tries_that_fail:
                self.on_their_way.discard(item)
                raise MemoryError("no room")
        return item


@pytest.mark.parametrize("at_stage", [1, 2])
def test_an_item_that_memory_was_short_for_is_worked_on_again_by_itself_and_in_order(at_stage):
    memory = Memory(large=3, tries_that_fail=1, at_stage=at_stage)
    assert [(p.item, p.made) for p in pipeline(range(12), memory.stages)] == [(n, n * 10) for n in range(12)]
    assert memory.tries == 2
    assert memory.beside[1] == set()


def test_an_item_that_is_too_large_even_alone_fails_alone(caplog):
    memory = Memory(large=3, tries_that_fail=100)
    found = list(pipeline(range(7), memory.stages))
    assert [(p.item, p.made) for p in found if p.error is None] == [(n, n * 10) for n in range(7) if n != 3]
    assert found[3].error == "not enough memory (no room)"
    assert memory.tries == 2
    assert "Traceback" not in caplog.text


def test_where_no_two_items_fit_all_are_done_one_at_a_time():
    on_their_way, tries = set(), []

    def first(item):
        tries.append(item)
        if on_their_way:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        on_their_way.add(item)
        return item

    def second(item):
        on_their_way.discard(item)
        return item

    found = list(pipeline(range(30), [Stage(first, 1), Stage(second, 1)]))
    assert [p.made for p in found] == list(range(30))
    assert [tries.count(item) for item in range(15, 30)] == [1] * 15
