"""Which process of a launcher's is the first, by Lightning's own rule."""

import os
import subprocess
import sys

import pytest

from medseg.jobs.train.setup import RANKS

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
