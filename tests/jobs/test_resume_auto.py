"""``resume=auto``: begin a run in its directory, or go on with what is there, by one and the same line."""

import json
import shutil
import signal

import pytest
import yaml

from medseg.cli import command_line
from medseg.jobs.rundir import found_in
from medseg.system.running.progress_file import NAME, ProgressFile
from medseg.training.segmentation import SegmentationModule

LINE = [
    *("train", "resume=auto", "run_dir=run", "cache_dir=cache", "loss=ce", "experiment=few_shot", "seed=3"),
    *("dataset=phantom", "dataset.dims=2", "dataset.cases=10", "dataset.size=48", "dataset.root=phantom"),
    *("trainer.max_time=null", "trainer.max_epochs=2", "trainer.steps_per_epoch=2", "trainer.accelerator=cpu"),
    *("model=unet", "model.base_channels=4", "model.depth=2", "plan.batch_size=2", "plan.patch_size=[32,32]"),
    *("+optimizer.amsgrad=true", "logger=none"),
]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder in which the line was given once, and ended by a signal in the second epoch."""
    folder = tmp_path_factory.mktemp("auto")
    step = SegmentationModule.training_step

    def stopping(self, batch, batch_idx):
        if self.global_step == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(SegmentationModule, "training_step", stopping)
        assert command_line.main(LINE) == 143
    return folder


@pytest.fixture
def stopped(first, tmp_path, monkeypatch):
    """A copy of that run, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def result_of(run):
    return json.loads((run / "result.json").read_text())


def test_the_line_begins_a_run_then_goes_on_with_it_then_says_that_it_has_ended(stopped, capsys):
    assert found_in(stopped, "train") == "resumable"
    assert not (stopped / NAME).exists()
    assert command_line.main(LINE) == 0
    assert result_of(stopped)["status"] == "done"
    assert "the run goes on after epoch 1, step 3" in (stopped / "train.log").read_text()
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    assert command_line.main(LINE) == 0
    assert "the run in run has ended" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == before
    result = result_of(stopped)
    (stopped / "result.json").write_text(json.dumps(result | {"status": "failed", "test_score": None}))
    assert command_line.main(LINE) == 0  # the test that is missing
    assert result_of(stopped)["test_score"] == result["test_score"]
    assert command_line.main([*LINE, "trainer.max_epochs=3"]) == 0
    assert yaml.safe_load((stopped / "config.yaml").read_text())["trainer"]["max_epochs"] == 3
    assert (stopped / "metrics.csv").read_text().count("\n") == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.depth": "3"}, "model.depth cannot change"),
        ({"seed": "4", "model.depth": "3"}, "model.depth, seed cannot change"),
        ({"loss": "dice"}, "the run's own loss"),
        ({"model": "segresnet", "model.base_channels": None, "model.depth": None}, "the run's own model"),
        ({"experiment": "nnunet", "loss": None}, "the run's own experiment"),
    ],
)
def test_what_cannot_change_is_refused_by_name(stopped, changes, says, capsys):
    line = [item for item in LINE if item.partition("=")[0] not in changes]
    line += [f"{key}={value}" for key, value in changes.items() if value]
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert command_line.main(line) == 1
    assert says in capsys.readouterr().err
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_a_run_that_was_killed_before_its_first_state_begins_again(stopped):
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "result.json").unlink()
    ProgressFile(stopped).tell("training", epoch=1)
    assert found_in(stopped, "train") == "begun"
    assert command_line.main(LINE) == 0
    assert result_of(stopped)["status"] == "done"
    assert not (stopped / NAME).exists()


def test_what_else_may_be_in_a_directory(stopped, tmp_path):
    assert found_in(tmp_path / "new", "train") == "nothing"
    assert found_in(stopped, "pretrain") == "other"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    assert found_in(tmp_path / "mine", "train") == "other"
    (stopped / "result.json").write_text("{")
    assert found_in(stopped, "train") == "resumable"


def test_it_needs_a_directory(capsys):
    assert command_line.main(["train", "resume=auto"]) == 1
    assert "give run_dir=DIR" in capsys.readouterr().err
