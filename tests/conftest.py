"""Real data for development, where it is present."""

from pathlib import Path

import pytest

REAL = Path(__file__).parents[1] / "../shared/data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data, or skip the test with a word."""
    if not REAL.is_dir():
        pytest.skip(f"real data is not at {REAL}")
    return REAL.resolve()
