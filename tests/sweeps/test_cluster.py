"""What the launcher for clusters makes of Slurm's answers, which are made up here; tests/slurm asks a real one."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from medseg.errors import MedsegError
from medseg.sweeps import cluster, process
from medseg.sweeps.process import Job
from medseg.sweeps.queue import Queue
from medseg.sweeps.record import SWEEP, announce, record

PARAMETERS = {"array_parallelism": 256, "max_num_timeout": 3}


@pytest.fixture
def slurm(monkeypatch):
    """Answers in the place of Slurm's: ``slurm.answers`` to squeue, one after the other, of which the last stays.

    Jobs are submitted as 7_0, 7_1 and so on; ``slurm.commands`` are the other commands.
    """
    made_up = SimpleNamespace(answers=[], commands=[], submitted=[], arrays=[])

    def run(command, **options):
        if command[0] != "squeue":
            made_up.commands.append(command)
            return SimpleNamespace(returncode=0, stdout="")
        answer = made_up.answers.pop(0) if len(made_up.answers) > 1 else made_up.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return SimpleNamespace(returncode=int(answer is None), stdout=answer)

    def submit_array(tasks):
        numbers = [f"7_{len(made_up.submitted) + index}" for index in range(len(tasks))]
        made_up.submitted += tasks
        made_up.arrays.append(len(tasks))
        return [SimpleNamespace(job_id=number) for number in numbers]

    monkeypatch.setattr(cluster.subprocess, "run", run)
    monkeypatch.setattr(cluster, "executor_of", lambda *_: SimpleNamespace(submit_array=submit_array))
    monkeypatch.setattr(cluster, "LOOK", 0.0)
    monkeypatch.setattr(cluster, "ASK", 0.0)
    return made_up


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / SWEEP).write_text(json.dumps({"settings": []}))
    return SimpleNamespace(folder=tmp_path, command="train", argv=["train", "-m"], first={"command": "train"})


def queue_of(sweep, count):
    jobs = [Job(number, sweep.folder / str(number), [f"n={number}"], dict) for number in range(count)]
    announce(sweep.folder, {job.number: job.overrides for job in jobs})
    for job in jobs:
        job.folder.mkdir(exist_ok=True)
    return Queue(jobs)


def result_of(sweep, number=0):
    return json.loads((sweep.folder / str(number) / "result.json").read_text())


@pytest.mark.parametrize(
    ("state", "own", "output", "reason"),
    [
        ("COMPLETED", "done", "", ""),
        ("CANCELLED", "done", "", ""),  # it was faster
        ("CANCELLED", "failed", "", "cancelled (scancel)"),
        ("CANCELLED", None, "", "cancelled (scancel)"),
        ("CANCELLED", "interrupted", "", "cancelled (scancel); its own reason"),
        ("FAILED", "failed", "", "its own reason"),
        ("FAILED", None, "", "ended without a result"),
        (
            "FAILED",
            None,
            "error: StepId=3.0 exceeded memory limit (2 > 1), being killed",
            "out of the memory",
        ),
        ("OUT_OF_MEMORY", "failed", "", "out of the memory"),
        ("TIMEOUT", None, "", "ended by its time limit"),
        ("PREEMPTED", None, "", "preempted, and not queued again"),
        ("NODE_FAIL", None, "", "its node failed"),
    ],
)
def test_why_a_job_has_ended(slurm, sweep, state, own, output, reason):
    queue = queue_of(sweep, 1)
    if own:
        record(sweep.folder / "0", {"status": own, "reason": "" if own == "done" else "its own reason"}, [])
    (sweep.folder / ".submitit" / "7_0").mkdir(parents=True)
    (sweep.folder / ".submitit" / "7_0" / "7_0_0_log.err").write_text(output)
    slurm.answers = ["", "7_0|PENDING|Priority|\n", "7_0|RUNNING|None|node3\n", f"7_0|{state}|None|node3\n"]
    cluster.run_on_cluster(queue, sweep, "slurm", PARAMETERS)
    result = result_of(sweep)
    is_stopped = state == "CANCELLED" and own != "failed"
    assert result["status"] == ("done" if own == "done" else "interrupted" if is_stopped else "failed")
    assert result["reason"].startswith(reason)


def test_no_answer_ends_no_job(slurm, sweep):
    queue = queue_of(sweep, 1)
    slurm.answers = [None, None, "7_0|RUNNING|None|a\n", None, None, "7_0|CANCELLED|None|a\n"]
    cluster.run_on_cluster(queue, sweep, "slurm", PARAMETERS)
    assert slurm.answers == ["7_0|CANCELLED|None|a\n"]
    assert result_of(sweep)["reason"] == "cancelled (scancel)"


def test_jobs_of_an_earlier_session_are_waited_for(slurm, sweep):
    (sweep.folder / "submitted.json").write_text(json.dumps({"0": "5_0", "1": "5_1", "2": "5_2"}))
    before = "5_0|RUNNING|None|a\n5_1|COMPLETED|None|a\n5_2|PENDING|None|\n"
    slurm.answers = [before, "7_0|COMPLETED||a\n5_2|FAILED||a\n"]
    cluster.run_on_cluster(queue_of(sweep, 3), sweep, "slurm", PARAMETERS)
    assert [task.number for task in slurm.submitted] == [1]
    assert json.loads((sweep.folder / "submitted.json").read_text()) == {"0": "5_0", "1": "7_0", "2": "5_2"}
    assert [result_of(sweep, number)["status"] for number in range(3)] == ["failed"] * 3


def test_nothing_is_submitted_twice_where_slurm_does_not_answer(slurm, sweep):
    (sweep.folder / "submitted.json").write_text(json.dumps({"0": "5_0"}))
    slurm.answers = [None]
    with pytest.raises(MedsegError, match="Go on with the sweep once squeue answers"):
        cluster.run_on_cluster(queue_of(sweep, 1), sweep, "slurm", PARAMETERS)
    assert slurm.submitted == []


def test_no_more_jobs_are_there_at_a_time_than_asked_for(slurm, sweep):
    slurm.answers = ["", "7_0|RUNNING|None|a\n7_1|COMPLETED|None|a\n", "7_0|RUNNING|None|a\n7_2|RUNNING|None|a\n", ""]
    cluster.run_on_cluster(queue_of(sweep, 3), sweep, "slurm", PARAMETERS | {"array_parallelism": 2})
    assert slurm.arrays == [2, 1]


def test_how_many_jobs_are_there_at_a_time_is_for_the_queue_where_it_is_not_said(slurm, sweep):
    queue = queue_of(sweep, 2)
    queue.most_on_cluster = 1
    slurm.answers = ["", "7_0|COMPLETED|None|a\n", "7_1|COMPLETED|None|a\n"]
    cluster.run_on_cluster(queue, sweep, "slurm", PARAMETERS | {"array_parallelism": None})
    assert slurm.arrays == [1, 1]
    with pytest.raises(MedsegError, match="array_parallelism=0: must be a whole number from 1 on"):
        cluster.run_on_cluster(queue, sweep, "slurm", PARAMETERS | {"array_parallelism": 0})


def test_processes_of_a_search_know_of_each_others_jobs(slurm, sweep):
    """Another has submitted job 0 and dies later, so that only then the queue has it; the third's job 8 stays noted."""
    queue = queue_of(sweep, 2)
    queue.take = lambda numbers: []
    noted = {"0": "5_0", "8": "5_8"}
    (sweep.folder / "submitted.json").write_text(json.dumps(noted))
    slurm.answers = ["5_0|PENDING|None|\n", "5_0|COMPLETED|None|a\n7_0|COMPLETED|None|a\n"]
    cluster.run_on_cluster(queue, sweep, "slurm", PARAMETERS)
    assert [task.number for task in slurm.submitted] == [1]
    assert json.loads((sweep.folder / "submitted.json").read_text()) == {**noted, "1": "7_0"}
    (sweep.folder / "submitted.json").write_text('{"a": 3}')
    with pytest.raises(MedsegError, match=r"submitted\.json"):
        cluster.run_on_cluster(queue_of(sweep, 1), sweep, "slurm", PARAMETERS)


def test_ctrl_c_cancels_all_jobs_and_waits_for_them(slurm, sweep):
    both = "7_0|{0}|None|a\n7_1|{0}|None|a\n"
    after = [both.format("COMPLETING"), both.format("CANCELLED")]
    slurm.answers = ["", both.format("RUNNING"), KeyboardInterrupt(), *after]
    with pytest.raises(KeyboardInterrupt):
        cluster.run_on_cluster(queue_of(sweep, 2), sweep, "slurm", PARAMETERS)
    assert slurm.commands == [["scancel", "7_0", "7_1"]]
    assert [result_of(sweep, number)["reason"] for number in range(2)] == ["cancelled (scancel)"] * 2


def test_the_end_of_the_process_that_waits_ends_no_job(slurm, sweep, caplog):
    stop = KeyboardInterrupt()
    stop.number = signal.SIGTERM
    slurm.answers = ["", "7_0|RUNNING|None|a\n", stop]
    with pytest.raises(KeyboardInterrupt):
        cluster.run_on_cluster(queue_of(sweep, 1), sweep, "slurm", PARAMETERS)
    assert slurm.commands == []
    assert "the jobs stay on the cluster: 7_0" in caplog.text


def test_jobs_know_nothing_of_the_job_that_submits_them(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURM_CONF"):
        monkeypatch.setenv(name, "7")
    with cluster.environment_of_jobs():
        assert [name for name in os.environ if name.startswith("SLURM_")] == ["SLURM_CONF"]
        assert all(folder in os.environ["PYTHONPATH"].split(os.pathsep) for folder in sys.path if folder)
    assert os.environ["SLURM_MEM_PER_CPU"] == "7"


def test_a_preempted_job_is_known(slurm, monkeypatch):
    shown = "PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime={}\n"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for time, is_preempted in (("None", False), ("2026-01-01T00:00:01", True)):
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=shown.format(time)))  # noqa: B023
        assert cluster.is_preempted() == is_preempted


def test_a_task_that_is_told_saves_and_goes_on_in_its_folder(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    script = "import sys; sys.stdin.readline(); sys.stdin.read(); open('saved', 'w')"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "python_command", lambda module, function: [sys.executable, "-c", script])
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    task = cluster.Task("train", 0, tmp_path / "0", [], {"run_dir": str(tmp_path / "0"), "resume": None}, [])
    at_work, again = [task], []
    tell = SimpleNamespace(sleep=lambda seconds: again.append(at_work[-1].checkpoint()))  # while it waits for the job
    monkeypatch.setattr(cluster, "time", tell)
    with pytest.raises(SystemExit):
        task()
    assert (tmp_path / "saved").is_file()
    assert again[0].function.process is None
    assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    (tmp_path / "0" / "checkpoints").mkdir()
    (tmp_path / "0" / "checkpoints" / "last.ckpt").touch()
    at_work.append(again[0].function)
    with pytest.raises(SystemExit):
        at_work[-1]()
    assert again[-1].function.config["resume"] == str(tmp_path / "0")


def test_what_cannot_be_submitted(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(MedsegError, match=r"partition='a\\nb': must be one line"):
        cluster.executor_of("slurm", tmp_path, PARAMETERS | {"partition": "a\nb"})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MedsegError, match=r"needs submitit: pip install 'medseg\[slurm\]'"):
        cluster.executor_of("slurm", tmp_path, PARAMETERS)


def test_a_machine_without_slurm_is_named(monkeypatch, sweep, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MedsegError, match="this machine has no Slurm"):
        cluster.run_on_cluster(queue_of(sweep, 1), sweep, "slurm", PARAMETERS)
