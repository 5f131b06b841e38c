"""What is printed of a sweep at its end and at any time."""

import json
from pathlib import Path
from typing import Any

import pytest

from medseg.cli import command_line
from medseg.errors import MedsegError
from medseg.sweeps import record
from medseg.sweeps.report import summary
from medseg.sweeps.report.summary import show_sweep


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_the_best_stands_below_the_table_with_the_command_to_use_it(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_sweep(grid)
    lines = lines_of(capsys)
    assert lines[0] == "mean Dice over 2 validation cases of x; higher is better"
    assert lines[4] == "   3  optimizer.lr=0.001 model.depth=3  0.9000  0.8500  done         13"
    best = lines.index(f"best: job 3, checkpoint={grid / '3'}")
    assert lines[best + 1 : best + 3] == [
        "      optimizer.lr=0.001 model.depth=3",
        f"      medseg predict checkpoint={grid / '3'} input=… output=…",
    ]
    assert "job 4: killed by <SIGKILL>" in lines
    assert "not begun: job 5" in lines
    assert f"the sweep has not ended: resume={grid} goes on with it" in lines


def test_names_stay_whole_on_80_columns(sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    word = "augmentation.spatial.rotation_degrees=[0,3{}]"
    folder = sweep({f"{word.format(n)} model.base_channels=3{n} optimizer.weight_decay={n}e-05": 0.5 for n in range(3)})
    result = json.loads((folder / "1" / "result.json").read_text())
    (folder / "1" / "result.json").write_text(json.dumps({**result, "status": "pruned", "test_score": 0.5}))
    show_sweep(folder)
    lines = lines_of(capsys)
    assert all(len(line) <= 80 for line in lines if str(folder) not in line)
    assert sum(word.format(n) in " ".join(lines) for n in range(3)) == 3
    [pruned] = [line for line in lines if line.endswith("pruned")]
    assert pruned.split()[0] == "1"


def test_an_interrupted_job_shows_its_best_score_so_far_and_is_not_ranked(
    sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sweep({"model.depth=2": 0.9, "model.depth=3": 0.8, "model.depth=4": 0.7})
    result = json.loads((folder / "0" / "result.json").read_text())
    (folder / "0" / "result.json").write_text(json.dumps({**result, "status": "interrupted", "is_trained": False}))
    show_sweep(folder)
    lines = lines_of(capsys)
    jobs = [line.split() for line in lines if line.endswith((" 10", " 11", " 12"))]
    assert [job[0] for job in jobs] == ["1", "2", "0"]
    assert jobs[-1][2:4] == ["0.9000", "interrupted"]
    assert f"best: job 1, checkpoint={folder / '1'}" in lines


def test_a_job_that_is_done_again_is_under_way_and_has_not_failed(
    grid: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (grid / "4" / "progress.json").write_text('{"state": "training", "epoch": 2, "epochs": 9}')
    monkeypatch.setattr(record, "is_held", lambda folder: folder.name in "34")  # 3 is being tested
    show_sweep(grid)
    lines = lines_of(capsys)
    [job] = [line.split() for line in lines if line.startswith("  4 ")]
    assert job == ["4", "optimizer.lr=1", "model.depth=2", "training", "2/9"]
    assert f"best: job 3, checkpoint={grid / '3'}" in lines
    assert not any("killed by" in line for line in lines)
    page = (grid / "sweep.html").read_text()
    assert "1 training" in page
    assert "failed" not in page


def test_pre_trained_weights_begin_a_training(sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sweep({"model.depth=2": -0.9, "model.depth=3": -0.8}, metric="loss")
    show_sweep(folder)
    assert f"      medseg train finetune.checkpoint={folder / '1'} dataset=…" in lines_of(capsys)
    assert "Validation loss by epoch" in (folder / "sweep.html").read_text()


def test_compare_shows_a_sweep_that_goes_on_and_leaves_its_record(
    grid: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(grid.parent)
    before = (grid / "sweep.json").read_bytes()
    (grid / "5").mkdir()
    progress = {"state": "training", "epoch": 2, "epochs": 9, "score": 0.31234, "seconds_left": 3725, "device": "cpu"}
    (grid / "5" / "progress.json").write_text(json.dumps(progress))
    monkeypatch.setattr(record, "is_held", lambda folder: folder.name == "5")  # by processes
    monkeypatch.setattr(summary, "is_held", lambda folder: folder.name == "sweep")
    assert command_line.main(["compare", "runs=sweep"]) == 0
    lines = lines_of(capsys)
    [state] = [line for line in lines if line.startswith("  5 ")]
    assert state.split() == ["5", "optimizer.lr=1", "model.depth=3", "training", "2/9", "0.3123", "1:02:05", "cpu"]
    assert "      medseg predict checkpoint=sweep/3 input=… output=…" in lines
    assert not any("has not ended" in line for line in lines)
    assert (grid / "sweep.json").read_bytes() == before
    assert (grid / "sweep.html").is_file()
    assert not Path("outputs").exists()


@pytest.mark.parametrize("content", [{"jobs": 3}, {"jobs": {"x": []}}, {"jobs": {"0": 1}}])
def test_a_damaged_record_is_a_worded_error(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(MedsegError, match=r"sweep\.json"):
        show_sweep(tmp_path)


def test_files_of_jobs_may_be_half_written(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (grid / "5").mkdir()
    (grid / "5" / "progress.json").write_text('{"state": "training", "score": "x", "seconds_left": []}')
    (grid / "0" / "metrics.csv").write_text("epoch,val_dice\n1,0.5\n2,0.\n3,x")
    (grid / "3" / "test" / "metrics.json").write_text('{"mean_ci95": ["a", null]}')
    monkeypatch.setattr(record, "is_held", lambda folder: folder.name == "5")
    show_sweep(grid)
    assert (grid / "sweep.html").is_file()
