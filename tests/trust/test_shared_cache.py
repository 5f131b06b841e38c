"""Many processes prepare one data set in one cache, while some are killed and another cleans it."""

import shutil
from contextlib import ExitStack

import pytest
from leftovers import leftovers
from processes import TIME_LIMIT, Kill, check_whole, run, said, started
from small_jobs import CLEAN, SMALL, content

SHORT = ("train", *SMALL, "trainer.max_epochs=1", "trainer.steps_per_epoch=1")
KILLS = (Kill("half", "*.fingerprint.pt", 2), Kill("half", "*.case.pt", 1), Kill("before", "*.case.pt", 3))


@pytest.mark.parametrize("number", [pytest.param(4, id="4"), pytest.param(20, id="20", marks=pytest.mark.trust)])
def test_processes_share_a_cache(data_alone, tmp_path, number):
    place = tmp_path / "place"
    shutil.copytree(data_alone, place)
    for index, kill in enumerate(KILLS[-number // 4 :]):
        assert run((*SHORT, f"run_dir=killed_{index}"), place, kill) == -9
    assert leftovers(place / "outputs/cache")

    with ExitStack() as stack:
        trainings = []
        for index in range(number):
            # A process that finds another's files is not killed.
            kill = KILLS[index % len(KILLS)] if index % 5 == 4 else None
            trainings.append((kill, stack.enter_context(started((*SHORT, f"run_dir=run_{index}"), place, kill))))
        cleanings = [stack.enter_context(started(CLEAN, place)) for _ in range(1 + number // 10)]
        for process in [*cleanings, *(process for _, process in trainings)]:
            process.join(TIME_LIMIT)
            assert process.exitcode is not None, f"hangs:\n{said(place)}"
        assert {process.exitcode for process in cleanings} <= {0, 3}, said(place)
        statuses = [process.exitcode for _, process in trainings]
        assert all(
            status == 0 or (kill and status == -9) for status, (kill, _) in zip(statuses, trainings, strict=True)
        )
    assert "Traceback" not in said(place), said(place)
    check_whole(place)

    assert run((*SHORT, "run_dir=alone"), place) == 0
    assert not leftovers(place / "outputs/cache")
    assert len(list((place / "outputs/cache").rglob("*.case.pt"))) == 6  # all but those of the test
    survivors = [f"run_{index}" for index, status in enumerate(statuses) if status == 0]
    assert len(survivors) >= number * 4 // 5
    for name in ("checkpoints/best.ckpt", "metrics.csv", "test/metrics.json", "test/cases.csv"):
        wanted = content(place / "alone" / name)
        assert all(content(place / run_dir / name) == wanted for run_dir in survivors), name
