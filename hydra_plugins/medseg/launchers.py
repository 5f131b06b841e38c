"""Hydra's view of medseg's own launchers: ``hydra/launcher=local``.

Hydra imports this module whenever it is used, so that nothing heavy is imported before jobs are launched.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalConf, provider="medseg")
