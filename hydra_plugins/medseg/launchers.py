"""Hydra's view of medseg's own launchers: ``hydra/launcher=local``, ``submitit_slurm`` and ``submitit_local``.

Hydra imports this module whenever it is used, so that nothing heavy is imported before jobs are launched.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ProcessLauncher(Launcher):
    """Runs each job of medseg's in a process of its own. What Hydra calls the task is medseg's ``Sweep``."""

    sweep: Any
    context: HydraContext
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take in what Hydra hands to launchers."""
        self.sweep, self.context, self.config = task_function, hydra_context, config
        self.sweep.launcher = self

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs and return their scores."""
        scores = self.sweep.run(self.jobs(dict(enumerate(job_overrides, start=initial_job_idx))))
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=score)
            for overrides, score in zip(job_overrides, scores, strict=True)
        ]

    def jobs(self, overrides: Mapping[int, Sequence[str]]) -> Sequence[Any]:
        """Return jobs by the overrides of each number."""
        compose = partial(self.context.config_loader.load_sweep_config, self.config)
        return self.sweep.jobs([(number, [*its], partial(compose, [*its])) for number, its in overrides.items()])

    @abstractmethod
    def run(self, queue: Any) -> None:
        """Run the queued jobs until all have ended, and leave the result of each in its folder."""


class LocalLauncher(ProcessLauncher):
    """The jobs on the devices of this machine."""

    def __init__(self, devices: list[int] | None, jobs_per_device: int | str) -> None:
        """Errors in the values are raised when jobs are run, where they are shown without a traceback."""
        self.devices, self.jobs_per_device = devices, jobs_per_device

    def run(self, queue: Any) -> None:
        """Run the queued jobs until all have ended, and leave the result of each in its folder."""
        from medseg.sweeps.local import run_locally

        run_locally(queue, self.sweep, self.devices, self.jobs_per_device)


@dataclass
class LocalConf:
    """``devices`` are the numbers of the GPUs to use; ``jobs_per_device`` is a number or auto."""

    _target_: str = "hydra_plugins.medseg.launchers.LocalLauncher"
    devices: list[int] | None = None
    jobs_per_device: Any = 1


class ClusterLauncher(ProcessLauncher):
    """The jobs on a cluster with Slurm, or on this machine as if it were one."""

    def __init__(self, cluster: str, **parameters: Any) -> None:
        self.cluster, self.parameters = cluster, parameters

    def run(self, queue: Any) -> None:
        """Submit the queued jobs, and wait until all have ended and have left their results in their folders."""
        from medseg.sweeps.cluster import run_on_cluster

        run_on_cluster(queue, self.sweep, self.cluster, self.parameters)


@dataclass
class ClusterConf:
    """What each job asks for, by the names of Hydra's own submitit launcher; null leaves it to Slurm.

    Of ``array_parallelism``, how many jobs wait or run at a time, null is 256, and 4 in a search.

    Slurm's notice comes ``signal_delay_s`` before the time limit; the job then saves and is queued again, at most
    ``max_num_timeout`` times. ``setup`` are lines of a shell script that go before the job.
    """

    _target_: str = "hydra_plugins.medseg.launchers.ClusterLauncher"
    cluster: str = "slurm"
    name: str = "medseg"
    timeout_min: int = 60
    nodes: int = 1
    tasks_per_node: int = 1
    cpus_per_task: int = 4
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    comment: str | None = None
    array_parallelism: int | None = None
    signal_delay_s: int = 120
    max_num_timeout: int = 20
    setup: list[str] | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)


LAUNCHERS = {
    "local": LocalConf(),
    "submitit_slurm": ClusterConf(),
    "submitit_local": ClusterConf(cluster="local"),
}
for _name, _conf in LAUNCHERS.items():
    ConfigStore.instance().store(group="hydra/launcher", name=_name, node=_conf, provider="medseg")
