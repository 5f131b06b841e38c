"""What is seen of the jobs that are under way."""

import json
import logging
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from medseg.sweeps import record
from medseg.sweeps.process import Job
from medseg.sweeps.queue import Queue
from medseg.sweeps.watch import Watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sweep.json").write_text("{}")
    depths = {job: [f"model.depth={2 + job // 2}", f"seed={job % 2}", "trainer.max_epochs=9"] for job in range(4)}
    record.announce(tmp_path, depths)
    return tmp_path


def watch_of(folder: Path, *waiting: int) -> Watch:
    return Watch(folder, Queue(Job(number, folder / str(number), [], dict) for number in waiting))


def leave(folder: Path, job: int | str, **result: object) -> None:
    (folder / str(job)).mkdir()
    content = {"status": "done", "reason": "", "score": 0.71234, "seconds": 12.0, **result}
    (folder / str(job) / "result.json").write_text(json.dumps(content))


def shown(watch: Watch, rows: int = 9, width: int = 80) -> list[str]:
    console = Console(file=StringIO(), width=width)
    console.print(watch.table(2, rows))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_line_a_job_from_its_start_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: set[str] = set()
    monkeypatch.setattr(record, "is_held", lambda run: run.name in held)
    watch = watch_of(folder)
    for job in (0, 1):
        (folder / str(job)).mkdir()
        watch.begun(Job(job, folder / str(job), [], dict), f"cuda:{job}")
    held |= {"0", "1"}
    progress = {
        "state": "training",
        "epoch": 12,
        "epochs": 100,
        "score": 0.71239,
        "seconds_left": 8000.7,
        "device": "cpu",
    }
    (folder / "1" / "progress.json").write_text(json.dumps(progress))
    # jobs are told apart by what differs in the sweep, not among those that run
    assert shown(watch) == [
        "job overrides                           state       epoch    val    left device",
        "  0 model.depth=2 seed=0                running                          cuda:0",
        "  1 model.depth=2 seed=1                training   12/100 0.7124 2:13:20 cuda:1",
        "2 under way, 2 waiting, 0 ended",
    ]
    assert len(shown(watch, rows=1)) == 3
    held.remove("1")
    assert [line.split()[3] for line in shown(watch)[1:3]] == ["running", "ending"]
    watch.begun(Job(1, folder / "1", [], dict), "cuda:1")  # again, for its test
    assert [line.split()[3] for line in shown(watch)[1:3]] == ["running", "starting"]


def test_long_names_are_cut_to_a_line(folder: Path) -> None:
    record.announce(folder, {4: [f"augmentation.some_long_key_{n}={n}" for n in range(9)]})
    watch = watch_of(folder)
    watch.begun(Job(4, folder / "4", [], dict), "cpu")
    _, line, _ = shown(watch)
    assert len(line) <= 80
    assert "…" in line


def test_the_report_of_folds_is_shown_though_it_is_no_job_of_the_record(folder: Path) -> None:
    watch = watch_of(folder)
    watch.begun(Job(4, folder / "cross_validation", ["cross-validation report"], dict, "report"), "cpu")
    assert shown(watch)[1].split() == ["cross-validation", "report", "starting", "cpu"]


def test_jobs_that_ended_before_are_counted_and_no_job_twice(folder: Path) -> None:
    leave(folder, 0)
    leave(folder, 1, status="failed", reason="too deep")
    leave(folder, 2, status="interrupted", reason="interrupted by Ctrl-C")
    watch = watch_of(folder, 1, 2, 3)  # of a sweep that is resumed
    assert shown(watch)[-1] == "0 under way, 2 waiting, 1 ended"
    watch = watch_of(folder, 0)  # the winner's test, after jobs of which one has failed
    watch.begun(Job(0, folder / "0", [], dict, "test"), "cpu")
    assert shown(watch)[-1] == "1 under way, 2 waiting, 1 ended"
    watch.ended(Job(0, folder / "0", [], dict, "test"))
    assert shown(watch)[-1] == "0 under way, 2 waiting, 2 ended"
    watch = watch_of(folder, 4)
    watch.begun(Job(4, folder / "cross_validation", ["cross-validation report"], dict, "report"), "cpu")
    assert shown(watch)[-1] == "1 under way, 2 waiting, 2 ended"


def test_a_test_and_a_report_are_called_what_they_are(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "medseg")
    leave(folder, 0, test_score=0.65)
    leave(folder, 1, status="failed", reason="no test part")
    leave(folder, 2, status="interrupted", reason="interrupted by Ctrl-C after step 3", score=None)
    leave(folder, "cross_validation", seconds=None, test_score=0.75)
    report = Job(4, folder / "cross_validation", ["cross-validation report"], dict, "report")
    for job in (
        Job(0, folder / "0", ["a=1"], dict),
        *(Job(n, folder / str(n), [], dict, "test") for n in (0, 1)),
        report,
        Job(2, folder / "2", ["a=1"], dict),
    ):
        watch = watch_of(folder)
        watch.begun(job, "cpu")
        watch.ended(job)
    assert caplog.messages == [
        "job 0 begins on cpu: model.depth=2 seed=0",
        "job 0: done, score 0.7123, 12 s",
        "job 0 is tested on cpu",
        "job 0: tested, Dice 0.6500",
        "job 1 is tested on cpu",
        "job 1: not tested (no test part)",
        "cross-validation report begins on cpu",
        "cross-validation report: Dice 0.7123, test of the ensemble: Dice 0.7500",
        "job 2 begins on cpu: model.depth=3 seed=0",
        "job 2: interrupted, 12 s",  # why is said below the table
    ]
