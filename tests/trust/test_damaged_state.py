"""Files of medseg's own that are damaged or of another kind: made again, or one message with the cure."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_run import PREDICT, TRAIN

from medseg.cli import command_line
from medseg.errors import MedsegError
from medseg.jobs.predict import manifest
from medseg.system.locks import locked

RESUME = ("train", "resume=run", "trainer.max_epochs=2")
EVAL = ("eval", "checkpoint=run", "device=cpu", "run_dir=evaluation")


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def refused(capsys, *arguments, saying):
    """Run a command line that must end with one message."""
    capsys.readouterr()
    assert command_line.main(list(arguments)) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("medseg: ") == 1
    for part in saying:
        assert part in said, said


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "another kind": lambda path: path.write_text("[1, 2]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["plan.json", "splits.json", "config.yaml", "checkpoints/last.ckpt"])
def test_a_damaged_file_of_a_run_is_named_with_the_cure(place, capsys, name, damage):
    DAMAGES[damage](place / "run" / name)
    refused(capsys, *RESUME, saying=[Path(name).name])


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "another kind"])
@pytest.mark.parametrize(
    ("name", "command"),
    [("config.yaml", EVAL), ("splits.json", EVAL), ("checkpoints/best.ckpt", EVAL), ("checkpoints/best.ckpt", PREDICT)],
)
def test_eval_and_predict_name_a_damaged_file(place, capsys, name, command, damage):
    DAMAGES[damage](place / "run" / name)
    refused(capsys, *command, saying=[Path(name).name])


def test_the_last_state_of_another_network_is_refused(place, capsys):
    assert command_line.main([*TRAIN, "model.base_channels=4", "run_dir=other"]) == 0
    shutil.copy("other/checkpoints/last.ckpt", "run/checkpoints/last.ckpt")
    refused(capsys, *RESUME, saying=["last.ckpt does not fit"])


def test_a_best_checkpoint_has_no_last_state(place, capsys):
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    torch.save({"state_dict": content["state_dict"]}, "run/checkpoints/last.ckpt")
    refused(capsys, *RESUME, saying=["not the last state"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "x"}, "format"),
        ({"format": 0}, "format"),
        ({"config": {}}, "must be a mapping"),
        ({"config": []}, "mapping"),
        ({"classes": [1]}, "classes"),
        ({"regions": "x"}, "regions"),
        ({"channels": 3}, "channels"),
    ],
)
def test_a_description_of_another_kind_is_refused(place, capsys, change, said):
    content = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    content["medseg"] |= change
    torch.save(content, "run/checkpoints/best.ckpt")
    refused(capsys, *PREDICT, saying=["best.ckpt", said])


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "another kind"])
@pytest.mark.parametrize("kind", ["case", "fingerprint"])
def test_damaged_files_of_the_cache_are_made_again(place, caplog, kind, damage):
    files = sorted((place / "outputs" / "cache").rglob(f"*.{kind}.pt"))
    before = {path: path.read_bytes() for path in files}
    assert files
    for path in files:
        DAMAGES[damage](path)
    with caplog.at_level("WARNING", logger="medseg"):
        assert command_line.main([*TRAIN, "run_dir=again"]) == 0
    said = [path.name for path in files if f"{path.name}: " in caplog.text]
    assert said
    assert "again" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING", logger="medseg"):
        assert command_line.main([*TRAIN, "run_dir=and_again"]) == 0
    assert "again" not in caplog.text
    again = {path.name: path.stat().st_size for path in files if path.name in said}
    assert again == {path.name: len(content) for path, content in before.items() if path.name in said}


def test_a_cached_case_that_vanishes_while_training_is_one_message(place, capsys, monkeypatch):
    from medseg.jobs.train import train

    preprocessed = train.preprocessed

    def and_lost(*given):
        files = preprocessed(*given)
        for path in files[0]:
            path.unlink()
        return files

    monkeypatch.setattr(train, "preprocessed", and_lost)
    refused(capsys, *TRAIN, "run_dir=other", saying=["gone or damaged", "resume=RUN"])


ROW = {"case": "case_000", "status": "done"}
RECORDS = (
    *("", "{", "[]", '{"made_of": 1, "files": [], "row": 3}', "[" * 100_000),
    *(
        json.dumps({"made_of": "", "files": {}, "row": {**ROW, **row}, **more})
        for row, more in (
            ({"uncertainty": "x"}, {}),
            ({"core_ml": [1]}, {}),
            ({"error": 3}, {}),
            ({"case": "../case_000"}, {}),
            ({}, {"messages": [{}]}),
            ({}, {"files": {"a": 1}}),
        )
    ),
)


@pytest.mark.parametrize("text", RECORDS)
def test_damaged_records_are_made_again(place, text):
    assert command_line.main(list(PREDICT)) == 0
    records = sorted(Path("masks/.medseg").rglob("*.json"))
    table = Path("masks/predictions.csv").read_text("utf-8")
    before = [path.stat().st_mtime_ns for path in records]
    [changed] = [path for path in records if '"case_000"' in path.read_text("utf-8")]
    assert manifest.read(Path("masks"), "case_000")
    changed.write_text(text)
    assert not manifest.read(Path("masks"), "case_000")
    assert command_line.main(list(PREDICT)) == 0
    again = [path.stat().st_mtime_ns for path in records]
    assert [new != old for new, old in zip(again, before, strict=True)] == [path == changed for path in records]
    assert json.loads(changed.read_text("utf-8"))["row"]["status"] == "done"
    assert len(Path("masks/predictions.csv").read_text("utf-8").splitlines()) == len(table.splitlines())


def test_worst_of_nothing_leaves_no_table_that_stops_the_next_start(place, capsys):
    Path("scans").mkdir()
    Path("scans/a.png").write_bytes(b"no picture")
    command = ("predict", "checkpoint=run", "input=scans", "output=masks", "device=cpu", "worst=1")
    for _ in range(2):
        refused(capsys, *command, saying=["no scan of 1"])
    shutil.copy(next(Path("outputs/phantom").rglob("images/*.*")), "scans")
    assert command_line.main(list(command)) == 3


def test_an_empty_table_of_an_older_version_does_no_harm(place):
    Path("masks/to_correct").mkdir(parents=True)
    Path("masks/to_correct/cases.csv").write_text("\r\n")
    assert command_line.main([*PREDICT, "worst=1"]) == 0


def test_a_stopped_evaluation_is_repeated_in_its_directory(place, monkeypatch):
    from medseg.jobs.evaluate import evaluate

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "report_on", killed)
        assert command_line.main(list(EVAL)) == 130
    Path("evaluation/result.json").unlink()  # as a kill leaves it
    assert command_line.main(list(EVAL)) == 0


def test_a_finished_evaluation_is_not_written_over(place, capsys):
    assert command_line.main(list(EVAL)) == 0
    refused(capsys, *EVAL, saying=["not empty"])


def test_a_training_with_a_checkpoint_is_not_begun_anew(place, capsys):
    Path("run/result.json").unlink()
    refused(capsys, *TRAIN, "run_dir=run", saying=["not empty", "resume=run"])


@pytest.mark.parametrize("name", ["environment.json", "training_data.json", "result.json"])
@pytest.mark.parametrize("damage", ["empty", "another kind"])
def test_a_report_goes_without_a_damaged_record_of_the_run(place, name, damage):
    DAMAGES[damage](place / "run" / name)
    assert command_line.main(list(EVAL)) == 0


HOLD = """
import sys, time
from pathlib import Path
from medseg.system.locks import locked
with locked(Path(sys.argv[1]), ""):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(folder):
    """Let another process hold the lock of a folder, and kill it at the end of the block."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder.pid
        finally:
            holder.send_signal(signal.SIGKILL)


def test_one_process_at_a_time_resumes_a_run(place, capsys):
    with held(place / "run") as process:
        refused(capsys, *RESUME, saying=["resume=run", f"process {process} on ", "minutes ago"])
    assert (place / "run" / ".lock").is_file(), "as a killed process leaves it"
    assert command_line.main(list(RESUME)) == 0
    assert not (place / "run" / ".lock").exists()


def test_a_directory_that_another_process_begins_is_not_taken(place, capsys):
    Path("other").mkdir()
    with held(place / "other") as process:
        refused(capsys, *TRAIN, "run_dir=other", saying=["run_dir=other", f"process {process} on "])


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    with (
        held(tmp_path) as process,
        pytest.raises(MedsegError, match=f"x: process {process} on "),
        locked(tmp_path, "x"),
    ):
        pass
    with locked(tmp_path, "x"):
        assert json.loads((tmp_path / ".lock").read_text("utf-8"))["process"] == os.getpid()
    assert not any(tmp_path.iterdir())


def test_a_lock_file_of_another_kind_says_less(tmp_path, monkeypatch):
    from medseg.system import locks

    (tmp_path / ".lock").write_text("[]")
    assert locks.owner(tmp_path / ".lock") == "another process"
    monkeypatch.setattr(time, "time", lambda: 1e9)
    (tmp_path / ".lock").write_text(json.dumps({"process": 7, "host": "a", "since": 1e9 - 600}))
    assert locks.owner(tmp_path / ".lock") == "process 7 on a, begun 10 minutes ago,"


def test_a_killed_data_worker_is_one_message(place, capsys, monkeypatch):
    killing = (
        "import os, signal\nclass Killing:\n    def __call__(self, sample): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    Path("killing.py").write_text(killing, "utf-8")
    monkeypatch.syspath_prepend(Path.cwd())
    settings = ("trainer.workers=1", "augment.transforms=[{_target_: killing.Killing}]", "run_dir=other")
    refused(capsys, *TRAIN, *settings, saying=["was killed", "resume=other trainer.workers=0."])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_of_the_users_that_fails_is_one_message(place, capsys, monkeypatch, workers):
    Path("failing.py").write_text('class Failing:\n    def __call__(self, sample): raise ValueError("boom")\n', "utf-8")
    monkeypatch.syspath_prepend(Path.cwd())
    settings = (f"trainer.workers={workers}", "augment.transforms=[{_target_: failing.Failing}]", "run_dir=other")
    message = "augment.transforms: failing.Failing: ValueError: boom ("
    refused(capsys, *TRAIN, *settings, saying=[message, "failing.py, line 2)"])
    reason = json.loads(Path("other/result.json").read_text("utf-8"))["reason"]
    assert reason.startswith(message)
    assert len(reason.splitlines()) == 1
    assert f"ERROR {message}" in Path("other/train.log").read_text("utf-8")
