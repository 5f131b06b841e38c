"""Stub jobs in the place of the real ones."""

import sys
from types import ModuleType

import pytest

from medseg.cli import command_line
from medseg.config.check import resolve


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """Stub jobs that record their resolved configs; ``jobs.outcome`` replaces what they do."""
    module = ModuleType("stub")
    module.configs, module.argv = [], []
    module.outcome = lambda config: {"status": "done", "reason": "", "score": 0.5, "seconds": 1.0}

    def run(config):
        module.configs.append(resolve(config))
        module.argv.append(sys.argv[1:])
        return module.outcome(config)

    module.run = run
    for name in command_line.JOBS.values():
        monkeypatch.setitem(sys.modules, f"medseg.jobs.{name}", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(command_line, "absent_paths", lambda checked: [])  # the paths of these tests are made up
    return module
