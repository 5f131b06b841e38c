"""Of two processes that train together one fails or is killed: the other ends, with one message and a result.

How long that takes is not asked here.
"""

import signal

from tasks import SHORT, arguments, as_tasks, begin, read, run_of
from torch.distributed import HashStore

from medseg.system.distributed import ranks
from medseg.system.distributed.place import Place


def lost_at(step, what):
    """Return a program that is ``medseg``, but for what its second process does at a step."""
    return f"""
import os, signal, sys, time
from medseg.cli import command_line
from medseg.system.distributed.place import launched
from medseg.training.segmentation import SegmentationModule

training_step = SegmentationModule.training_step

def training_step_or_not(self, *arguments):
    if self.global_step == {step} and launched(os.environ).rank == 1:
        {what}
    return training_step(self, *arguments)

SegmentationModule.training_step = training_step_or_not
sys.exit(command_line.main())
"""


def test_torchrun_starts_one_training(small, tmp_path):
    program = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        *arguments(tmp_path / "given", small(2, *SHORT)),
    ]
    assert begin(program, tmp_path).wait() == 0, (tmp_path / "output").read_text()
    assert read(run_of(tmp_path) / "result.json")["status"] == "done"


def test_an_error_of_one_process_is_the_message_of_the_training(small, tmp_path):
    line = arguments(tmp_path / "given", small(2, *SHORT, "trainer.devices=2"))
    what = "from medseg.errors import MedsegError; raise MedsegError('its disk is full')"
    statuses, outputs = as_tasks(["-c", lost_at(1, what), *line[2:]], tmp_path)
    assert statuses == [1, 1], outputs
    reason = read(run_of(tmp_path) / "result.json")["reason"]
    assert reason.startswith("process 2 of 2 (rank 1) failed: its disk is full")
    assert sum(output.count(reason) for output in outputs) == 1
    assert "Traceback" not in outputs[0] + outputs[1]


def test_a_killed_process_ends_the_training_with_one_message(small, tmp_path):
    line = arguments(tmp_path / "given", small(2, *SHORT, "trainer.devices=2"))
    what = "os.kill(os.getpid(), signal.SIGKILL)"
    statuses, outputs = as_tasks(["-c", lost_at(1, what), *line[2:]], tmp_path)
    assert statuses == [1, -signal.SIGKILL], outputs
    reason = read(run_of(tmp_path) / "result.json")["reason"]
    assert "rank 1" in reason
    assert outputs[0].count(reason) == 1


def test_a_dead_first_process_ends_the_others_and_one_of_them_says_so(small, tmp_path):
    line = arguments(tmp_path / "given", small(2, *SHORT, "trainer.devices=2"))
    program = lost_at(1, "os.kill(os.getpid(), signal.SIGKILL)").replace("rank == 1", "rank == 0")
    statuses, outputs = as_tasks(["-c", program, *line[2:]], tmp_path)
    assert statuses == [-signal.SIGKILL, 1]
    reason = read(run_of(tmp_path) / "result.json")["reason"]
    assert reason.startswith("process 1 of 2 (rank 0)")
    assert outputs[1].count(reason) == 1


def test_a_process_that_came_and_left_no_other_sign_is_missed_as_soon_as_any(monkeypatch):
    now, store = [0.0], HashStore()
    monkeypatch.setattr(ranks.time, "monotonic", lambda: now[0])
    first = ranks.Ranks(Place(size=2))
    seen = {1: (b"", now[0])}

    def verdict_at(seconds):
        now[0] = seconds
        return first.look(store, seen)

    assert verdict_at(60.0) == ""  # it is still on its way
    store.set("host/1", "node")
    assert verdict_at(70.0) == ""
    first.silence = ranks.SUSPECT_SILENCE
    assert verdict_at(74.0) == ""
    assert verdict_at(76.0).startswith("process 2 of 2 (rank 1 on node) has given no sign of life for 6 s")
