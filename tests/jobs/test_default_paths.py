"""Every command as a new user runs it, one after the other in an empty folder: where its files go by default."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from medseg.cli import command_line

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "run-directory.md"
OF_OTHERS = {"finetune.json", "progress.json"}
"""Files that a fine-tuning has, and a run that is not done."""

FAST = [
    *("dataset.dims=2", "dataset.cases=10", "dataset.size=48", "trainer.max_time=null", "trainer.max_epochs=1"),
    *("trainer.steps_per_epoch=1", "trainer.accelerator=cpu", "model.base_channels=4", "plan.batch_size=2"),
]
TIMESTAMP = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class Place:
    """An empty working directory, and what each command has added to it."""

    def __init__(self, folder):
        self.folder, self.added = folder, {}

    def run(self, name, *arguments):
        """Run a command; note its exit status and the files that it has made."""
        before, there = files_below(self.folder), Path.cwd()
        os.chdir(self.folder)
        try:
            assert command_line.main([*arguments]) == 0, arguments
        finally:
            os.chdir(there)
        self.added[name] = files_below(self.folder) - before

    def made(self, name):
        """Return a command's files by folder, data and cache left out; times of day are written as TIME."""
        plain = {re.sub(TIMESTAMP, "TIME", path) for path in self.added[name]}
        return {path for path in plain if not path.startswith(("outputs/cache/", "outputs/phantom/"))}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("empty")
    place = Place(folder)
    place.run("train", "train", *FAST)
    [run] = (folder / "outputs/train/phantom").iterdir()
    [scan, *_] = sorted((folder / "outputs/phantom").rglob("images/*"))
    place.run("eval", "eval", f"checkpoint={run}", "subset=val", "device=cpu")
    place.run("predict", "predict", f"checkpoint={run}", f"input={scan}", "output=masks", "device=cpu")
    place.run("export", "export", f"checkpoint={run}", "output=model.onnx", f"case={scan}")
    place.run("inspect", "inspect", *FAST)
    place.run("pretrain", "pretrain", *FAST)
    place.run("sweep", "train", "-m", "loss=ce,dice", "sweep.test=all", *FAST)
    [sweep] = (folder / "outputs/sweeps/phantom").iterdir()
    place.run("compare", "compare", f"runs={sweep}")
    place.run("cache", "cache")
    return place


def listed_in_the_page():
    """Return the files of a run directory that the reference lists, and the folders."""
    run, report, *_ = PAGE.read_text("utf-8").split("\n## ")
    paths = {
        folder + name
        for text, folder in ((run, ""), (report, "test/"))
        for row in re.findall(r"^\| (`.*?) \|", text, re.M)
        for name in re.findall(r"`(.+?)`", row)
    }
    return {path for path in paths if not path.endswith("/")}, {path for path in paths if path.endswith("/")}


def test_a_plain_training_leaves_what_the_reference_lists_and_nothing_else(place):
    files, folders = listed_in_the_page()
    assert {"config.yaml", "checkpoints/last.ckpt", "test/report.tex", "test/cases.csv"} <= files
    assert folders == {"tensorboard/", "test/", "test/overlays/"}
    files, folders = files - OF_OTHERS, folders - {"test/"}
    run = "outputs/train/phantom/TIME/"
    made = place.made("train")
    assert {path for path in made if not path.startswith(tuple(run + folder for folder in folders))} == {
        run + path for path in files
    }
    for folder in folders:
        assert any(path.startswith(run + folder) for path in made), folder


def test_tensorboard_finds_every_run_below_outputs(place):
    events = EventMultiplexer().AddRunsFromDirectory(str(place.folder / "outputs")).Reload()
    found = {re.sub(TIMESTAMP, "TIME", name): name for name in events.Runs()}
    for run in ("train/phantom/TIME", "pretrain/phantom/TIME", "sweeps/phantom/TIME/0", "sweeps/phantom/TIME/1"):
        assert "train/loss" in events.Runs()[found[f"{run}/tensorboard"]]["scalars"]


@pytest.mark.parametrize(
    ("command", "folder", "files"),
    [
        ("eval", "outputs/eval/phantom/TIME", ["config.yaml", "report.html", "cases.csv", "eval.log", "result.json"]),
        ("predict", "masks", ["predictions.csv"]),
        ("inspect", "outputs/inspect/phantom/TIME", ["config.yaml", "inspect.html", "inspect.json", "plan.json"]),
        ("pretrain", "outputs/pretrain/phantom/TIME", ["checkpoints/best.ckpt", "metrics.csv", "reconstruction.png"]),
        ("sweep", "outputs/sweeps/phantom/TIME", ["0/test/report.html", "1/result.json", "1/checkpoints/best.ckpt"]),
        ("compare", "outputs/compare/phantom/TIME", ["comparison.html", "comparison.json", "comparison.csv"]),
    ],
)
def test_a_command_writes_into_its_own_folder_alone(place, command, folder, files):
    made = place.made(command)
    assert {f"{folder}/{name}" for name in files} <= made
    assert {path for path in made if not path.startswith(f"{folder}/")} == set()


def test_nothing_but_outputs_and_what_was_asked_for_appears(place):
    assert place.added["cache"] == set()
    assert place.added["export"] == {"model.onnx"}
    assert {path.name for path in place.folder.iterdir()} == {"outputs", "masks", "model.onnx"}
    assert {path.name for path in (place.folder / "outputs").iterdir()} == {
        *("cache", "phantom", "train", "eval", "inspect", "pretrain", "sweeps", "compare")
    }


def test_the_config_of_a_run_leads_to_its_directory(place):
    [run] = (place.folder / "outputs/train/phantom").iterdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["run_dir"] == str(run.relative_to(place.folder))
    assert config["logger"]["tensorboard"]["save_dir"] == "${run_dir}/tensorboard"


def test_every_reference_to_the_run_directory_leads_there(tmp_path, monkeypatch):
    """Also in a file of the user's own, and where it is needed before the data are read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "logger").mkdir(parents=True)
    (tmp_path / "mine" / "logger" / "table.yaml").write_text(
        "_target_: lightning.pytorch.loggers.CSVLogger\nsave_dir: ${run_dir}/tables\nname: ''\nversion: ''\n"
    )
    (tmp_path / "mine" / "experiment").mkdir()
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\ncache_dir: ${run_dir}/cache\n")
    assert command_line.main(["train", "--config-dir", "mine", "logger=table", "experiment=own", *FAST]) == 0
    [run] = (tmp_path / "outputs/train/phantom").iterdir()
    assert (run / "tables" / "metrics.csv").is_file()
    assert any((run / "cache").rglob("*"))
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "outputs"}
    assert json.loads((run / "result.json").read_text())["status"] == "done"


def test_a_training_that_cannot_begin_leaves_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans" / "images").mkdir(parents=True)
    assert command_line.main(["train", "dataset=folder", "dataset.root=scans"]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"scans"}
