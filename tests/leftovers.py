"""What killed processes leave behind."""

from pathlib import Path

from medseg.system.files import TEMPORARY, is_left_over


def leftovers(folder: Path) -> list[Path]:
    """Return the files in and below a folder that a killed process was writing, and nobody writes to now."""
    return [path for path in sorted(folder.rglob(".*")) if TEMPORARY.fullmatch(path.name) and is_left_over(path)]
