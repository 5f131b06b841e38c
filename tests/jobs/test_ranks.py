"""One training in two processes on the CPU, which share a run directory and the test; and one in an allocation."""

import yaml
from lightning.pytorch import Trainer
from tasks import SHORT, arguments, as_tasks, read, run_of
from torch.distributed import HashStore, init_process_group, is_initialized

from medseg.jobs.train import train
from medseg.system import relaunch


def test_two_tasks_of_sruns_are_one_training_whose_report_is_that_of_a_single_process(small, tmp_path):
    """They agree on a run directory that neither was given, and share the test."""
    line = arguments(tmp_path / "given", small(2, *SHORT, "trainer.devices=2"))
    statuses, outputs = as_tasks(line, tmp_path)
    assert statuses == [0, 0], outputs
    run = run_of(tmp_path)
    assert read(run / "result.json")["status"] == "done"
    assert outputs[0].count("epoch 1 ·") == 1
    assert outputs[1] == ""
    assert outputs[0].count("preprocessing") <= 1

    saved = yaml.safe_load((run / "config.yaml").read_text())
    alone = saved | {"resume": str(run), "run_dir": str(run), "trainer": saved["trainer"] | {"devices": 1}}
    shared = {name: (run / "test" / name).read_bytes() for name in ("metrics.json", "cases.csv")}
    for name in shared:
        (run / "test" / name).unlink()
    train.run(alone)  # nothing is left to train
    assert shared == {name: (run / "test" / name).read_bytes() for name in shared}


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


def test_a_training_of_one_process_in_an_allocation_of_slurms_is_just_that(small, tmp_path, monkeypatch):
    """A traceback of Lightning's, which took ``SLURM_NTASKS`` for the number of its processes."""
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_NODELIST": "n1"}.items():
        monkeypatch.setenv(name, value)
    result = train.run(small(2, "logger=none", "trainer.max_epochs=1") | {"run_dir": str(tmp_path / "run")})
    assert result["status"] == "done"
