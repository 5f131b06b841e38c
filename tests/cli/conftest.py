"""Stub jobs in the place of the real ones."""

import pytest
from stub_jobs import stub_jobs


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """Stub jobs that record their resolved configs; ``jobs.outcome`` replaces what they do."""
    return stub_jobs(monkeypatch, tmp_path)
