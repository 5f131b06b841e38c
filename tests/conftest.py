"""Real data for development, where it is present; property tests that draw the same examples each time."""

from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("thorough", settings.get_profile("repeatable"), max_examples=2000)  # --hypothesis-profile=
settings.load_profile("repeatable")

REAL = Path(__file__).parents[1] / "../shared/data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data, or skip the test with a word."""
    if not REAL.is_dir():
        pytest.skip(f"real data is not at {REAL}")
    return REAL.resolve()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what no UTF-8 can hold in what a test printed: reports travel between processes as UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
