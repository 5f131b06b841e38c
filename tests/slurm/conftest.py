"""A real Slurm of one machine: Debian's slurmctld and slurmd, as whoever runs the tests, in a folder of their own."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

# Four CPUs are declared whatever there are. Memory is watched by slurmd itself, as there may be no cgroups. A requeued
# job may start anew at once, where Slurm waits for two minutes: until credentials of the first start have expired.
CONFIG = """
ClusterName=tests
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
DefMemPerCPU=2000
KillWait=20
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=localhost CPUs=4 RealMemory=16000
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 MaxTime=60 GraceTime=60
PartitionName=high Nodes=localhost PriorityTier=2 MaxTime=60
"""
DAEMONS = ("slurmctld", "slurmd")


class Slurm:
    """Slurm's commands."""

    @staticmethod
    def answer(*command: str) -> str:
        """Return what a command prints."""
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    def states(self) -> dict[str, str]:
        """Return the state of each job that Slurm knows of."""
        lines = self.answer("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    @staticmethod
    def wait_until(what: Callable[[], bool], seconds: float = 240) -> None:
        """Wait until something is so; fail where it is not in time."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, f"not so in {seconds} s: {what}"
            time.sleep(0.2)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    """Start a Slurm of this machine, of the partitions ``low`` and ``high``, and stop it at the end."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    missing = [name for name in (*DAEMONS, "sbatch", "srun") if not shutil.which(name, path=path)]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed: apt-get install slurmctld slurmd slurm-client")
    pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")
    folder = tmp_path_factory.mktemp("slurm")
    with ExitStack() as sockets:
        free = [sockets.enter_context(socket.create_server(("localhost", 0))) for _ in DAEMONS]
        ports = [each.getsockname()[1] for each in free]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    user = Slurm.answer("id", "--user", "--name")
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, ports=ports, user=user))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        controller = subprocess.Popen(["slurmctld", "-D"], stderr=subprocess.DEVNULL)
        node = subprocess.Popen(["slurmd", "-D", "-N", "localhost"], stderr=subprocess.DEVNULL)
        try:
            with suppress(AssertionError):
                Slurm.wait_until(lambda: "idle" in subprocess.getoutput("sinfo --noheader --format=%T"), 30)
            if "idle" not in (states := subprocess.getoutput("sinfo --noheader --format=%T")):
                pytest.skip(f"Slurm does not run here: {states}")
            yield Slurm()
        finally:
            subprocess.run(["scancel", "--full", f"--user={user}"], capture_output=True, check=False)
            with suppress(AssertionError):
                Slurm.wait_until(lambda: not Slurm.answer("squeue", "--noheader"), 40)
            for daemon in (node, controller):
                daemon.terminate()
                daemon.wait(20)
