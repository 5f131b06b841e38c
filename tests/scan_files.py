"""Scans read from files without a data set round them."""

from collections.abc import Sequence
from pathlib import Path

from medseg.io.case import Case, GridPolicy, Orientation, Scan
from medseg.io.files.read import read_case


def read_scan(
    paths: Sequence[Path], geometry: GridPolicy = "error", reference: int = 0, orientation: Orientation = "apply"
) -> Scan:
    """Read the channels of one scan, from one file that holds all or from one file a channel."""
    return read_case(Case("", "", tuple(paths), geometry=geometry, reference=reference, orientation=orientation))
