"""Stub jobs in the place of the real ones, for tests of the command line and of the commands that pages write."""

import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

from medseg.cli import command_line
from medseg.cli.job import JOBS, OF_SWEEPS, attempt
from medseg.config.check import resolve
from medseg.sweeps import local
from medseg.sweeps.record import INTERRUPTED_JOB, record


class JobHere:
    """Stands for the process of a sweep's job, which would have jobs of its own in place of the stubs."""

    has_ended = True

    def __init__(self, command, folder):
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, job, share, argv):
        result = INTERRUPTED_JOB
        try:
            config = job.compose()
            _, result = attempt(config, argv, () if config["command"] in OF_SWEEPS else None)
        finally:
            record(job.folder, result, job.overrides)

    def reason(self):
        return ""

    def stop(self, number=signal.SIGTERM):
        pass

    kill = stop


def stub_jobs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> ModuleType:
    """Work in a folder with jobs that record their resolved configs; ``outcome`` of the module is what they do."""
    module = ModuleType("stub")
    module.configs, module.argv = [], []
    module.outcome = lambda config: {"status": "done", "reason": "", "score": 0.5, "seconds": 1.0}

    def run(config):
        module.configs.append(resolve(config))
        module.argv.append(sys.argv[1:])
        return module.outcome(config)

    module.run = run
    for name in [*JOBS.values(), *OF_SWEEPS.values()]:
        monkeypatch.setitem(sys.modules, f"medseg.jobs.{name}", module)
    monkeypatch.setattr(local, "JobProcess", JobHere)
    monkeypatch.setattr(local, "LOOK", 0.0)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(command_line, "absent_paths", lambda checked: [])  # the paths of these tests are made up
    return module
