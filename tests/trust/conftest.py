"""A finished run of seconds, with its data beside it; the table of docs/reliability.md."""

import pytest
from small_run import TRAIN
from trust.reliability import pytest_addoption, pytest_configure

from medseg import cli

__all__ = ["pytest_addoption", "pytest_configure"]  # hooks, which pytest looks for here


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a work place with a finished run, its data beside it."""
    place = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert cli.main([*TRAIN, "run_dir=run"]) == 0
    return place
