"""Which process of a launcher's is the first, by Lightning's own rule, and when it leaves the others."""

import os
import subprocess
import sys

import pytest
from lightning.pytorch import Trainer
from torch.distributed import HashStore, init_process_group, is_initialized

from medseg.jobs.train import train
from medseg.jobs.train.setup import RANKS
from medseg.system import relaunch

CODE = """
from medseg.jobs.train.setup import is_first_process
before = is_first_process()
from lightning.pytorch.utilities import rank_zero_only
assert before == is_first_process() == (rank_zero_only.rank == 0)
print(before)
"""


@pytest.mark.parametrize(
    ("launcher", "is_first"),
    [
        ({"NODE_RANK": "1"}, True),
        ({"RANK": "0", "SLURM_PROCID": "3"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
    ],
)
def test_the_first_process_is_lightnings(launcher, is_first):
    usual = {name: value for name, value in os.environ.items() if name not in RANKS}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=usual | launcher, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(is_first)


def test_the_group_of_processes_is_left_before_the_first_of_them_tests_the_model(small, tmp_path, monkeypatch):
    """With NCCL those that have ended already would be waited for."""
    fit, seen = Trainer.fit, []

    def fit_in_group(*arguments, **options):
        fit(*arguments, **options)
        init_process_group("gloo", store=HashStore(), rank=0, world_size=1)

    def test(run):
        seen.append(is_initialized())
        return {"status": "done", "test_score": None}

    monkeypatch.setattr(Trainer, "fit", fit_in_group)
    monkeypatch.setattr(train, "test", test)
    try:
        train.run(small(2, "logger=none", "trainer.max_epochs=1") | {"run_dir": str(tmp_path / "run")})
    finally:
        relaunch.leave_process_group()
    assert seen == [False]
