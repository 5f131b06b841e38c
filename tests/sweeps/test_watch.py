"""What is seen of the jobs that are under way."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from medseg.sweeps import record
from medseg.sweeps.process import Job
from medseg.sweeps.watch import Watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sweep.json").write_text("{}")
    depths = {job: [f"model.depth={2 + job // 2}", f"seed={job % 2}", "trainer.max_epochs=9"] for job in range(4)}
    record.announce(tmp_path, depths)
    return tmp_path


def shown(watch: Watch, rows: int = 9, width: int = 80) -> list[str]:
    console = Console(file=StringIO(), width=width)
    console.print(watch.table(2, rows))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_line_a_job_from_its_start_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: set[str] = set()
    monkeypatch.setattr(record, "is_held", lambda run: run.name in held)
    watch = Watch()
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
    watch = Watch()
    watch.begun(Job(4, folder / "4", [], dict), "cpu")
    _, line, _ = shown(watch)
    assert len(line) <= 80
    assert "…" in line


def test_the_report_of_folds_is_shown_though_it_is_no_job_of_the_record(folder: Path) -> None:
    watch = Watch()
    watch.begun(Job(4, folder / "cross_validation", ["cross-validation report"], dict), "cpu")
    assert "cross-validation report" in shown(watch)[1]
