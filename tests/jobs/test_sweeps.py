"""Sweeps of real trainings: what is tested, what ``checkpoint=SWEEP`` means, and how folds are evaluated."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from test_command_line import CONFIG, NETWORK

from medseg.cli import command_line
from medseg.errors import MedsegError
from medseg.inference.loading import files_of
from medseg.sweeps import rankings, record


@pytest.fixture(scope="module")
def place(workplace, tmp_path_factory):
    """A folder with two sweeps: over the folds of a cross-validation, and over the width of a network of one's own."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "mine" / "model").mkdir(parents=True)
    (folder / "mine" / "tiny_network.py").write_text(NETWORK)
    (folder / "mine" / "model" / "tiny.yaml").write_text(CONFIG)
    data = [f"dataset.root={workplace / 'phantom'}", "dataset.dims=2", "dataset.cases=10", "dataset.size=64"]
    short = ["trainer.max_time=null", "trainer.max_epochs=1", "trainer.steps_per_epoch=2", "trainer.accelerator=cpu"]
    line = ["train", "-m", "--config-dir", "mine", "model=tiny", *data, *short, "plan.batch_size=2", "logger=none"]
    line += [f"cache_dir={workplace / 'cache'}", "metrics.names=[dice]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        assert command_line.main([*line, "run_dir=folds", "split.folds=2", "split.fold=0,1", "sweep.test=none"]) == 0
        assert command_line.main([*line, "run_dir=widths", "hydra/launcher=basic", "model.width=3,4"]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_place(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))


def read(path):
    return json.loads(Path(path).read_text())


def test_the_best_alone_is_tested_whatever_the_network(place):
    record = read("widths/sweep.json")
    [best] = record["best"]
    assert [Path(f"widths/{job}/test/metrics.json").is_file() for job in range(2)] == [job == best for job in range(2)]
    results = [read(f"widths/{job}/result.json") for job in range(2)]
    assert [result["test_score"] is not None for result in results] == [job == best for job in range(2)]
    [ranking] = record["rankings"]
    assert ranking["title"] == "mean Dice over 2 validation cases of phantom; higher is better"
    assert len(ranking["jobs"]) == 2
    assert "no test report: it is not for each job of a sweep" in Path(f"widths/{best}/train.log").read_text()


def test_a_job_can_be_tested_by_hand(place, tmp_path):
    shutil.copytree("widths", tmp_path / "widths")
    other = next(job for job in range(2) if job not in read("widths/sweep.json")["best"])
    line = ["train", f"resume={tmp_path / 'widths' / str(other)}", "sweep.test=all", "--config-dir", "mine"]
    assert command_line.main(line) == 0
    tested = read(tmp_path / "widths" / str(other) / "result.json")["test_score"]
    assert tested is not None
    record = read(tmp_path / "widths" / "sweep.json")
    assert {job["job"]: job["test_score"] for job in record["rankings"][0]["jobs"]}[other] == tested
    assert record["has_ended"]


def test_the_folder_of_folds_is_their_ensemble(place):
    assert not list(Path("folds").glob("*/test"))
    assert read("folds/sweep.json")["ensemble"] == [0, 1]
    assert files_of(Path("folds")) == [Path(f"folds/{job}/checkpoints/best.ckpt") for job in (0, 1)]
    assert (
        command_line.main(
            ["eval", "checkpoint=folds", "trust=[tiny_network.Tiny]", "--config-dir", "mine", "run_dir=e"]
        )
        == 0
    )
    assert read("e/metrics.json")["n_cases"] == 2  # the test part, which no fold has
    assert read("e/metrics.json")["notes"] == []
    assert (read("e/result.json")["score"], read("e/result.json")["test_score"] is None) == (None, False)


def test_folds_are_validated_out_of_fold(place, caplog):
    line = ["eval", "checkpoint=folds", "subset=val", "examples=0", "--config-dir", "mine", "run_dir=oof"]
    caplog.set_level("INFO", "medseg")
    assert command_line.main(line) == 0
    assert [record.levelname for record in caplog.records if "out of fold" in record.message] == ["INFO"]
    splits = [read(f"folds/{job}/splits.json") for job in (0, 1)]
    rows = Path("oof/cases.csv").read_text().splitlines()[1:]
    assert sorted({row.split(",")[0] for row in rows}) == sorted(splits[0]["val"] + splits[1]["val"])


def test_of_another_sweep_the_job_has_to_be_said(place):
    [best] = read("widths/sweep.json")["best"]
    with pytest.raises(
        MedsegError, match=rf"as in checkpoint=widths/{best},(?s:.)*mean Dice over 2 validation cases"
    ) as told:
        files_of(Path("widths"))
    assert all(f"widths/{job}: " in str(told.value) for job in range(2))
    assert str(told.value).count(" done, model.width=") == 2


def write_job(folder, status, val, reason=""):
    """What a job of a cross-validation of four cases leaves."""
    folder.mkdir(parents=True)
    if status == "killed":
        return
    names = ["a", "b", "c", "d"]
    split = {"train": [name for name in names if name not in val], "val": val, "test": []}
    (folder / "splits.json").write_text(
        json.dumps({"format": 1, **split, "hashes": {name: f"#{name}" for name in names}})
    )
    score = 0.5 if status == "done" else None
    record.record(folder, {"status": status, "score": score, "reason": reason}, [f"split.fold={folder.name}"])


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (("failed", ["c", "d"], "too large"), r"sweep/1: failed \(too large\), split.fold=1"),
        (("killed", []), "sweep/1: not done: killed, or under way"),
        (("done", ["c"]), r"sweep/1: 0.5000 done, split.fold=1"),
    ],
)
def test_folds_that_are_missing_are_named(tmp_path, last, said):
    folder = tmp_path / "sweep"
    write_job(folder / "0", "done", ["a", "b"])
    write_job(folder / "1", *last)
    record.write_record(folder)
    with pytest.raises(MedsegError, match=rf"(?s)not the complete folds.*{said}") as told:
        files_of(folder)
    assert "the sweep has not ended" in str(told.value)


def test_data_sets_share_no_order(tmp_path):
    what = {"metric": "dice", "n_cases": 2, "cases": "#"}
    jobs = [
        {"job": job, "score": job / 10, "overrides": [f"dataset.name={name}"], "validated": {"dataset": name, **what}}
        for job, name in enumerate(["x", "y", "x"])
    ]
    failed = {"job": 3, "score": None, "overrides": [], "validated": None}
    ranked = rankings.rankings([*jobs, failed])
    assert [[job["job"] for job in ranking.jobs] for ranking in ranked] == [[2, 0], [1], [3]]
    assert [[job["job"] for job in ranking.best] for ranking in ranked] == [[2], [1], []]
    assert "in the order of the jobs" in ranked[2].title


@pytest.mark.parametrize("content", [{"ensemble": ["x"]}, {"rankings": [{}]}, {"rankings": 3}, [], {"best": {"a": 1}}])
def test_records_of_sweeps_may_be_damaged(tmp_path, content):
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(MedsegError, match=r"sweep.json"):
        files_of(tmp_path)


def test_a_sweep_of_an_earlier_version_is_a_folder_of_runs(tmp_path):
    (tmp_path / "sweep.json").write_text('{"settings": ["seed=0,1"]}')
    for job in ("0", "1"):
        (tmp_path / job / "checkpoints").mkdir(parents=True)
        (tmp_path / job / "checkpoints" / "best.ckpt").touch()
    assert files_of(tmp_path) == [tmp_path / job / "checkpoints" / "best.ckpt" for job in ("0", "1")]
