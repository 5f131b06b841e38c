"""Trainings and evaluations from Python: what they return, raise, show and leave behind."""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import medseg
from medseg.api.runs import shown_log
from medseg.cli.job import JOBS
from medseg.config.check import resolve
from medseg.training.module import TrainingModule


@pytest.fixture
def job(monkeypatch, tmp_path) -> ModuleType:
    """A job in the place of all, which remembers its configs; ``job.outcome`` is what it does."""
    module = ModuleType("stub")
    module.configs = []
    module.outcome = lambda config: {"status": "done", "run_dir": str(tmp_path)}
    module.run = lambda config: (module.configs.append(resolve(config)), module.outcome(config))[1]
    for name in JOBS.values():
        monkeypatch.setitem(sys.modules, f"medseg.jobs.{name}", module)
    monkeypatch.chdir(tmp_path)
    return module


def raising(error: BaseException):
    def outcome(config):
        raise error

    return outcome


def test_settings_of_a_data_set_go_along(job, tmp_path):
    data = medseg.open_dataset("phantom", tmp_path / "phantom", dims=2, cases=3, size=32)
    assert medseg.train(data, seed=4).directory == tmp_path
    own = job.configs[0]["dataset"]
    assert (own["dims"], own["cases"], own["root"], job.configs[0]["seed"]) == (2, 3, str(tmp_path / "phantom"), 4)


def test_runs_and_checkpoints_and_lists_of_them_are_evaluated(job, here):
    run = medseg.Run.open("outputs/nuclei")
    job.outcome = lambda config: {"status": "done", "run_dir": str(run.directory / "test")}
    for model in (run, "outputs/nuclei", run.best, [run, str(run.best)]):
        assert medseg.evaluate(model, subset="test", examples=0).mean == run.report.mean
    given = [config["checkpoint"] for config in job.configs]
    assert given == [["outputs/nuclei"], ["outputs/nuclei"], [str(run.best)], ["outputs/nuclei", str(run.best)]]
    with pytest.raises(medseg.MedsegError, match=r"tune: .* medseg eval"):
        medseg.evaluate(run, tune="postprocess")


def test_runs_and_reports_are_compared_as_the_command_does(here):
    run = medseg.Run.open("outputs/nuclei")
    flipped = medseg.evaluate(run, inference={"tta": True})
    compared = medseg.compare([run, flipped], metrics={"names": ["dice"]})
    stored = json.loads((compared.folder / "comparison.json").read_text())
    assert compared.ranking == stored["ranking"]["runs"]
    assert sorted(one["mean"] for one in compared.ranking) == pytest.approx(
        sorted([run.report.mean["dice"], flipped.mean["dice"]])
    )
    assert {one["metric"] for one in compared.comparisons} == {"dice"}
    assert "ranking by Dice" in str(compared)
    assert compared.page.is_file()


def test_a_sweep_without_two_reports_is_not_compared(job, tmp_path):
    job.outcome = lambda config: {"status": "done"}
    (tmp_path / "sweep").mkdir()
    with pytest.raises(medseg.MedsegError, match=r"no two reports to compare; sweep\.test=all"):
        medseg.compare(["sweep"])


@pytest.mark.parametrize(
    "error", [medseg.MedsegError("no data"), KeyboardInterrupt("interrupted"), ValueError("a bug")]
)
def test_errors_are_raised_and_nothing_is_changed(job, error, capsys):
    before = sys.argv[:], dict(os.environ), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    job.outcome = raising(error)
    with pytest.raises(type(error), match=str(error)):
        medseg.train("phantom")
    assert capsys.readouterr().err == ""
    after = sys.argv[:], dict(os.environ), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert after == before


def test_the_log_is_shown_where_nothing_else_shows_it(monkeypatch, caplog, capsys):
    caplog.set_level(logging.NOTSET, "medseg")
    log = logging.getLogger("medseg")
    with shown_log():
        log.info("the program's own handlers, as pytest's, show this")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with shown_log():
        log.info("epoch 1")
    log.info("epoch 2")
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.endswith("INFO epoch 1\n")
    assert (log.handlers, log.level) == ([], logging.NOTSET)


def test_a_training_that_is_stopped_goes_on(here, tmp_path, monkeypatch):
    """Also where it was stopped after the last step, before the last weights were validated."""
    steps = []

    def stop(module, *_):
        steps.append(1)
        if len(steps) == 3:  # in the second epoch
            signal.raise_signal(signal.SIGINT)

    data = medseg.open_dataset("phantom", dims=2, cases=10, size=64)
    small = {"trainer": {"max_epochs": 2, "steps_per_epoch": 2, "accelerator": "cpu"}, "model": {"depth": 2}}
    with monkeypatch.context() as patched:
        patched.setattr(TrainingModule, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt, match="to go on: medseg train resume="):
            medseg.train(data, run_dir=tmp_path / "run", **small)
    run = medseg.Run.open(tmp_path / "run")
    assert run.result["status"] == "interrupted"
    assert "interrupted" in repr(run)
    with pytest.raises(medseg.MedsegError, match="no report of test cases"):
        _ = run.report
    assert medseg.train(resume=run.directory) == run
    assert (run.result["status"], len(run.report.classes)) == ("done", 3)


def test_a_report_says_how_the_run_was_called(here):
    arguments = json.loads(Path("outputs/nuclei/environment.json").read_text("utf-8"))["arguments"]
    assert arguments[0] == "train"
    assert "trainer.max_epochs=1" in arguments
    assert yaml.safe_load(Path("outputs/nuclei/config.yaml").read_text("utf-8"))["command"] == "train"


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(medseg.MedsegError, match=r"no config\.yaml in it"):
        medseg.Run.open(tmp_path)
    (tmp_path / "config.yaml").write_text("command: train\n", "utf-8")
    run = medseg.Run.open(tmp_path)
    assert repr(run) == f"Run({str(tmp_path)!r}, unfinished)"
    with pytest.raises(medseg.MedsegError, match=r"no checkpoints/best\.ckpt"):
        _ = run.best


def test_a_notebook_shows_the_page_of_a_report_in_a_frame(here):
    report = medseg.Run.open("outputs/nuclei").report
    shown = report._repr_html_()
    assert shown.startswith('<iframe sandbox="allow-scripts" title="Report(')
    assert shown.count("<") == 2  # all else is escaped
    assert "&lt;h1&gt;" in shown
    assert "| edema |" in str(report)
