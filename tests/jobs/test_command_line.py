"""The command line with real jobs: a network of one's own, a sweep, and what a user sees of a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medseg.cli import command_line

IN_THIS_PROCESS = ("-m", "hydra/launcher=basic")
"""For sweeps of which the jobs matter: a process for each would import everything anew."""

NETWORK = '''
from torch import nn


class Tiny(nn.Module):
    """Two convolutions that keep the size; one output, not a list."""

    def __init__(self, in_channels, out_channels, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, out_channels, 1)
        )

    def forward(self, x):
        return self.layers(x)
'''

CONFIG = """
_target_: tiny_network.Tiny
in_channels: ${plan.in_channels}
out_channels: ${plan.out_channels}
width: 4
"""


@pytest.fixture
def small_run(workplace, tmp_path, monkeypatch):
    """Arguments of a training of seconds, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    data = [f"dataset.root={workplace / 'phantom'}", "dataset.dims=2", "dataset.cases=10", "dataset.size=64"]
    short = ["trainer.max_time=null", "trainer.max_epochs=1", "trainer.steps_per_epoch=2", "trainer.accelerator=cpu"]
    return [*data, f"cache_dir={workplace / 'cache'}", *short, "plan.batch_size=2", "logger=none"]


def scan_of(workplace: Path) -> Path:
    return sorted((workplace / "phantom").glob("2d*/images/*"))[0]


def test_a_network_of_ones_own(small_run, workplace, tmp_path, capsys, caplog):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "tiny_network.py").write_text(NETWORK)
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text(CONFIG)
    assert command_line.main(["train", "--config-dir", "mine", "model=tiny", "run_dir=run", *small_run]) == 0
    assert caplog.text.count("which parameters are the head of Tiny is not known") == 1
    use = ["predict", "checkpoint=run", f"input={scan_of(workplace)}", "device=cpu"]
    assert command_line.main([*use, "output=masks", "--config-dir", "mine"]) == 0
    assert command_line.main([*use, "output=masks2", "trust=[tiny_network.Tiny]"]) == 0
    capsys.readouterr()
    assert command_line.main([*use, "output=masks3"]) == 1
    error = capsys.readouterr().err
    assert "tiny_network.Tiny" in error
    assert "trust=" in error
    assert "Traceback" not in error


def test_a_sweep_of_four_with_one_wrong(small_run, tmp_path, capsys):
    wrong = ["optimizer=sgd", "optimizer.momentum=0.9,0"]  # which shows when PyTorch builds it: Nesterov's needs some
    sweep = [
        "-m",
        "hydra/launcher=basic",
        *wrong,
        "loss=dice_ce,ce",
        "model.depth=2",
        "model.base_channels=4",
        "run_dir=sweep",
    ]
    assert command_line.main(["train", *sweep, *small_run]) == 3
    results = [json.loads((tmp_path / "sweep" / str(job) / "result.json").read_text()) for job in range(4)]
    assert [result["status"] for result in results] == ["done", "done", "failed", "failed"]
    assert "torch.optim.SGD" in results[2]["reason"]
    table = capsys.readouterr().out
    assert "loss=dice_ce" in table


def test_a_path_of_a_sweep_that_is_not_there_is_named_before_its_first_job(small_run, capsys):
    Path("here").mkdir()
    line = ["train", "-m", "finetune.checkpoint=null,'here','gone'", "run_dir=sweep", *small_run]
    assert command_line.main(line) == 1
    assert "finetune.checkpoint=gone: no such file or folder." in capsys.readouterr().err
    assert not Path("sweep").exists()


def test_two_processes_share_a_training(small_run, tmp_path):
    drawn = ["logger=tensorboard", *(setting for setting in small_run if setting != "logger=none")]
    arguments = ["train", "run_dir=run (2)", "model.depth=2", "model.base_channels=4", "trainer.devices=2", *drawn]
    done = subprocess.run([sys.executable, "-m", "medseg", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run (2)" / "result.json").read_text())["status"] == "done"
    assert done.stderr.count("epoch 1 ·") == 1  # one process speaks
    assert len((tmp_path / "run (2)" / "metrics.csv").read_text().splitlines()) == 2
    validated = json.loads((tmp_path / "run (2)" / "splits.json").read_text())["val"]  # by turns, so by both
    events = EventAccumulator(str(tmp_path / "run (2)" / "tensorboard")).Reload()
    assert events.Tags()["images"] == [*(f"cases/{name}" for name in validated), "worst case"]
    resume = ["train", "resume=run (2)", "trainer.max_epochs=2"]
    done = subprocess.run([sys.executable, "-m", "medseg", *resume], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run (2)" / "metrics.csv").read_text().splitlines()) == 3


def test_resume_from_the_command_line(small_run, tmp_path, capsys):
    assert command_line.main(["train", "run_dir=run (1)", "model.depth=2", "model.base_channels=4", *small_run]) == 0
    assert command_line.main(["train", "resume=run (1)", "trainer.max_epochs=2"]) == 0
    assert len((tmp_path / "run (1)" / "metrics.csv").read_text().splitlines()) == 3
    assert command_line.main(["eval", "checkpoint=run (1)", "subset=val", "device=cpu"]) == 0


def test_wrong_arguments_of_an_optimizer_are_one_message(small_run, capsys):
    arguments = ["train", "run_dir=run", "optimizer=sgd", "optimizer.momentum=0", "model.base_channels=4", *small_run]
    assert command_line.main(arguments) == 1
    error = capsys.readouterr().err
    assert "torch.optim.SGD" in error
    assert "Traceback" not in error
    assert not Path("run/plan.json").exists()  # they show when the plan tries a step


def test_several_networks_in_one_sweep(small_run, workplace, capsys):
    names = ["segresnet", "unet", "vnet"]
    slim = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false"]  # smaller checkpoints
    sweep = [
        "train",
        "-m",
        "hydra/launcher=basic",
        f"model={','.join(names)}",
        "trainer.steps_per_epoch=1",
        "run_dir=sweep",
        *small_run,
        *slim,
    ]
    assert command_line.main([setting for setting in sweep if setting != "trainer.steps_per_epoch=2"]) == 0
    results = {
        Path(path).parent.name: json.loads(Path(path).read_text()) for path in Path("sweep").glob("*/result.json")
    }
    assert len(results) == len(names)
    assert {result["status"] for result in results.values()} == {"done"}
    table = capsys.readouterr().out.rpartition("overrides")[2]
    assert all(f"model={name}"[:20] in table for name in names)
    configs = {path.parent: path.read_text() for path in Path("sweep").glob("*/config.yaml")}
    [segresnet] = [job for job, config in configs.items() if "medseg.models.monai.segresnet" in config]
    use = ["predict", f"checkpoint={segresnet}", f"input={scan_of(workplace)}", "output=masks", "device=cpu"]
    assert command_line.main(use) == 0  # medseg ships its name, so nothing has to be trusted
