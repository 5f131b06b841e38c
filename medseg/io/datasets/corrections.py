"""Masks that someone has corrected, and the scans that they are of: they go before what a data set says itself.

A folder of corrections holds masks that are called like their cases. ``medseg predict worst=N`` makes one, with a table
``cases.csv`` with the images of each mask, and the hash of its file before anyone touched it.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from medseg.errors import MedsegError, listing, nearest
from medseg.io.case import Case, LabelFile
from medseg.io.csv_files import text_of
from medseg.io.files.read import find_masks, stem
from medseg.io.tables import Row, read_table
from medseg.system.files import file_hash

log = logging.getLogger(__name__)

TABLE = "cases.csv"
WRITTEN = "mask_sha256"
"""Column of the hash that a mask had when it was written for correction."""


def with_corrections(cases: Iterable[Case], root: Path) -> tuple[Case, ...]:
    """Give cases the corrected masks that are called like them, and add the new cases of the folder's table.

    A mask that is byte for byte what was predicted is left out: nobody has looked at it. A new case is added
    (``Case.added``), so that it never is tested on.

    Raises:
        MedsegError: the folder or its table cannot be used, two masks are of one case, or one is of none.
    """
    cases = tuple(cases)
    if not root.is_dir():
        raise MedsegError(f"dataset.corrections={root}: there is no such folder.")
    rows = read_rows(root)
    masks = masks_by_case(root)
    known = {case.id: case for case in cases}
    if unknown := [name for name in masks if name not in known and name not in rows]:
        hints = [f"{name}{nearest(name, [*known, *rows])}" for name in unknown]
        raise MedsegError(
            f"dataset.corrections={root}: no case is called\n{listing(hints)}\nA mask is called like its case."
        )
    touched = {name: mask for name, mask in masks.items() if rows.get(name, {}).get(WRITTEN) != file_hash(mask)}
    if untouched := [name for name in masks if name not in touched]:
        log.warning(
            "%d masks of %s are as they were predicted, and are left out. Save those that you looked at:\n%s",
            *(len(untouched), root, listing(untouched)),
        )
    added = [new_case(name, rows[name], mask) for name, mask in touched.items() if name not in known]
    corrected = tuple(
        replace(case, labels=(LabelFile(touched[case.id]),), annotated=None) if case.id in touched else case
        for case in cases
    )
    log.info("corrections: %d masks of the data set replaced, %d cases added", len(touched) - len(added), len(added))
    return (*corrected, *added)


def read_rows(root: Path) -> dict[str, Row]:
    """Return the rows of the folder's table by case; none where it has no table."""
    path = root / TABLE
    if not path.is_file() or not path.read_bytes().strip():  # version 0.1 wrote an empty one where all cases failed
        return {}
    table = read_table(path, "dataset.corrections", ("id",))
    rows = [{text_of(name): text_of(cell) for name, cell in row.items()} for row in table]
    return {row["id"]: row for row in rows}


def masks_by_case(root: Path) -> dict[str, Path]:
    """Return the masks by the case that they are called like: the path below the folder, without the suffix."""
    masks: dict[str, Path] = {}
    for path in find_masks(root):
        name = (path.parent / stem(path)).relative_to(root).as_posix()
        if name in masks:
            raise MedsegError(
                f"dataset.corrections={root}: {masks[name].name} and {path.name} are of one case, {name}."
            )
        masks[name] = path
    return masks


def new_case(name: str, row: Row, mask: Path) -> Case:
    """Return the case of a row: its images are in the columns that begin with ``image``, in the channels' order."""
    images = tuple(Path(cell) for column, cell in row.items() if column.startswith("image") and cell)
    if not images:
        raise MedsegError(f"dataset.corrections: {TABLE} names no image of {name}.")
    return Case(name, row.get("group") or name, images, (LabelFile(mask),), added=True)
