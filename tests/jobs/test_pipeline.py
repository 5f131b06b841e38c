"""Stages in threads: order, errors, bounds, and an early end."""

import threading

import pytest
import torch

from medseg.errors import MedsegError
from medseg.jobs.pipeline import NAME, Stage, pipeline

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
    items = pipeline(range(1000), [Stage(lambda x: x, 1), Stage(lambda x: x, 1)])
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


@pytest.mark.parametrize("count", [0, 1])
def test_few_items(count):
    assert len(list(pipeline(range(count), [Stage(lambda x: x, 1)]))) == count
