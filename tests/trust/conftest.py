"""A finished run of seconds, with its data beside it."""

import pytest
from small_run import TRAIN

from medseg import cli


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a work place with a finished run, its data beside it."""
    place = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert cli.main([*TRAIN, "run_dir=run"]) == 0
    return place
