"""Jobs of a sweep as processes: none of medseg's jobs, but a script that does what its job's config says."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from medseg.errors import MedsegError
from medseg.sweeps import local, process, shares
from medseg.sweeps.process import Job
from medseg.sweeps.queue import Queue
from medseg.sweeps.record import SWEEP, announce
from medseg.system import cores
from medseg.system.relaunch import import_path
from medseg.system.running.signals import heeded

SCRIPT = """
import json, os, pathlib, signal, sys
order = json.loads(sys.stdin.readline())
folder = pathlib.Path(order["folder"])
config = order["config"]
(folder / "order.json").write_text(json.dumps(order))
if config["do"] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if config["do"] == "meet":  # only if the other runs at the same time
    while not (folder.parent / config["other"] / "order.json").exists():
        pass
if config["do"] == "wait":
    sys.stdin.read()
    if config["ignores"]:
        signal.pause()
result = {"status": "done", "reason": "", "score": 0.5, "seconds": 1.0, "overrides": order["overrides"]}
(folder / "result.json").write_text(json.dumps(result))
"""

REAL_PROCESS = """
import sys, time, types
from pathlib import Path
from medseg.cli import job
from medseg.jobs.rundir import recorded

def run(config):
    with recorded(Path(config["run_dir"])):
        (Path(config["run_dir"]) / "begun").touch()
        time.sleep(60)

stub = types.ModuleType("medseg.jobs.train.train")
stub.run, sys.modules[stub.__name__] = run, stub
job.check_values = lambda config: []
sys.exit(job.run_job_of_sweep())
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep's folder, whose jobs are the script."""
    monkeypatch.setattr(process, "python_command", lambda module, function: [sys.executable, "-c", SCRIPT])
    monkeypatch.setattr(local, "LOOK", 0.01)
    (tmp_path / SWEEP).write_text(json.dumps({"settings": []}))
    return SimpleNamespace(folder=tmp_path, command="train", argv=["train", "-m"], first={"command": "train"})


def queue_of(sweep, *configs):
    jobs = [
        Job(number, sweep.folder / str(number), [f"n={number}"], dict(config).copy)
        for number, config in enumerate(configs)
    ]
    announce(sweep.folder, {job.number: job.overrides for job in jobs})
    return Queue(jobs)


def read(sweep, number, name="result.json"):
    return json.loads((sweep.folder / str(number) / name).read_text())


def test_a_job_that_is_killed_ends_no_other(sweep):
    local.run_locally(queue_of(sweep, {"do": "end"}, {"do": "die"}, {"do": "end"}), sweep, None, 1)
    assert [read(sweep, number)["status"] for number in range(3)] == ["done", "failed", "done"]
    assert read(sweep, 1)["reason"] == "killed by SIGKILL, maybe since the machine's memory ran out"
    assert read(sweep, 1)["overrides"] == ["n=1"]
    order = read(sweep, 0, "order.json")
    assert (order["argv"], order["share"]) == (
        ["train", "-m"],
        {"name": "cpu", "environment": {}, "cores": [], "free_gb": 0.0},
    )


def test_a_job_that_is_done_keeps_its_result_while_it_is_tested(sweep):
    (sweep.folder / "0").mkdir()
    before = {"status": "done", "reason": "", "score": 0.7, "seconds": 100.0}
    (sweep.folder / "0" / "result.json").write_text(json.dumps(before))
    local.run_locally(queue_of(sweep, {"do": "die"}), sweep, None, 1)
    assert [read(sweep, 0)[name] for name in ("status", "score", "seconds")] == ["failed", 0.7, 100.0]


def test_jobs_share_the_cores_of_a_device(sweep, monkeypatch):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    jobs = [{"do": "meet", "other": "1"}, {"do": "meet", "other": "0"}]
    local.run_locally(queue_of(sweep, *jobs), sweep, None, 2)
    assert [read(sweep, number, "order.json")["share"]["cores"] for number in range(2)] == [[0, 1], [2, 3]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there are no containers")
def test_jobs_share_no_more_cores_than_the_container_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda process: {*range(64)}, raising=False)
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    parts = [share.cores for share in shares.divided([process.Share("cpu")], 2)]
    assert parts == [[0, 1], [32, 33]]


def test_each_job_sees_a_gpu_of_its_own(sweep, monkeypatch):
    monkeypatch.setattr(shares, "gpus", lambda: [shares.Gpu("4", 20.0), shares.Gpu("5", 20.0)])
    jobs = [{"do": "meet", "other": "1"}, {"do": "meet", "other": "0"}]
    local.run_locally(queue_of(sweep, *jobs), sweep, None, 1)
    seen = [read(sweep, number, "order.json")["share"]["environment"] for number in range(2)]
    assert seen == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "5"}]


def test_a_plan_tells_how_many_jobs_a_gpu_holds(sweep, monkeypatch):
    monkeypatch.setattr(shares, "gpus", lambda: [shares.Gpu("0", 20.0)])
    (sweep.folder / "0").mkdir()
    (sweep.folder / "0" / "plan.json").write_text('{"measured": {"peak_gb": 8.0}}')
    jobs = [{"do": "meet", "other": "1"}, {"do": "meet", "other": "0"}]
    local.run_locally(queue_of(sweep, *jobs), sweep, None, "auto")
    assert [read(sweep, number)["status"] for number in range(2)] == ["done", "done"]


@pytest.mark.parametrize(
    ("config", "chosen", "count", "names"),
    [
        (
            {"command": "train", "trainer": {"accelerator": "auto", "devices": 1}},
            None,
            1,
            ["cuda:0", "cuda:1", "cuda:2"],
        ),
        ({"command": "train", "trainer": {"accelerator": "gpu", "devices": 2}}, None, 1, ["cuda:0,1"]),
        ({"command": "train", "trainer": {"accelerator": "auto", "devices": 1}}, [2], 2, ["cuda:2", "cuda:2"]),
        ({"command": "train", "trainer": {"accelerator": "cpu", "devices": 1}}, None, 1, ["cpu"]),
        ({"command": "eval", "device": "auto"}, None, 1, ["cuda:0", "cuda:1", "cuda:2"]),
        ({"command": "eval", "device": "cuda:1"}, None, 1, ["cuda:1"]),
    ],
)
def test_devices_are_shared_out_by_the_config(monkeypatch, config, chosen, count, names):
    monkeypatch.setattr(shares, "gpus", lambda: [shares.Gpu(str(number), 20.0) for number in range(3)])
    assert [share.name for share in shares.divided(shares.shares_of(config, chosen), count)] == names


@pytest.mark.parametrize(
    ("config", "chosen", "message"),
    [
        ({"command": "train", "trainer": {"accelerator": "auto", "devices": 3}}, None, r"trainer.devices=3: 2 GPU"),
        ({"command": "train", "trainer": {"devices": [0, 1]}}, None, r"Give their number, as in trainer.devices=2"),
        ({"command": "train"}, [5], r"hydra.launcher.devices: there is no GPU 5; PyTorch can use 2"),
    ],
)
def test_devices_that_are_not_there_are_refused(monkeypatch, config, chosen, message):
    monkeypatch.setattr(shares, "gpus", lambda: [shares.Gpu("0", 20.0), shares.Gpu("1", 20.0)])
    with pytest.raises(MedsegError, match=message):
        shares.shares_of(config, chosen)


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_lets_jobs_save_and_a_second_ends_them(sweep, presses):
    configs = [{"do": "wait", "ignores": presses == 2}, {"do": "end"}, {"do": "end"}]
    (sweep.folder / "2" / "checkpoints").mkdir(parents=True)
    (sweep.folder / "2" / "output.log").write_text("what an earlier session said\n")

    def press():
        wait_for(sweep.folder / "0" / "order.json")
        os.kill(os.getpid(), signal.SIGINT)
        if presses == 2:
            time.sleep(0.5)  # more than the first needs to be told; the job waits for ever
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        local.run_locally(queue_of(sweep, *configs), sweep, None, 1)
    thread.join()
    ends = [("done", ""), ("interrupted", "ended at once")]
    assert (read(sweep, 0)["status"], read(sweep, 0)["reason"]) == ends[presses - 1]
    # Their processes had been started ahead
    assert not (sweep.folder / "1").exists()
    assert (sweep.folder / "2" / "output.log").read_text() == "what an earlier session said\n"


def test_ctrl_c_while_the_process_of_a_next_job_starts_leaves_nothing_of_it(sweep, monkeypatch):
    start = subprocess.Popen

    def interrupted(command, **options):
        if (sweep.folder / "1").exists():
            raise KeyboardInterrupt
        return start(command, **options)

    monkeypatch.setattr(process.subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        local.run_locally(queue_of(sweep, {"do": "wait", "ignores": False}, {"do": "end"}), sweep, None, 1)
    assert read(sweep, 0)["status"] == "done"
    assert not (sweep.folder / "1").exists()


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_job_says_which_signal_has_stopped_its_sweep(sweep, monkeypatch, number, name):
    monkeypatch.setattr(process, "python_command", lambda module, function: [sys.executable, "-c", REAL_PROCESS])

    def stop():
        wait_for(sweep.folder / "0" / "begun")
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores Ctrl-C
    thread = threading.Thread(target=stop)
    thread.start()
    config = {"command": "train", "run_dir": str(sweep.folder / "0")}
    with pytest.raises(KeyboardInterrupt), heeded():
        local.run_locally(queue_of(sweep, config), sweep, None, 1)
    thread.join()
    signal.signal(signal.SIGINT, before)
    assert (read(sweep, 0)["status"], read(sweep, 0)["reason"]) == ("interrupted", f"interrupted by {name}")


def test_jobs_end_with_the_process_that_started_them(sweep):
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
        "from pathlib import Path; from types import SimpleNamespace\n"
        "from medseg.sweeps import local, process\n"
        f"process.python_command = lambda module, function: [sys.executable, '-c', {SCRIPT!r}]\n"
        "from medseg.sweeps.process import Job; from medseg.sweeps.queue import Queue\n"
        f"folder = Path({str(sweep.folder)!r})\n"
        "sweep = SimpleNamespace(folder=folder, command='train', argv=[], first={'command': 'train'})\n"
        "job = Job(0, folder / '0', [], {'do': 'wait', 'ignores': False}.copy)\n"
        "local.run_locally(Queue([job]), sweep, None, 1)\n"
    )
    started = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": import_path()})
    wait_for(sweep.folder / "0" / "order.json")
    started.kill()
    started.wait()
    wait_for(sweep.folder / "0" / "result.json")
