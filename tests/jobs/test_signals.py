"""Processes of medseg that get signals, some with processes of their own."""

import json
import subprocess
import sys

import yaml
from leftovers import leftovers

TRAINING = """
import os, signal, sys
from medseg.cli.command_line import main
from medseg.training.segmentation import SegmentationModule

training_step = SegmentationModule.training_step

def training_step_and_signal(self, *arguments):
    if self.global_step == 3:
        os.killpg(0, signal.SIGTERM)  # a scheduler asks all processes of a job
    return training_step(self, *arguments)

SegmentationModule.training_step = training_step_and_signal
sys.exit(main())
"""


def test_processes_that_load_data_let_the_training_save_its_state(small, tmp_path):
    config = small(2, "trainer.steps_per_epoch=6", "trainer.workers=1") | {"run_dir": str(tmp_path / "run")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.run.dir=."]
    command = [sys.executable, "-c", TRAINING, "--config-path", str(tmp_path), "--config-name", "config", *quiet]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True, timeout=300)
    assert done.returncode == 143, done.stderr
    said = f"interrupted by SIGTERM after step 4; to go on: medseg train resume={tmp_path / 'run'}"
    assert done.stderr.splitlines()[-1] == f"medseg: {said}"
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["reason"] == said
    assert not leftovers(tmp_path / "run")
