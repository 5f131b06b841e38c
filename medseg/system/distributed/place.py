"""Which of the processes of one training this is, as the launcher that started them says: torchrun, srun or medseg."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from medseg.errors import MedsegError
from medseg.system.device import Devices, pick_devices

ALL = ("auto", -1)
"""Values of ``trainer.devices`` that leave the number to the machine, or to the launcher."""


@dataclass(frozen=True)
class Place:
    """Where a process stands in its training: the only one, if nothing is said.

    ``rank`` counts the processes of all machines, ``size`` of them, ``local_rank`` those of one machine, ``local_size``
    of them. The first one, of rank 0, listens at ``address`` and ``port``. ``launcher`` is empty where medseg starts
    the others itself.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    launcher: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a further process on this machine learns its place: torchrun's."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def launched(environment: Mapping[str, str]) -> Place:
    """Return the place that a launcher gave this process; that of an only one where none started several.

    torchrun and medseg itself say it by ``RANK`` and ``WORLD_SIZE``. Of Slurm's variables those of a step count, which
    srun alone sets: ``SLURM_NTASKS`` and ``SLURM_PROCID`` are also there in the script of a batch job and in an
    interactive allocation, where one process runs.

    Raises:
        MedsegError: the variables are incomplete, or srun's tasks are not as many on each machine.
    """
    given = environment.get
    if "RANK" in environment and int(given("WORLD_SIZE", "1")) > 1:
        if absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environment]:
            raise MedsegError(
                f"RANK={given('RANK')} and WORLD_SIZE={given('WORLD_SIZE')} are set, as for one of several processes,"
                f" but not {' and '.join(absent)}. Start them by torchrun, or unset RANK."
            )
        return Place(
            rank=int(environment["RANK"]),
            size=int(environment["WORLD_SIZE"]),
            local_rank=int(given("LOCAL_RANK", "0")),
            local_size=int(given("LOCAL_WORLD_SIZE", "1")),
            address=environment["MASTER_ADDR"],
            port=int(environment["MASTER_PORT"]),
            launcher="torchrun",
        )
    if "SLURM_PROCID" in environment and (size := int(given("SLURM_STEP_NUM_TASKS", "1"))) > 1:
        machines = int(given("SLURM_STEP_NUM_NODES", "1"))
        if size % machines:
            raise MedsegError(
                f"srun started {size} tasks on {machines} machines: not as many on each. Give srun --ntasks-per-node."
            )
        job, step = int(given("SLURM_JOB_ID", "0")), int(given("SLURM_STEP_ID", "0"))
        first = first_host(given("SLURM_STEP_NODELIST") or given("SLURM_NODELIST", ""))
        return Place(
            rank=int(environment["SLURM_PROCID"]),
            size=size,
            local_rank=int(given("SLURM_LOCALID", "0")),
            local_size=size // machines,
            address=given("MASTER_ADDR") or (first if machines > 1 else "127.0.0.1"),
            # Known to all tasks without a word between them, and another for each step that runs on the machine
            port=int(given("MASTER_PORT") or 20000 + (job * 97 + step) % 10000),
            launcher="srun",
        )
    return Place()


def first_host(nodes: str) -> str:
    """Return the first host of a list in Slurm's notation.

    >>> first_host("gpu[007-009,12],login1"), first_host("node3,node4")
    ('gpu007', 'node3')
    """
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)
    return match[1] + (match[2] or "") if match else "127.0.0.1"


def take_place(
    accelerator: str, devices: Devices, machines: int, environment: Mapping[str, str]
) -> tuple[Place, list[torch.device]]:
    """Return the place of this process in a training, and the devices of all its processes on this machine.

    Args:
        accelerator: ``trainer.accelerator``.
        devices: ``trainer.devices``. torchrun's number of processes takes the place of one device; a task of srun that
            is to train on one device trains by itself, whatever the other tasks do.
        machines: ``trainer.num_nodes``.
        environment: variables that launchers set.

    Raises:
        MedsegError: the machine has not these devices, or the launcher started another number of processes.
    """
    place = launched(environment)
    if place.launcher == "srun" and devices == 1 and machines == 1:
        place = Place()
    if not place.launcher:
        if machines > 1:
            raise MedsegError(
                f"trainer.num_nodes={machines}: a training on several machines is started on each of them, by srun or"
                " by torchrun --nnodes."
            )
        together = pick_devices(accelerator, devices)
        return Place(size=len(together), local_size=len(together)), together
    number = len(devices) if isinstance(devices, list) else devices
    chosen: Any = {"devices": number, "num_nodes": machines}
    found = {"devices": place.local_size, "num_nodes": place.size // place.local_size}
    left_open = {"devices": (*ALL, 1), "num_nodes": (1,)} if place.launcher == "torchrun" else {"devices": ALL}
    if wrong := [name for name in found if chosen[name] not in (found[name], *left_open.get(name, ()))]:
        raise MedsegError(
            f"{place.launcher} started {found['devices']} processes on each of {found['num_nodes']} machine(s), but"
            f" {' and '.join(f'trainer.{name}={chosen[name]}' for name in wrong)}. Give"
            f" {' and '.join(f'trainer.{name}={found[name]}' for name in wrong)}, or start so many."
        )
    # A launcher may show each process its own GPU alone, as srun --gpus-per-task does
    sees_its_own = torch.cuda.is_available() and torch.cuda.device_count() == 1
    wanted = devices if isinstance(devices, list) else 1 if sees_its_own else place.local_size
    together = pick_devices(accelerator, wanted)
    return place, together * place.local_size if len(together) == 1 else together
