"""Which process of a training this is, by what torchrun and Slurm leave in the environment."""

import pytest
import torch

from medseg.errors import MedsegError
from medseg.system.distributed.place import Place, first_host, launched, take_place

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "gpu1",
    "MASTER_PORT": "29500",
}
BATCH = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
"""What the script of a batch job finds, and a shell in an interactive allocation much the same."""
SRUN = BATCH | {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07,09]",
}


def place(environment, devices=1, machines=1):
    return take_place("cpu", devices, machines, environment)[0]


def test_torchrun_says_it_by_variables_which_are_also_how_medseg_does():
    found = launched(TORCHRUN)
    assert found == Place(3, 4, 1, 2, "gpu1", 29500, "torchrun")
    assert found.environment == TORCHRUN


@pytest.mark.parametrize("environment", [{}, BATCH, {"RANK": "0", "WORLD_SIZE": "1"}, {"LOCAL_RANK": "1"}])
def test_a_process_that_is_one_of_none_is_by_itself(environment):
    """``SLURM_NTASKS=8`` round a training on one device was a traceback of Lightning's."""
    assert launched(environment) == Place()
    assert place(environment, devices=2) == Place(size=2, local_size=2)


def test_srun_says_it_by_the_variables_of_a_step():
    found = launched(SRUN)
    assert (found.rank, found.size, found.local_rank, found.local_size) == (5, 8, 1, 4)
    assert found.address == "gpu07"
    assert found.port == launched(SRUN | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).port
    assert found.port != launched(SRUN | {"SLURM_STEP_ID": "3"}).port
    assert launched(SRUN | {"SLURM_STEP_NUM_NODES": "1"}).address == "127.0.0.1"
    assert launched(SRUN | {"MASTER_ADDR": "ib0", "MASTER_PORT": "1234"}).address == "ib0"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[007-009,12],login1", "gpu007"), ("node3,node4", "node3"), ("node3", "node3"), ("", "127.0.0.1")],
)
def test_the_first_host_of_a_list_of_slurms(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize("devices", [4, "auto", -1])
def test_a_task_of_srun_trains_with_the_others_where_as_many_devices_are_asked_for(devices):
    assert place(SRUN, devices, machines=2).launcher == "srun"


def test_a_task_of_srun_that_asks_for_one_device_trains_by_itself():
    assert place(SRUN) == Place()


@pytest.mark.parametrize(
    ("environment", "devices", "machines", "said"),
    [
        (SRUN, 2, 2, "started 4 processes on each of 2 machine.*trainer.devices=2. Give trainer.devices=4, or"),
        (SRUN, 4, 1, "trainer.num_nodes=1. Give trainer.num_nodes=2"),
        (TORCHRUN, 3, 1, "torchrun started 2 processes"),
        (TORCHRUN, 2, 3, "trainer.num_nodes=3. Give trainer.num_nodes=2"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "7"}, 4, 2, "7 tasks on 2 machines.*--ntasks-per-node"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 2, 1, "not MASTER_ADDR and MASTER_PORT"),
        ({}, 1, 2, "trainer.num_nodes=2.*by srun or by torchrun"),
    ],
)
def test_what_does_not_fit_is_said(environment, devices, machines, said):
    with pytest.raises(MedsegError, match=said):
        place(environment, devices, machines)


@pytest.mark.parametrize("devices", [1, 2, "auto"])
def test_torchruns_number_of_processes_takes_the_place_of_one_device(devices):
    assert place(TORCHRUN, devices).launcher == "torchrun"


def test_a_process_that_is_shown_its_own_gpu_alone_takes_that(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert take_place("gpu", 4, 2, SRUN)[1] == [torch.device("cuda:0")] * 4
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert take_place("gpu", 4, 2, SRUN)[1] == [torch.device("cuda", number) for number in range(4)]
