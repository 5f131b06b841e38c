"""Finished runs of seconds, with their data beside them; the table of docs/development/reliability.md."""

import shutil

import pytest
import small_jobs
from processes import run, said
from small_run import TRAIN
from trust.reliability import pytest_addoption, pytest_configure

from medseg.cli import command_line

__all__ = ["pytest_addoption", "pytest_configure"]  # hooks, which pytest looks for here


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a work place with a finished run, its data beside it."""
    place = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert command_line.main([*TRAIN, "run_dir=run"]) == 0
    return place


@pytest.fixture(scope="session")
def data_alone(tmp_path_factory):
    """Return a folder with nothing in it but the data set."""
    place = tmp_path_factory.mktemp("empty")
    assert run(("inspect", *small_jobs.DATA, "run_dir=inspected"), place) == 0, said(place)
    shutil.rmtree(place / "inspected")
    shutil.rmtree(place / "outputs/cache")
    return place


@pytest.fixture(scope="session")
def finished(data_alone, tmp_path_factory):
    """Return a folder with the data set, its cache, and a finished training."""
    place = tmp_path_factory.mktemp("trained") / "place"
    shutil.copytree(data_alone, place)
    assert run(small_jobs.TRAIN, place) == 0, said(place)
    return place


@pytest.fixture(scope="session")
def undisturbed(finished, tmp_path_factory):
    """Return ``undisturbed(command, output)``: the folder that an undisturbed command has written."""
    done = {small_jobs.TRAIN: finished}

    def whole(command, output):
        if command not in done:
            done[command] = tmp_path_factory.mktemp("undisturbed") / "place"
            shutil.copytree(finished, done[command])
            assert run(command, done[command]) == 0, said(done[command])
        return done[command] / output

    return whole
