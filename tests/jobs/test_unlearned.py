"""A class that stays at Dice 0: what a training says of it, and what its report and a sweep's table do."""

import csv
import json

import numpy as np
import pytest
from browser import Markup

from medseg.jobs.evaluate import evaluate, scoring
from medseg.jobs.train import train
from medseg.training import segmentation
from medseg.training.data.patches import Patches

EPOCHS = 4


@pytest.fixture
def config(small, monkeypatch):
    """A training on the phantom that predicts its classes as far as they are right, but never the core."""
    monkeypatch.setattr(scoring, "counts", without_core)
    monkeypatch.setattr(segmentation, "counts", without_core)
    return small(2, f"trainer.max_epochs={EPOCHS}", "logger=none")


def without_core(prediction, reference, n_classes, unions):
    voxels = np.array([[np.count_nonzero(np.isin(reference, union))] * 3 for union in unions], np.int64)
    voxels[1, :2] = 0
    return voxels


def result_of(run):
    return json.loads((run / "result.json").read_text())


def test_log_result_and_report_name_a_class_that_is_not_learned(config, composed, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("medseg.system.running.progress_file.EVERY", 0.0)
    monkeypatch.setattr("medseg.system.running.progress_file.write_json", lambda path, content: told.append(content))
    train.run(config | {"run_dir": str(tmp_path)})
    lines = [line for line in (tmp_path / "train.log").read_text().splitlines() if "not learned: core." in line]
    assert len(lines) == 1
    assert "after 50 % of the training" in lines[0]
    names = [content["unlearned"] for content in told if content["state"] == "training"]
    assert (names[0], names[-1]) == ([], ["core"])
    assert result_of(tmp_path)["unlearned"] == ["core"]
    expected = ["core: not learned in training, the validation Dice stayed near 0"]
    summary = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert summary["warnings"][0] == expected[0]
    assert summary["warnings"][-1].startswith("core: never predicted (cases with it: ")
    html = (tmp_path / "test" / "report.html").read_text()
    lead = Markup(html[html.index("<header>") : html.index("</header>") + len("</header>")]).text
    assert all(warning in lead for warning in summary["warnings"])
    lines = (tmp_path / "test" / "report.md").read_text().splitlines()
    assert [line.strip("*") for line in lines[:4:2]] == summary["warnings"][:2]
    evaluated = composed("eval", f"checkpoint={tmp_path}", "subset=val", f"run_dir={tmp_path / 'eval'}")
    evaluate.run(evaluated)
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["warnings"][0] == expected[0]


def test_a_resumed_run_does_not_say_it_again(config, composed, tmp_path):
    train.run(config | {"run_dir": str(tmp_path)})
    for epochs in (EPOCHS, 2 * EPOCHS):  # nothing is left to train, or the same again
        before = (tmp_path / "train.log").read_text()
        config["trainer"]["max_epochs"] = epochs
        train.run(config | {"run_dir": str(tmp_path), "resume": str(tmp_path)})
        assert "not learned: core." not in (tmp_path / "train.log").read_text()[len(before) :]
        assert result_of(tmp_path)["unlearned"] == ["core"]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [float(row["val_dice_core"]) for row in csv.DictReader(file)] == [0.0] * 2 * EPOCHS


def test_a_class_that_no_training_case_holds_is_not_named(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Patches, "classes", {1, 3})
    train.run(config | {"run_dir": str(tmp_path)})
    assert "unlearned" not in result_of(tmp_path)
